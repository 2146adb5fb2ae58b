package pack_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
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

func TestAPackIsReadAgainFromAnywhere(t *testing.T) {
	t.Parallel()
	for _, e := range []*pack.Encoded{
		pack.Encode(nil),
		pack.Encode([]pack.Frame{frame("one", "1"), frame("none", ""), frame("two", "22"), frame("three", "333")}),
	} {
		r := e.Reader()
		want, err := io.ReadAll(r)
		if err != nil || int64(len(want)) != e.Size {
			t.Fatalf("read %d of %d bytes, %v", len(want), e.Size, err)
		}
		for offset := range e.Size {
			if _, err := r.Seek(offset, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want[offset:]) {
				t.Errorf("from %d: other bytes than at first, or error %v", offset, err)
			}
		}
	}
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
	framesEnd := 16 + len("frame one") + len("frame two")
	for i := range good {
		if i >= 16 && i < framesEnd {
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

func TestAPackIsAZstdStreamOfItsBlob(t *testing.T) {
	t.Parallel()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	whole := encode(t, frame("one, ", string(enc.EncodeAll([]byte("one, "), nil))), frame("two", string(enc.EncodeAll([]byte("two"), nil))))
	got, err := dec.DecodeAll(whole, nil)
	if err != nil || string(got) != "one, two" {
		t.Errorf("the pack unpacks to %q, %v", got, err)
	}
}

func TestWholeSizeIsThatOfAPack(t *testing.T) {
	t.Parallel()
	e := pack.Encode([]pack.Frame{frame("one", "frame one"), frame("two", "2")})
	size, first := pack.WholeSize(2, 10)
	if size != e.Size || first != e.Entries[0].Offset {
		t.Errorf("WholeSize = %d, %d; the pack has %d, its frames begin at %d", size, first, e.Size, e.Entries[0].Offset)
	}
}

func TestPacksOfVersion1AreRead(t *testing.T) {
	t.Parallel()
	f := frame("plain", "frame")
	table := append([]byte{1}, f.Hash[:]...)
	table = binary.BigEndian.AppendUint32(table, f.Size)
	table = binary.BigEndian.AppendUint32(table, uint32(len(f.Data)))
	sum := sha256.Sum256(table)
	old := append([]byte("ATTCPK01frame"), table...)
	old = binary.BigEndian.AppendUint32(old, 1)
	old = binary.BigEndian.AppendUint64(old, uint64(len("ATTCPK01frame")))
	old = append(append(old, sum[:]...), "attcpk01"...)
	entries, err := pack.ReadTable(bytes.NewReader(old), int64(len(old)))
	want := []pack.Entry{{Kind: pack.KindChunk, Chunk: f.Chunk, Offset: 8, Length: 5}}
	if err != nil || !slices.Equal(entries, want) {
		t.Errorf("got %+v, %v; want %+v", entries, err, want)
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
