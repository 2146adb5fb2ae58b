package chunker_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
)

// genParams generates valid parameters. Averages are small, so that short
// inputs have many chunks.
func genParams() *rapid.Generator[chunker.Params] {
	return rapid.Custom(func(t *rapid.T) chunker.Params {
		average := 1024 << rapid.IntRange(0, 3).Draw(t, "doublings of the average")
		p := chunker.Params{Average: average}
		if rapid.Bool().Draw(t, "own limits") {
			p.Min = rapid.IntRange(64, average).Draw(t, "min")
			p.Max = rapid.IntRange(average, 4*average).Draw(t, "max")
		}
		if rapid.Bool().Draw(t, "seeded") {
			p.Seed = rapid.Uint32().Draw(t, "seed")
		}
		return p
	})
}

// genInput generates up to 64 KiB that alternate between random bytes, runs of
// one byte, and literal bytes. Drawing each byte from rapid would be too slow.
func genInput() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		var b []byte
		for range rapid.IntRange(0, 4).Draw(t, "parts") {
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				b = append(b, randomBytes(rapid.Byte().Draw(t, "stream"), rapid.IntRange(0, 16<<10).Draw(t, "length"))...)
			case 1:
				b = append(b, bytes.Repeat([]byte{rapid.Byte().Draw(t, "value")}, rapid.IntRange(0, 16<<10).Draw(t, "length"))...)
			case 2:
				b = append(b, rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "literal")...)
			}
		}
		return b
	})
}

// checkChunks checks that chunks partition input within the size limits of p.
func checkChunks(t fataler, chunks [][]byte, input []byte, p chunker.Params) {
	t.Helper()
	if !bytes.Equal(slices.Concat(chunks...), input) {
		t.Fatalf("the chunks of lengths %v don't concatenate to the input of %d bytes", lengths(chunks), len(input))
	}
	minSize, maxSize := p.Min, p.Max
	if minSize == 0 {
		minSize = p.Average / 4
	}
	if maxSize == 0 {
		maxSize = p.Average * 4
	}
	for i, c := range chunks {
		last := i == len(chunks)-1
		if len(c) == 0 || len(c) > maxSize || !last && len(c) < minSize&^1 {
			t.Fatalf("chunk %d of %d has length %d, want %d to %d", i, len(chunks), len(c), minSize&^1, maxSize)
		}
	}
}

func TestPropertyPartition(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := genParams().Draw(t, "params")
		input := genInput().Draw(t, "input")
		checkChunks(t, mustSplit(t, bytes.NewReader(input), p), input, p)
	})
}

// randomReader returns reads of random size from r, some of them empty.
type randomReader struct {
	r   io.Reader
	rng *rand.Rand
}

func (r randomReader) Read(b []byte) (int, error) {
	return r.r.Read(b[:r.rng.IntN(len(b)+1)])
}

// fragmented returns readers of input that split it in different ways. The
// random one is determined by seed.
func fragmented(input []byte, seed uint64) map[string]io.Reader {
	random := randomReader{bytes.NewReader(input), rand.New(rand.NewPCG(seed, 0))}
	return map[string]io.Reader{
		"whole":        bytes.NewReader(input),
		"one byte":     iotest.OneByteReader(bytes.NewReader(input)),
		"half":         iotest.HalfReader(bytes.NewReader(input)),
		"EOF and data": iotest.DataErrReader(bytes.NewReader(input)),
		"random":       random,
	}
}

func TestPropertyFragmentation(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := genParams().Draw(t, "params")
		input := genInput().Draw(t, "input")
		want := lengths(mustSplit(t, bytes.NewReader(input), p))
		for name, r := range fragmented(input, rapid.Uint64().Draw(t, "fragmentation")) {
			// The plain reader again checks that chunking is deterministic.
			chunks := mustSplit(t, r, p)
			checkChunks(t, chunks, input, p)
			if got := lengths(chunks); !slices.Equal(got, want) {
				t.Fatalf("%s: got lengths %v, want %v", name, got, want)
			}
		}
	})
}

// TestPropertyLocality inserts bytes into a stream. All chunks that end before
// the insertion must stay, and nearly all after it must come back.
func TestPropertyLocality(t *testing.T) {
	t.Parallel()
	const size = 256 << 10
	rapid.Check(t, func(t *rapid.T) {
		p := chunker.Params{Average: 1024, Seed: rapid.Uint32().Draw(t, "seed")}
		before := randomBytes(rapid.Byte().Draw(t, "stream"), size)
		at := rapid.IntRange(size/4, size*3/4).Draw(t, "at")
		insertion := rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "insertion")
		after := slices.Insert(bytes.Clone(before), at, insertion...)

		chunksBefore := mustSplit(t, bytes.NewReader(before), p)
		chunksAfter := mustSplit(t, bytes.NewReader(after), p)

		known := make(map[[sha256.Size]byte]bool)
		end := 0
		for i, c := range chunksBefore {
			known[sha256.Sum256(c)] = true
			end += len(c)
			if end < at && !bytes.Equal(c, chunksAfter[i]) {
				t.Fatalf("chunk %d ends at %d, before the insertion at %d, but changed", i, end, at)
			}
		}
		fresh := 0
		for _, c := range chunksAfter {
			if !known[sha256.Sum256(c)] {
				fresh++
			}
		}
		// Some two hundred chunks, of which a handful is fresh before the cut
		// points meet again; a quarter leaves no room for bad luck.
		if fresh > len(chunksAfter)/4 {
			t.Fatalf("%d of %d chunks are new after an insertion of %d bytes at %d", fresh, len(chunksAfter), len(insertion), at)
		}
	})
}

// FuzzNext checks that any parameters are either refused or partition the input
// the same way however it is read.
func FuzzNext(f *testing.F) {
	f.Add([]byte(nil), 1024, 0, 0, uint32(0), uint64(0))
	f.Add(randomBytes(6, 8<<10), 1024, 0, 0, uint32(0), uint64(1))
	f.Add(randomBytes(7, 8<<10), 1024, 65, 1025, uint32(666), uint64(2))
	f.Add(make([]byte, 8<<10), 2048, 2048, 2048, uint32(1), uint64(3))
	f.Add([]byte("refused"), 1000, 0, 0, uint32(0), uint64(0))
	f.Fuzz(func(t *testing.T, input []byte, average, minSize, maxSize int, seed uint32, fragmentation uint64) {
		p := chunker.Params{Average: average, Min: minSize, Max: maxSize, Seed: seed}
		if average > 64<<10 || maxSize > 1<<20 {
			t.Skip("Larger buffers slow fuzzing down without reaching other code.")
		}
		want, err := split(bytes.NewReader(input), p)
		if err != nil {
			if _, ok := errors.AsType[*chunker.ParamError](err); !ok {
				t.Fatalf("split with %+v: got error %v, want a ParamError", p, err)
			}
			return
		}
		for name, r := range fragmented(input, fragmentation) {
			chunks := mustSplit(t, r, p)
			checkChunks(t, chunks, input, p)
			if got := lengths(chunks); !slices.Equal(got, lengths(want)) {
				t.Fatalf("%s: got lengths %v, want %v", name, got, lengths(want))
			}
		}
	})
}
