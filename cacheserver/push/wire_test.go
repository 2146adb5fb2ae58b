package push_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
)

const hashA = "0c5b8vw40dy178xlpddw65q9gf1h2186"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func chunk(name string) digest.Chunk {
	return digest.Chunk{Hash: digest.Of([]byte(name)), Size: uint32(len(name))}
}

func hashes(names ...string) []digest.Hash {
	var out []digest.Hash
	for _, n := range names {
		out = append(out, digest.Of([]byte(n)))
	}
	return out
}

// path is the narinfo of a NAR of size bytes.
func path(size int64) *narinfo.NarInfo {
	return &narinfo.NarInfo{
		StorePath: "/nix/store/" + hashA + "-hello", NarHash: digest.Of([]byte("nar")), NarSize: size,
		References: []string{hashA + "-hello"}, Deriver: hashA + "-hello.drv", Signatures: []string{"a:b", "c:d"}, CA: "fixed:r:sha256:x",
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		names := rapid.SliceOf(rapid.StringN(1, -1, 40)).Draw(rt, "chunks")
		var frames []pack.Frame
		var chunks []digest.Chunk
		size := int64(0)
		for _, n := range names {
			frames = append(frames, pack.Frame{Chunk: chunk(n), Data: []byte("frame of " + n)})
			chunks = append(chunks, chunk(n))
			size += int64(len(n))
		}
		got, err := push.ReadHashes(bytes.NewReader(push.AppendHashes(nil, hashes(names...))), len(names))
		if err != nil || !slices.Equal(got, hashes(names...)) {
			rt.Errorf("hashes: %v, %v", got, err)
		}
		var body []byte
		for _, f := range frames {
			body = push.AppendFrame(body, f)
		}
		// However the network cuts it up.
		back, err := push.ReadFrames(iotest.OneByteReader(bytes.NewReader(body)))
		if err != nil || fmt.Sprint(back) != fmt.Sprint(frames) {
			rt.Errorf("frames: %v, %v", back, err)
		}
		if size == 0 {
			return
		}
		info, list, err := push.ReadCommit(iotest.OneByteReader(bytes.NewReader(push.AppendCommit(nil, path(size), chunks))))
		if err != nil || !bytes.Equal(info.Text(), path(size).Text()) || !slices.Equal(list, chunks) {
			rt.Errorf("commit: %v, %v, %v", info, list, err)
		}
	})
}

func TestReadHashesRefuses(t *testing.T) {
	t.Parallel()
	two := push.AppendHashes(nil, hashes("a", "b"))
	for name, body := range map[string][]byte{
		"a byte":               {0},
		"a byte too few":       two[:len(two)-1],
		"a byte too many":      append(slices.Clone(two), 0),
		"a hash over the most": push.AppendHashes(slices.Clone(two), hashes("c")),
	} {
		if got, err := push.ReadHashes(bytes.NewReader(body), 2); !errors.Is(err, push.ErrMalformed) || got != nil {
			t.Errorf("%s: got %v, %v; want ErrMalformed", name, got, err)
		}
	}
	if got, err := push.ReadHashes(bytes.NewReader(nil), 0); len(got) != 0 || err != nil {
		t.Errorf("of an empty body: %v, %v", got, err)
	}
}

// record is one of a body of chunks, with any sizes.
func record(size, length uint32, data string) []byte {
	h := digest.Of([]byte("x"))
	b := binary.BigEndian.AppendUint32(h[:], size)
	return append(binary.BigEndian.AppendUint32(b, length), data...)
}

func TestReadFramesRefuses(t *testing.T) {
	t.Parallel()
	good := record(1, 5, "frame")
	for name, bad := range map[string][]byte{
		"a head cut off":          good[:39],
		"a head without a frame":  good[:40],
		"a frame cut off":         good[:len(good)-1],
		"a byte too many":         append(slices.Clone(good), 0),
		"a chunk of 0 bytes":      record(0, 5, "frame"),
		"a chunk over the limit":  record(frame.MaxChunk+1, 5, "frame"),
		"a chunk of 4 GiB":        record(1<<32-1, 5, "frame"),
		"a frame of 0 bytes":      record(1, 0, ""),
		"a frame over the limit":  record(1, frame.MaxFrame+1, strings.Repeat("f", frame.MaxFrame+1)),
		"a frame of 4 GiB":        record(1, 1<<32-1, "frame"),
		"more said than there is": record(1, 6, "frame"),
		"less said than there is": record(1, 4, "frame"),
	} {
		for _, body := range [][]byte{bad, append(slices.Clone(good), bad...)} {
			if got, err := push.ReadFrames(bytes.NewReader(body)); !errors.Is(err, push.ErrMalformed) || got != nil {
				t.Errorf("%s: got %d frames, %v; want ErrMalformed", name, len(got), err)
			}
		}
	}
	largest := record(frame.MaxChunk, frame.MaxFrame, strings.Repeat("f", frame.MaxFrame))
	if got, err := push.ReadFrames(bytes.NewReader(largest)); err != nil || len(got) != 1 {
		t.Errorf("the largest that may be: %d frames, %v", len(got), err)
	}
	if got, err := push.ReadFrames(bytes.NewReader(nil)); err != nil || len(got) != 0 {
		t.Errorf("an empty body: %d frames, %v", len(got), err)
	}
}

func TestReadCommitRefuses(t *testing.T) {
	t.Parallel()
	head := string(path(10).Text())
	list := func(sizes ...uint32) string {
		var b []byte
		for _, s := range sizes {
			h := digest.Of([]byte("x"))
			b = append(b, h[:]...)
			b = binary.BigEndian.AppendUint32(b, s)
		}
		return string(b)
	}
	long := "X: " + strings.Repeat("x", narinfo.MaxSize)
	for name, c := range map[string]struct {
		body string
		want error
	}{
		"nothing":                      {"", push.ErrMalformed},
		"a newline":                    {"\n", narinfo.ErrMalformed},
		"no empty line":                {head, push.ErrMalformed},
		"an end in the narinfo":        {head[:20], push.ErrMalformed},
		"an end before the newline":    {strings.TrimSuffix(head, "\n"), push.ErrMalformed},
		"no narinfo":                   {"hello\n\n" + list(10), narinfo.ErrMalformed},
		"a narinfo without NarHash":    {"StorePath: x\nNarSize: 10\n\n" + list(10), narinfo.ErrMalformed},
		"lines that end as in DOS":     {strings.ReplaceAll(head, "\n", "\r\n") + "\r\n" + list(10), push.ErrMalformed},
		"a narinfo over the limit":     {head + strings.Repeat("Sig: a:b\n", narinfo.MaxSize/9) + "\n" + list(10), push.ErrMalformed},
		"a line over the limit":        {head + long + "\n\n" + list(10), push.ErrMalformed},
		"a line that does not end":     {long + long, push.ErrMalformed},
		"no chunks":                    {head + "\n", push.ErrMalformed},
		"a chunk cut off":              {head + "\n" + list(10)[:35], push.ErrMalformed},
		"a byte too many":              {head + "\n" + list(10) + "\x00", push.ErrMalformed},
		"chunks that are too few":      {head + "\n" + list(4, 5), push.ErrMalformed},
		"chunks that are too many":     {head + "\n" + list(4, 7), push.ErrMalformed},
		"a chunk behind the end":       {head + "\n" + list(10, 1), push.ErrMalformed},
		"an empty chunk":               {head + "\n" + list(5, 0, 5), push.ErrMalformed},
		"an empty chunk at the end":    {head + "\n" + list(10, 0), push.ErrMalformed},
		"a chunk of 4 GiB":             {head + "\n" + list(1<<32-1), push.ErrMalformed},
		"two empty lines":              {head + "\n\n" + list(10), push.ErrMalformed},
		"chunks without an empty line": {head + list(10), push.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, chunks, err := push.ReadCommit(strings.NewReader(c.body))
			if !errors.Is(err, c.want) || info != nil || chunks != nil {
				t.Errorf("got %v, %v, %v; want %v", info, chunks, err, c.want)
			}
			if err != nil && len(err.Error()) > 500 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

// Lines are read in pieces; where a piece ends must not matter.
func TestANarinfoOfLongLines(t *testing.T) {
	t.Parallel()
	for _, n := range []int{65533, 65534, 65535, 65536, 65537, 2*65536 - 1, 2 * 65536, 2*65536 + 1, 900_000} {
		info := path(5)
		info.CA = strings.Repeat("x", n-len("CA: "))
		got, chunks, err := push.ReadCommit(bytes.NewReader(push.AppendCommit(nil, info, []digest.Chunk{chunk("hello")})))
		if err != nil || got.CA != info.CA || len(chunks) != 1 {
			t.Errorf("a line of %d bytes: %d chunks, %v", n, len(chunks), err)
		}
		// The long line first, so that it begins at a piece's beginning.
		body := append([]byte("CA: "+info.CA+"\n"), push.AppendCommit(nil, path(5), []digest.Chunk{chunk("hello")})...)
		body = bytes.Replace(body, []byte("CA: fixed:r:sha256:x\n"), nil, 1)
		got, chunks, err = push.ReadCommit(bytes.NewReader(body))
		if err != nil || got.CA != info.CA || len(chunks) != 1 {
			t.Errorf("a first line of %d bytes: %d chunks, %v", n, len(chunks), err)
		}
	}
}

// A connection's fault is not the body's: the two have different statuses.
func TestReadersReturnTheConnectionsError(t *testing.T) {
	t.Parallel()
	frames := record(1, 5, "frame")
	commit := push.AppendCommit(nil, path(5), []digest.Chunk{chunk("hello")})
	for name, c := range map[string]struct {
		body []byte
		read func(io.Reader) error
	}{
		"hashes": {push.AppendHashes(nil, hashes("a", "b")), func(r io.Reader) error { _, err := push.ReadHashes(r, 2); return err }},
		"frames": {append(slices.Clone(frames), frames...), func(r io.Reader) error { _, err := push.ReadFrames(r); return err }},
		"commit": {commit, func(r io.Reader) error { _, _, err := push.ReadCommit(r); return err }},
	} {
		for _, fault := range []error{errors.New("connection reset"), &http.MaxBytesError{Limit: 5}} {
			for at := range c.body {
				err := c.read(io.MultiReader(bytes.NewReader(c.body[:at]), iotest.ErrReader(fault)))
				if !errors.Is(err, fault) || errors.Is(err, push.ErrMalformed) {
					t.Fatalf("%s, broken off at %d: got %v, want %v", name, at, err, fault)
				}
			}
		}
	}
}

func FuzzReadHashes(f *testing.F) {
	f.Add(push.AppendHashes(nil, hashes("a", "b")), 2)
	f.Add(push.AppendHashes(nil, hashes("a", "b", "c")), 2)
	f.Add([]byte("short"), 1)
	f.Fuzz(func(t *testing.T, body []byte, limit int) {
		limit = max(limit, 0)
		got, err := push.ReadHashes(bytes.NewReader(body), limit)
		switch {
		case err != nil && !errors.Is(err, push.ErrMalformed):
			t.Fatalf("%v is not ErrMalformed", err)
		case err == nil && len(got) > limit:
			t.Fatalf("%d hashes, the limit is %d", len(got), limit)
		case err == nil && !bytes.Equal(push.AppendHashes(nil, got), body):
			t.Fatal("it is written differently")
		}
	})
}

func FuzzReadFrames(f *testing.F) {
	f.Add(record(1, 5, "frame"))
	f.Add(append(record(1, 5, "frame"), record(frame.MaxChunk, 1, "x")...))
	f.Add(record(0, 0, ""))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := push.ReadFrames(bytes.NewReader(body))
		if err != nil {
			if !errors.Is(err, push.ErrMalformed) {
				t.Fatalf("%v is not ErrMalformed", err)
			}
			return
		}
		var again []byte
		for _, fr := range got {
			again = push.AppendFrame(again, fr)
		}
		if !bytes.Equal(again, body) {
			t.Fatal("it is written differently")
		}
	})
}

func FuzzReadCommit(f *testing.F) {
	f.Add(push.AppendCommit(nil, path(5), []digest.Chunk{chunk("hello")}))
	f.Add(push.AppendCommit(nil, path(8), []digest.Chunk{chunk("hello"), chunk("you")}))
	f.Add(push.AppendCommit(nil, path(1), nil))
	f.Add([]byte("\n"))
	f.Add([]byte("StorePath: a\nReferences: b  a\nSig: \nURL: \nNarSize: 1\nNarHash: sha256:" + digest.Of(nil).Nix32() + "\n\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		info, chunks, err := push.ReadCommit(bytes.NewReader(body))
		if err != nil {
			if !errors.Is(err, push.ErrMalformed) && !errors.Is(err, narinfo.ErrMalformed) {
				t.Fatalf("%v is not ErrMalformed", err)
			}
			return
		}
		sum := int64(0)
		for _, c := range chunks {
			sum += int64(c.Size)
		}
		if sum != info.NarSize {
			t.Fatalf("chunks of %d bytes make a NAR of %d", sum, info.NarSize)
		}
		again, list, err := push.ReadCommit(bytes.NewReader(push.AppendCommit(nil, info, chunks)))
		if err != nil {
			t.Fatalf("what was written is not read: %v\n%s", err, info.Text())
		}
		if !bytes.Equal(again.Text(), info.Text()) || !slices.Equal(list, chunks) {
			t.Fatalf("read back differently:\n%s\n%s", info.Text(), again.Text())
		}
	})
}
