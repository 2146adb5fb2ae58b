package nixcache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// texts are contents of sizes around those of buffers and chunks.
func texts() map[string][]byte {
	noise := make([]byte, 300_000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	return map[string][]byte{
		"nothing": {}, "a byte": {7}, "a chunk": noise[:xzMaxChunk], "a chunk and a byte": noise[:xzMaxChunk+1],
		"noise": noise, "zeros": make([]byte, 1_000_000),
	}
}

func encode(t testing.TB, f *format, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := f.write(&b)
	if err == nil {
		_, err = io.Copy(w, iotest.HalfReader(bytes.NewReader(text)))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatalf("%s: %v", f.encoding, err)
	}
	return b.Bytes()
}

func TestFormatsReadWhatTheyWrite(t *testing.T) {
	t.Parallel()
	for _, f := range packed {
		if f.write == nil {
			continue
		}
		for name, text := range texts() {
			file := encode(t, f, text)
			if !strings.HasPrefix(string(file), f.magic) {
				t.Errorf("%s, %s: begins with %q", f.encoding, name, file[:min(8, len(file))])
			}
			for _, wrap := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.DataErrReader} {
				got, err := io.ReadAll(f.unpack(wrap(bytes.NewReader(file))))
				if err != nil || !bytes.Equal(got, text) {
					t.Errorf("%s, %s: %d of %d bytes, %v", f.encoding, name, len(got), len(text), err)
				}
			}
		}
	}
}

// tool pipes bytes through a compressor of the system's.
func tool(t testing.TB, input []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = bytes.NewReader(input)
	var faults bytes.Buffer
	cmd.Stderr = &faults
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, args, err, &faults)
	}
	return out
}

func TestFormatsAreThoseOfTheTools(t *testing.T) {
	t.Parallel()
	for encoding, write := range map[string][][]string{
		"xz": {
			{"xz", "-0"},
			{"xz", "-2", "--check=none"},
			{"xz", "-1", "--check=crc32"},
			{"xz", "-1", "--check=sha256"},
			{"xz", "-1", "-T2", "--block-size=65536"},
		},
		"bzip2": {{"bzip2", "-1"}, {"bzip2", "-9"}},
		"lz4":   {{"lz4", "-1"}, {"lz4", "-9", "-BD"}},
		"zstd":  {{"zstd", "-3"}, {"zstd", "-9"}},
		"gzip":  {{"gzip", "-1"}, {"gzip", "-9"}},
		"br":    {{"brotli", "-q", "3"}},
		"lzip":  {{"lzip", "-0"}, {"lzip", "-3"}},
	} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			program := write[0][0]
			if _, err := exec.LookPath(program); err != nil {
				t.Skipf("%s is not installed: the comparison with it needs it", program)
			}
			f, _ := formatOf(map[string]string{"zstd": ".zst", "gzip": ".gz", "bzip2": ".bz2"}[encoding])
			if f == formatPlain {
				f, _ = formatOf("." + encoding)
			}
			for name, text := range texts() {
				for _, args := range write {
					file := tool(t, text, program, append(args[1:], "-c")...)
					got, err := io.ReadAll(f.unpack(bytes.NewReader(file)))
					if err != nil || !bytes.Equal(got, text) {
						t.Errorf("%s by %s: %d bytes of %d, %v", name, args, len(got), len(text), err)
					}
				}
				if f.write != nil && !bytes.Equal(tool(t, encode(t, f, text), program, "-dc"), text) {
					t.Errorf("%s reads something else than %s", program, name)
				}
			}
		})
	}
}

// What is written for xz is read by another reader of it, too.
func TestXZIsReadByItsLibrary(t *testing.T) {
	t.Parallel()
	f, _ := formatOf(".xz")
	for name, text := range texts() {
		r, err := xz.NewReader(bytes.NewReader(encode(t, f, text)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s: %d of %d bytes, %v", name, len(got), len(text), err)
		}
	}
}

// A reader's own fault is not the file's, and a file that ends early is no whole
// one.
func TestFormatsTellTheFileFromItsReader(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	text := texts()["noise"]
	for _, f := range packed {
		if f.write == nil {
			continue
		}
		file := encode(t, f, text)
		for _, n := range []int{0, 1, 5, 12, 13, 100, len(file) / 2} {
			if _, err := io.ReadAll(f.unpack(io.MultiReader(bytes.NewReader(file[:n]), iotest.ErrReader(broken)))); !errors.Is(err, broken) {
				t.Errorf("%s, broken off after %d bytes: %v", f.encoding, n, err)
			}
			if n == 0 && (f.encoding == "zstd" || f.encoding == "lz4") {
				continue // no frames are nothing
			}
			if got, err := io.ReadAll(f.unpack(bytes.NewReader(file[:n]))); !errors.Is(err, errMalformed) && !errors.Is(err, errUnsupported) {
				t.Errorf("%s of %d bytes: %d bytes, %v", f.encoding, n, len(got), err)
			}
		}
	}
}

// A file of a few bytes cannot make the server hold gigabytes.
func TestFilesThatAskForMuchMemoryAreRefused(t *testing.T) {
	t.Parallel()
	summed := func(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b)) }
	xzFile := append([]byte(xzMagic), summed([]byte{0, 0})...)
	xzFile = append(xzFile, summed([]byte{2, 0, xzLZMA2, 1, 40, 0, 0, 0})...) // 4 GiB
	for suffix, file := range map[string][]byte{
		".xz":   append(xzFile, make([]byte, 100)...),
		".lzip": append([]byte(lzipMagic+"\x01\x1d"), make([]byte, 100)...), // 512 MiB
	} {
		f, _ := formatOf(suffix)
		if _, err := io.ReadAll(f.unpack(bytes.NewReader(file))); !errors.Is(err, errUnsupported) {
			t.Errorf("%s: %v", suffix, err)
		}
	}
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithWindowSize(2*maxZstdHistory), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = z.Write(make([]byte, 1<<20))
	_ = z.Flush() // so that the frame says its window
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(formatZstd.unpack(&b)); !errors.Is(err, errMalformed) {
		t.Errorf("zstd: %v", err)
	}
}

func TestFilesWithoutASuffixAreReadByWhatTheyBeginWith(t *testing.T) {
	t.Parallel()
	archive := append([]byte(narMagic), make([]byte, 1000)...)
	if f, r, err := sniff(bytes.NewReader(archive)); err != nil || f != formatPlain {
		t.Errorf("a NAR: %v, %v", f, err)
	} else if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, archive) {
		t.Errorf("a NAR: %d bytes, %v", len(got), err)
	}
	for _, want := range packed {
		if want.write == nil || want.magic == "" {
			continue
		}
		f, r, err := sniff(bytes.NewReader(encode(t, want, archive)))
		if err != nil || f != want {
			t.Errorf("%s: %v, %v", want.encoding, f, err)
			continue
		}
		if got, err := io.ReadAll(f.unpack(r)); err != nil || !bytes.Equal(got, archive) {
			t.Errorf("%s: %d bytes, %v", want.encoding, len(got), err)
		}
	}
	for _, other := range []string{"BC\xc0\xde", strings.Repeat("x", 100), "\x0d", ""} {
		if _, _, err := sniff(strings.NewReader(other)); !errors.Is(err, errUnsupported) {
			t.Errorf("%.10q: %v", other, err)
		}
	}
	broken := errors.New("broken")
	if _, _, err := sniff(io.MultiReader(strings.NewReader(narMagic[:5]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("broken off: %v", err)
	}
}

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("index out of range") }

func TestADecoderThatPanicsIsAnError(t *testing.T) {
	t.Parallel()
	f := &format{encoding: "x", read: func(io.Reader) (io.Reader, error) { return panicking{}, nil }}
	r := f.unpack(strings.NewReader("x"))
	for range 2 {
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, errMalformed) {
			t.Errorf("got %v", err)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(-1, []byte(narMagic))
	for i, format := range packed {
		if format.write == nil {
			continue
		}
		for _, text := range texts() {
			f.Add(i, encode(f, format, text[:min(1000, len(text))]))
		}
	}
	f.Add(2, []byte("BZh91AY&SY\x19\x31\x65\x3d\x00\x00\x00\x81\x00\x02D\xa0\x00!\x9ah3M\x073\x8b\xb9\"\x9c(H\x0c\x98\xb2\x9e\x80"))
	f.Fuzz(func(t *testing.T, which int, file []byte) {
		var r io.Reader = bytes.NewReader(file)
		format := packed[uint(which)%uint(len(packed))]
		if which < 0 {
			var err error
			if format, r, err = sniff(r); err != nil {
				return
			}
		}
		n, err := io.Copy(io.Discard, io.LimitReader(format.unpack(r), 16<<20))
		if err != nil && !errors.Is(err, errMalformed) && !errors.Is(err, errUnsupported) {
			t.Fatalf("%d bytes, %v", n, err)
		}
	})
}
