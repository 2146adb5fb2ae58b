package frame_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

func frameOf(plain []byte) pack.Frame {
	return pack.Frame{
		Chunk: digest.Chunk{Hash: digest.Of(plain), Size: uint32(len(plain))},
		Data:  frame.Encode(nil, plain),
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

func TestEncodedChunksCheck(t *testing.T) {
	t.Parallel()
	for _, plain := range [][]byte{{0}, []byte("hello"), bytes.Repeat([]byte("x"), frame.MaxChunk), noise(frame.MaxChunk), noise(100_000)} {
		f := frameOf(plain)
		out, err := frame.Check(f, nil)
		if err != nil || !bytes.Equal(out, plain) {
			t.Errorf("chunk of %d bytes: %v", len(plain), err)
		}
		if len(f.Data) > frame.MaxFrame {
			t.Errorf("a frame of %d bytes, longer than MaxFrame", len(f.Data))
		}
	}
}

func TestFramesEndToEndAreOneStream(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var plain, stream []byte
		for range rapid.IntRange(1, 8).Draw(rt, "chunks") {
			c := rapid.SliceOfN(rapid.Byte(), 1, 3000).Draw(rt, "chunk")
			plain = append(plain, c...)
			stream = frame.Encode(stream, c)
		}
		d, err := zstd.NewReader(nil)
		if err != nil {
			rt.Fatal(err)
		}
		defer d.Close()
		if out, err := d.DecodeAll(stream, nil); err != nil || !bytes.Equal(out, plain) {
			rt.Fatalf("a stock decoder: %v", err)
		}
	})
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	plain := bytes.Repeat([]byte("some words "), 1000)
	good := frameOf(plain)
	with := func(change func(f *pack.Frame)) pack.Frame {
		f := good
		f.Data = slices.Clone(f.Data)
		change(&f)
		return f
	}
	skippable := []byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 'x'}
	bomb := frame.Encode(nil, make([]byte, frame.MaxChunk+1))
	for name, c := range map[string]struct {
		frame pack.Frame
		want  error
	}{
		"another hash":          {with(func(f *pack.Frame) { f.Hash[0]++ }), frame.ErrMismatch},
		"a shorter size":        {with(func(f *pack.Frame) { f.Size-- }), frame.ErrMismatch},
		"a longer size":         {with(func(f *pack.Frame) { f.Size++ }), frame.ErrMismatch},
		"size 0":                {with(func(f *pack.Frame) { f.Size = 0 }), frame.ErrMalformed},
		"a size over the limit": {with(func(f *pack.Frame) { f.Size = frame.MaxChunk + 1 }), frame.ErrMalformed},
		"no bytes":              {with(func(f *pack.Frame) { f.Data = nil }), frame.ErrMalformed},
		"not zstd":              {with(func(f *pack.Frame) { f.Data = plain }), frame.ErrMalformed},
		"cut off":               {with(func(f *pack.Frame) { f.Data = f.Data[:len(f.Data)-1] }), frame.ErrMalformed},
		"a second frame":        {with(func(f *pack.Frame) { f.Data = frame.Encode(f.Data, plain) }), frame.ErrMalformed},
		"a skippable frame":     {with(func(f *pack.Frame) { f.Data = skippable }), frame.ErrMalformed},
		"one behind it":         {with(func(f *pack.Frame) { f.Data = append(f.Data, skippable...) }), frame.ErrMalformed},
		"more than it says":     {with(func(f *pack.Frame) { f.Data = bomb }), frame.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := frame.Check(c.frame, nil); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// Encoders that do not know how much will come name their largest window:
// klauspost's own names 8 MiB, and so does zstd -19.
func TestTheLargestWindow(t *testing.T) {
	t.Parallel()
	plain := bytes.Repeat([]byte("some words "), 1000)
	for window, want := range map[int]error{4 << 20: nil, 8 << 20: nil, 16 << 20: frame.ErrMalformed} {
		var b bytes.Buffer
		e, err := zstd.NewWriter(&b, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		for _, half := range [][]byte{plain[:5000], plain[5000:]} {
			if _, err := e.Write(half); err != nil {
				t.Fatal(err)
			}
			if err := e.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		f := frameOf(plain)
		f.Data = b.Bytes()
		if _, err := frame.Check(f, nil); !errors.Is(err, want) {
			t.Errorf("a window of %d bytes: got %v, want %v", window, err, want)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(frame.Encode(nil, []byte("hello")))
	f.Add(frame.Encode(nil, bytes.Repeat([]byte("a"), 10_000)))
	f.Add(frame.Encode(nil, noise(5000)))
	f.Fuzz(func(t *testing.T, data []byte) {
		out, err := frame.Decode(nil, data)
		if err != nil || len(out) == 0 {
			return
		}
		if len(out) > frame.MaxChunk {
			t.Fatalf("unpacked %d bytes, over the limit", len(out))
		}
		chunk := digest.Chunk{Hash: digest.Of(out), Size: uint32(len(out))}
		if got, err := frame.Check(pack.Frame{Chunk: chunk, Data: data}, nil); err == nil && !bytes.Equal(got, out) {
			t.Fatal("Check and Decode disagree")
		}
	})
}
