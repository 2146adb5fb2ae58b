package chunker_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
)

// split returns copies of all chunks Next returns, and the error that ended
// them unless it was io.EOF.
func split(r io.Reader, p chunker.Params) ([][]byte, error) {
	c, err := chunker.New(r, p)
	if err != nil {
		return nil, err
	}
	var chunks [][]byte
	for {
		chunk, err := c.Next()
		if err == io.EOF {
			return chunks, nil
		}
		if err != nil {
			return chunks, err
		}
		chunks = append(chunks, bytes.Clone(chunk))
	}
}

// fataler is what testing.TB and rapid.T have in common for mustSplit.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func mustSplit(t fataler, r io.Reader, p chunker.Params) [][]byte {
	t.Helper()
	chunks, err := split(r, p)
	if err != nil {
		t.Fatalf("split with %+v: %v", p, err)
	}
	return chunks
}

// lengths returns the chunk lengths, which read better in a failure than the
// chunks.
func lengths(chunks [][]byte) []int {
	ns := make([]int, len(chunks))
	for i, c := range chunks {
		ns[i] = len(c)
	}
	return ns
}

// randomBytes returns n bytes that depend on n and seed alone, whatever the
// platform.
func randomBytes(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		params chunker.Params
		field  string // of the ParamError; empty for valid parameters
	}{
		{"default for NARs", chunker.Params{Average: chunker.DefaultAverage}, ""},
		{"recommended by the specification", chunker.Params{Average: 512 << 10}, ""},
		{"smallest average", chunker.Params{Average: 1 << 10}, ""},
		{"largest average", chunker.Params{Average: 1 << 20}, ""},
		{"published vectors", chunker.Params{Average: 16384, Min: 4096, Max: 65535, Seed: 666}, ""},
		{"all sizes equal", chunker.Params{Average: 4096, Min: 4096, Max: 4096}, ""},
		{"smallest minimum", chunker.Params{Average: 1 << 10, Min: 64}, ""},
		{"largest maximum", chunker.Params{Average: 1 << 10, Max: 16 << 20}, ""},
		{"odd minimum", chunker.Params{Average: 1 << 10, Min: 65}, ""},

		{"zero value", chunker.Params{}, "Average"},
		{"negative average", chunker.Params{Average: -1024}, "Average"},
		{"average below the specification", chunker.Params{Average: 512}, "Average"},
		{"average above the specification", chunker.Params{Average: 2 << 20}, "Average"},
		{"average not a power of two", chunker.Params{Average: 3 << 10}, "Average"},
		{"negative minimum", chunker.Params{Average: 1 << 10, Min: -64}, "Min"},
		{"minimum too small", chunker.Params{Average: 1 << 10, Min: 63}, "Min"},
		{"minimum above average", chunker.Params{Average: 1 << 10, Min: 1025}, "Min"},
		{"negative maximum", chunker.Params{Average: 1 << 10, Max: -1}, "Max"},
		{"maximum below average", chunker.Params{Average: 1 << 10, Max: 1023}, "Max"},
		{"maximum too large", chunker.Params{Average: 1 << 10, Max: 16<<20 + 1}, "Max"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, newErr := chunker.New(bytes.NewReader(nil), tc.params)
			for name, err := range map[string]error{"Validate": tc.params.Validate(), "New": newErr} {
				if tc.field == "" {
					if err != nil {
						t.Errorf("%s: %v", name, err)
					}
					continue
				}
				paramErr, ok := errors.AsType[*chunker.ParamError](err)
				if !ok || paramErr.Field != tc.field {
					t.Errorf("%s: got error %v, want a ParamError for %s", name, err, tc.field)
				}
			}
		})
	}
}

func TestParamErrorMessage(t *testing.T) {
	t.Parallel()
	err := chunker.Params{Average: 1000}.Validate()
	const want = "chunker: Average is 1000 bytes, want a power of two from 1024 to 1048576"
	if err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
}

func TestDefaultSizes(t *testing.T) {
	t.Parallel()
	input := randomBytes(1, 256<<10)
	got := mustSplit(t, bytes.NewReader(input), chunker.Params{Average: 4096})
	want := mustSplit(t, bytes.NewReader(input), chunker.Params{Average: 4096, Min: 1024, Max: 16384})
	if !slices.Equal(lengths(got), lengths(want)) {
		t.Errorf("got lengths %v, want those of Average/4 and Average*4: %v", lengths(got), lengths(want))
	}
}

func TestSeedMovesCuts(t *testing.T) {
	t.Parallel()
	input := randomBytes(1, 64<<10)
	zero := mustSplit(t, bytes.NewReader(input), chunker.Params{Average: 1024})
	one := mustSplit(t, bytes.NewReader(input), chunker.Params{Average: 1024, Seed: 1})
	if slices.Equal(lengths(zero), lengths(one)) {
		t.Errorf("seeds 0 and 1 give the same chunk lengths %v", lengths(zero))
	}
}

// TestLengths covers inputs around the size limits. Zeros never meet a mask, so
// they are cut at the maximum alone.
func TestLengths(t *testing.T) {
	t.Parallel()
	even := chunker.Params{Average: 1024} // Min 256, Max 4096
	odd := chunker.Params{Average: 1024, Min: 255, Max: 4095}
	for _, tc := range []struct {
		params chunker.Params
		zeros  int
		want   []int
	}{
		{even, 0, nil},
		{even, 1, []int{1}},
		{even, 255, []int{255}},
		{even, 256, []int{256}},
		{even, 257, []int{257}},
		{even, 1023, []int{1023}},
		{even, 1025, []int{1025}},
		{even, 4095, []int{4095}},
		{even, 4096, []int{4096}},
		{even, 4097, []int{4096, 1}},
		{even, 8192, []int{4096, 4096}},
		{even, 8193, []int{4096, 4096, 1}},
		{odd, 254, []int{254}},
		{odd, 255, []int{255}},
		{odd, 256, []int{256}},
		{odd, 4095, []int{4095}},
		{odd, 4096, []int{4095, 1}},
		{odd, 8191, []int{4095, 4095, 1}},
	} {
		t.Run(fmt.Sprintf("min %d/%d zeros", tc.params.Min, tc.zeros), func(t *testing.T) {
			t.Parallel()
			chunks := mustSplit(t, bytes.NewReader(make([]byte, tc.zeros)), tc.params)
			if got := lengths(chunks); !slices.Equal(got, tc.want) {
				t.Errorf("got lengths %v, want %v", got, tc.want)
			}
		})
	}
}

func TestEndIsFinal(t *testing.T) {
	t.Parallel()
	c, err := chunker.New(bytes.NewReader([]byte("short")), chunker.Params{Average: 1024})
	if err != nil {
		t.Fatal(err)
	}
	if chunk, err := c.Next(); string(chunk) != "short" || err != nil {
		t.Fatalf("got %q, %v, want the whole input", chunk, err)
	}
	for range 3 {
		if chunk, err := c.Next(); chunk != nil || err != io.EOF {
			t.Errorf("got %q, %v, want no chunk and io.EOF", chunk, err)
		}
	}
}

// TestChunkAppend checks that an append to a chunk spares the chunk after it.
func TestChunkAppend(t *testing.T) {
	t.Parallel()
	input := randomBytes(2, 32<<10)
	c, err := chunker.New(bytes.NewReader(input), chunker.Params{Average: 1024})
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for {
		chunk, err := c.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, chunk...)
		_ = append(chunk, "overwritten"...)
	}
	if !bytes.Equal(got, input) {
		t.Error("an append to a chunk changed a later chunk")
	}
}

// TestReadError breaks a stream at various points: the chunks before the error
// must be chunks of the intact stream, and the tail must never become one.
func TestReadError(t *testing.T) {
	t.Parallel()
	p := chunker.Params{Average: 1024}
	const maxSize = 4096
	input := randomBytes(3, 64<<10)
	intact := mustSplit(t, bytes.NewReader(input), p)
	errBroken := errors.New("broken")

	for _, readErr := range []error{errBroken, io.ErrUnexpectedEOF, fmt.Errorf("wrapped: %w", io.EOF)} {
		for _, at := range []int{0, 1, 100, maxSize - 1, maxSize, maxSize + 1, 3*maxSize + 17, len(input)} {
			for name, wrap := range map[string]func(io.Reader) io.Reader{
				"error alone":     func(r io.Reader) io.Reader { return r },
				"error with data": iotest.DataErrReader,
				"one byte":        iotest.OneByteReader,
			} {
				t.Run(fmt.Sprintf("%v at %d/%s", readErr, at, name), func(t *testing.T) {
					t.Parallel()
					r := wrap(io.MultiReader(bytes.NewReader(input[:at]), iotest.ErrReader(readErr)))
					c, err := chunker.New(r, p)
					if err != nil {
						t.Fatal(err)
					}
					i, offset := 0, 0
					for ; ; i++ {
						var chunk []byte
						if chunk, err = c.Next(); err != nil {
							break
						}
						if !bytes.Equal(chunk, intact[i]) {
							t.Fatalf("chunk %d has length %d, differs from the intact stream's of %d", i, len(chunk), len(intact[i]))
						}
						offset += len(chunk)
					}
					if err != readErr {
						t.Errorf("got error %v, want the reader's", err)
					}
					if rest := at - offset; rest >= maxSize {
						t.Errorf("stopped %d bytes before the error, want under %d", rest, maxSize)
					}
					if chunk, err := c.Next(); chunk != nil || err != readErr {
						t.Errorf("call after the error: got %d bytes, %v, want the same error", len(chunk), err)
					}
				})
			}
		}
	}
}

// stuckReader returns neither data nor an error, which io.Reader discourages
// but allows.
type stuckReader struct{}

func (stuckReader) Read([]byte) (int, error) { return 0, nil }

func TestNoProgress(t *testing.T) {
	t.Parallel()
	r := io.MultiReader(bytes.NewReader(make([]byte, 5000)), stuckReader{})
	chunks, err := split(r, chunker.Params{Average: 1024})
	if err != io.ErrNoProgress {
		t.Errorf("got error %v, want io.ErrNoProgress", err)
	}
	if got, want := lengths(chunks), []int{4096}; !slices.Equal(got, want) {
		t.Errorf("got lengths %v, want %v", got, want)
	}
}

// haltingReader returns an empty read before each byte of r.
type haltingReader struct {
	r    io.Reader
	full bool // whether the next read is not empty
}

func (r *haltingReader) Read(b []byte) (int, error) {
	r.full = !r.full
	if r.full {
		return 0, nil
	}
	return r.r.Read(b[:1])
}

// TestEmptyReads checks that a reader isn't taken for stuck by the total of its
// empty reads.
func TestEmptyReads(t *testing.T) {
	t.Parallel()
	r := &haltingReader{r: bytes.NewReader(make([]byte, 5000))}
	chunks := mustSplit(t, r, chunker.Params{Average: 1024})
	if got, want := lengths(chunks), []int{4096, 904}; !slices.Equal(got, want) {
		t.Errorf("got lengths %v, want %v", got, want)
	}
}

// TestNextAllocates isn't parallel, since AllocsPerRun counts for all
// goroutines.
func TestNextAllocates(t *testing.T) {
	input := randomBytes(4, 1<<20)
	c, err := chunker.New(bytes.NewReader(input), chunker.Params{Average: 1024, Seed: 5})
	if err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(200, func() {
		if _, err := c.Next(); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("Next allocates %v times, want 0", got)
	}
}

func BenchmarkNext(b *testing.B) {
	input := randomBytes(5, 32<<20)
	for _, average := range []int{16 << 10, chunker.DefaultAverage, 512 << 10} {
		b.Run(fmt.Sprintf("average=%dKiB", average>>10), func(b *testing.B) {
			b.SetBytes(int64(len(input)))
			b.ReportAllocs()
			for b.Loop() {
				c, err := chunker.New(bytes.NewReader(input), chunker.Params{Average: average})
				if err != nil {
					b.Fatal(err)
				}
				for err == nil {
					_, err = c.Next()
				}
				if err != io.EOF {
					b.Fatal(err)
				}
			}
		})
	}
}
