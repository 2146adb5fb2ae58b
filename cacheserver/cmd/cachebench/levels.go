package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/klauspost/compress/zstd"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
)

var errEnough = errors.New("the sample is large enough")

// differentChunks returns the first different chunks of the NARs, of about limit
// bytes, by the average that is in use.
func differentChunks(archives []archive, limit int64) ([][]byte, error) {
	var chunks [][]byte
	seen := map[digest.Hash]bool{}
	for _, a := range archives {
		err := eachChunk(a, chunker.DefaultAverage, func(c []byte) error {
			hash := digest.Of(c)
			if seen[hash] {
				return nil
			}
			seen[hash] = true
			chunks = append(chunks, bytes.Clone(c))
			limit -= int64(len(c))
			if limit <= 0 {
				return errEnough
			}
			return nil
		})
		if errors.Is(err, errEnough) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return chunks, nil
}

func sizeOf(chunks [][]byte) (sum int64) {
	for _, c := range chunks {
		sum += int64(len(c))
	}
	return sum
}

// level is a way to make a frame.
type level struct {
	name   string
	encode func(dst, chunk []byte) []byte
	stored int64
	frames [][]byte // of the last round, until they are unpacked
}

func allLevels() ([]*level, error) {
	var all []*level
	for _, l := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression, zstd.SpeedBestCompression} {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(l), zstd.WithEncoderCRC(false), zstd.WithEncoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		all = append(all, &level{name: l.String(), encode: func(dst, chunk []byte) []byte { return e.EncodeAll(chunk, dst) }})
	}
	return append(all, &level{name: "in use", encode: frame.Encode}), nil
}

// levels prints the table of compression levels.
func levels(ctx context.Context, o dedupOptions, chunks [][]byte, out, progress io.Writer) error {
	all, err := allLevels()
	if err != nil {
		return err
	}
	sides := make([]side, 0, 2*len(all))
	for _, l := range all {
		sides = append(sides, l.compressing(chunks), l.unpacking())
	}
	c, err := alternate(ctx, progress, o.rounds, sides...)
	if err != nil {
		return err
	}
	used := len(all) - 1
	t := table{columns: []string{"level", "stored", "÷ chunks", "÷ level in use", "compresses, × level in use", "unpacks, × level in use"}}
	for i, l := range all {
		t.add(l.name, bytesize.Tenths(l.stored), part(l.stored, sizeOf(chunks)), part(l.stored, all[used].stored),
			c.ratio(2*used, 2*i, cpuTime).String(), c.ratio(2*used+1, 2*i+1, cpuTime).String())
	}
	t.print(out, "Compression level", count(int64(len(chunks)))+" different chunks of "+bytesize.Tenths(sizeOf(chunks))+` at the average in use. The last columns are
bytes for each second of CPU, relative to the level in use, in Go.`)
	return nil
}

func (l *level) compressing(chunks [][]byte) side {
	return side{"compressing at level " + l.name, func(context.Context) (sample, error) {
		l.stored, l.frames = 0, make([][]byte, len(chunks))
		return timed(func() error {
			for i, c := range chunks {
				l.frames[i] = l.encode(nil, c)
				l.stored += int64(len(l.frames[i]))
			}
			return nil
		})
	}}
}

func (l *level) unpacking() side {
	return side{"unpacking level " + l.name, func(context.Context) (sample, error) {
		defer func() { l.frames = nil }()
		return timed(func() error {
			var plain []byte
			for _, f := range l.frames {
				var err error
				if plain, err = frame.Decode(plain[:0], f); err != nil {
					return err
				}
			}
			return nil
		})
	}}
}

// incompressible prints what chunks cost that are no shorter as frames.
func incompressible(ctx context.Context, o dedupOptions, chunks [][]byte, out, progress io.Writer) error {
	const noiseSize = 32 << 20
	var yes, no group
	yes.name, no.name = "chunks that compress", "chunks that do not"
	for _, c := range chunks {
		f := frame.Encode(nil, c)
		g := &yes
		if len(f) >= len(c) {
			g = &no
		}
		g.chunks = append(g.chunks, c)
		g.stored += int64(len(f))
	}
	noise := group{name: "noise, made up"}
	src := rand.NewChaCha8([32]byte{1})
	for range noiseSize / chunker.DefaultAverage {
		c := make([]byte, chunker.DefaultAverage)
		_, _ = src.Read(c)
		noise.chunks = append(noise.chunks, c)
		noise.stored += int64(len(frame.Encode(nil, c)))
	}
	groups := []*group{&yes, &no, &noise}
	var sides []side
	for _, g := range groups {
		sides = append(sides, g.side("compressing "+g.name, func(c []byte) { g.scratch = frame.Encode(g.scratch[:0], c) }),
			g.side("hashing "+g.name, func(c []byte) { digest.Of(c) }))
	}
	c, err := alternate(ctx, progress, o.rounds, sides...)
	if err != nil {
		return err
	}
	t := table{columns: []string{"what", "chunks", "of all chunks", "of all bytes", "frames ÷ chunks", "time to compress ÷ to hash"}}
	total := sizeOf(chunks)
	for i, g := range groups {
		ofChunks, ofBytes := percent(int64(len(g.chunks)), int64(len(chunks))), percent(sizeOf(g.chunks), total)
		if g == &noise {
			ofChunks, ofBytes = unknown, unknown
		}
		cost := unknown
		if len(g.chunks) > 0 {
			cost = c.ratio(2*i, 2*i+1, cpuTime).String()
		}
		t.add(g.name, count(int64(len(g.chunks))), ofChunks, ofBytes, fmt.Sprintf("%.5f", float64(g.stored)/float64(max(1, sizeOf(g.chunks)))), cost)
	}
	t.print(out, "Chunks that do not compress", `What the encoder gives up on is stored as it is, in a frame around it. SHA-256 of
the same bytes, which every chunk needs anyway, is the measure of what that costs.`)
	return nil
}

// group is some of the chunks.
type group struct {
	name    string
	chunks  [][]byte
	stored  int64
	scratch []byte
}

func (g *group) side(name string, work func(chunk []byte)) side {
	return side{name, func(context.Context) (sample, error) {
		return timed(func() error {
			for _, c := range g.chunks {
				work(c)
			}
			return nil
		})
	}}
}
