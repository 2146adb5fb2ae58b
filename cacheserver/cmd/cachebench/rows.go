package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

const (
	chunkSize = 128 // bytes, of noise
	// A pack of so many is larger than those that are joined for being small.
	chunksPerPack = 8000
	references    = 5
	// near is how far back a path's references reach.
	near = 100
	// sharing is which of a path's chunks older paths have, too: every fifth.
	sharing = 5
	// committers is how many paths are committed at a time: an index puts as
	// many in one transaction.
	committers = 64
)

// rows are made-up paths. What they are follows from their numbers: nothing is
// kept in memory of them.
type rows struct {
	paths  int
	chunks int // of each path
}

func (r rows) newChunks() int { return r.chunks - r.chunks/sharing }

// different is how many different chunks all paths have.
func (r rows) different() int64 {
	shared := int64(r.chunks / sharing)
	return int64(r.paths)*int64(r.newChunks()) + shared*int64(min(r.paths, r.batch()))
}

// batch is how many paths' new chunks go into one pack.
func (r rows) batch() int { return (chunksPerPack + r.newChunks() - 1) / r.newChunks() }

func chunkOf(number int64) []byte {
	b := make([]byte, chunkSize)
	_, _ = source(2, uint64(number)).Read(b)
	return b
}

// list returns the numbers of a path's chunks. Those of the first pack's paths
// are all new, for there are no older ones.
func (r rows) list(path int) []int64 {
	list := make([]int64, r.chunks)
	older := int64(path - path%r.batch())
	pick := source(3, uint64(path))
	for i := range list {
		switch {
		case i%sharing != sharing-1:
			list[i] = int64(path)*int64(r.chunks) + int64(i)
		case older == 0:
			list[i] = int64(path)*int64(r.chunks) + int64(i)
		default:
			from, at := pick.Uint64()%uint64(older), pick.Uint64()%uint64(r.chunks)
			at -= at % sharing // one that was new there
			list[i] = int64(from)*int64(r.chunks) + int64(at)
		}
	}
	return list
}

// isNew says whether a chunk of a path's list is in no older path.
func (r rows) isNew(path int, number int64) bool { return number/int64(r.chunks) == int64(path) }

// hash is the hash of a path. Paths that there are not have numbers, too.
func (rows) hash(path int) string { return pathHash(fmt.Sprint("path ", path)) }

func (r rows) isOld(path int) bool { return path < r.paths/2 }

// path is what is committed. References stay within the older or the newer
// half, so that each is a closure.
func (r rows) path(cache int64, path int) index.Path {
	p := index.Path{
		CacheID: cache, Hash: r.hash(path), Name: fmt.Sprintf("made-up-%d-1.%d", path%5000, path/5000),
		Deriver: pathHash(fmt.Sprint("deriver ", path)) + fmt.Sprintf("-made-up-%d.drv", path%5000),
	}
	pick := source(4, uint64(path))
	for range references {
		to := path - 1 - int(pick.Uint64()%near)
		if to >= 0 && r.isOld(to) == r.isOld(path) {
			p.References = append(p.References, fmt.Sprintf("%s-made-up-%d-1.%d", r.hash(to), to%5000, to/5000))
		}
	}
	return p
}

// fill makes the rows of a subject by the calls that pushes make. It returns how
// fast the last tenth was, relative to the first; NaN where that is not known, of
// so few paths.
func (s *subject) fill(ctx context.Context, progress io.Writer) (speed float64, err error) {
	err = s.serve(ctx, func(string) error {
		speed, err = s.fillAll(ctx, progress)
		return err
	})
	return speed, err
}

func (s *subject) fillAll(ctx context.Context, progress io.Writer) (speed float64, err error) {
	began := time.Now()
	var tenths [10]time.Duration
	var done [10]int
	for from, step := 0, s.rows.batch(); from < s.rows.paths; from += step {
		to := min(from+step, s.rows.paths)
		batchBegan := time.Now()
		if err := s.putChunks(ctx, from, to); err != nil {
			return 0, err
		}
		if err := s.commitPaths(ctx, from, to); err != nil {
			return 0, err
		}
		tenth := from * 10 / s.rows.paths
		tenths[tenth] += time.Since(batchBegan)
		done[tenth] += to - from
		if to == s.rows.paths || (to/step)%20 == 0 {
			fmt.Fprintf(progress, "%s: %s of them, after %v\n", s, count(int64(to)), time.Since(began).Round(time.Second))
		}
	}
	if done[9] == 0 {
		return math.NaN(), nil
	}
	return (float64(done[9]) / tenths[9].Seconds()) / (float64(done[0]) / tenths[0].Seconds()), nil
}

func (s *subject) putChunks(ctx context.Context, from, to int) error {
	var frames []pack.Frame
	for p := from; p < to; p++ {
		for _, number := range s.rows.list(p) {
			if s.rows.isNew(p, number) {
				b := chunkOf(number)
				frames = append(frames, pack.Frame{Chunk: digest.Chunk{Hash: digest.Of(b), Size: chunkSize}, Data: frame.Encode(nil, b)})
			}
		}
	}
	return s.server.Store.PutFrames(ctx, frames)
}

func (s *subject) commitPaths(ctx context.Context, from, to int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(committers)
	for p := from; p < to; p++ {
		g.Go(func() error { return s.commit(ctx, p) })
	}
	return g.Wait()
}

// commit records a path as the door does once it has verified the NAR.
func (s *subject) commit(ctx context.Context, path int) error {
	chunks := make([]digest.Chunk, 0, s.rows.chunks)
	for _, number := range s.rows.list(path) {
		chunks = append(chunks, digest.Chunk{Hash: digest.Of(chunkOf(number)), Size: chunkSize})
	}
	blob := index.Blob{
		Digest:   digest.Digest{Hash: digest.Of(fmt.Append(nil, "nar ", path)), Size: int64(len(chunks)) * chunkSize},
		FileHash: digest.Of(fmt.Append(nil, "file ", path)), FileSize: int64(len(chunks)) * chunkSize,
	}
	p := s.rows.path(s.cache, path)
	return s.server.Index.Update(ctx, func(tx index.Tx) (err error) {
		// It lives by its path alone, so that the path's end is its own.
		if p.NAR, err = tx.AddBlob(blob, chunks, time.Now()); err != nil {
			return err
		}
		_, err = tx.PutPath(p)
		return err
	})
}
