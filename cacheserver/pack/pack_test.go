package pack_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

func frame(plain, data string) pack.Frame {
	return pack.Frame{
		Chunk: digest.Chunk{Hash: digest.Of([]byte(plain)), Size: uint32(len(plain))},
		Data:  []byte(data),
	}
}

func encode(t testing.TB, frames ...pack.Frame) []byte {
	t.Helper()
	e := pack.Encode(frames)
	b, err := io.ReadAll(e.Reader())
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != e.Size {
		t.Fatalf("wrote %d bytes, said %d", len(b), e.Size)
	}
	return b
}

func TestAPackDescribesItself(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		frames := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) pack.Frame {
			return frame(rapid.StringN(1, -1, 64).Draw(rt, "plain"), rapid.StringN(1, -1, 64).Draw(rt, "frame"))
		}), 0, 20).Draw(rt, "frames")
		b := encode(t, frames...)
		entries, err := pack.ReadTable(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			rt.Fatal(err)
		}
		if !slices.Equal(entries, pack.Encode(frames).Entries) {
			rt.Fatal("the table read is not the table written")
		}
		for i, e := range entries {
			if got := b[e.Offset : e.Offset+int64(e.Length)]; !bytes.Equal(got, frames[i].Data) {
				rt.Fatalf("frame %d at its offset is %q, want %q", i, got, frames[i].Data)
			}
		}
	})
}

func TestDamageToHeadTableOrFootIsSeen(t *testing.T) {
	t.Parallel()
	frames := []pack.Frame{frame("one", "frame one"), frame("two", "frame two")}
	good := encode(t, frames...)
	framesEnd := 8 + len("frame one") + len("frame two")
	for i := range good {
		if i >= 8 && i < framesEnd {
			continue // a frame's own bytes are checked when they are read
		}
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		if _, err := pack.ReadTable(bytes.NewReader(bad), int64(len(bad))); !errors.Is(err, pack.ErrDamaged) {
			t.Errorf("byte %d flipped: got %v, want ErrDamaged", i, err)
		}
	}
	for n := range good {
		if _, err := pack.ReadTable(bytes.NewReader(good[:n]), int64(n)); !errors.Is(err, pack.ErrDamaged) {
			t.Errorf("cut off at %d: got %v, want ErrDamaged", n, err)
		}
	}
}

func FuzzReadTable(f *testing.F) {
	f.Add(encode(f))
	f.Add(encode(f, frame("one", "frame one"), frame("two", "frame two")))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := pack.ReadTable(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for _, e := range entries {
			if e.Offset < 8 || e.Offset+int64(e.Length) > int64(len(b)) {
				t.Fatalf("entry %+v lies outside of %d bytes", e, len(b))
			}
		}
	})
}
