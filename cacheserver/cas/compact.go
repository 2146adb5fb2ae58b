package cas

import (
	"context"
	"fmt"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// Compacted is what a compaction did.
type Compacted struct {
	Written int64    // bytes of the packs that were written, 0 where nothing lived
	Dropped []string // packs that the index no longer knows: their files may be deleted
}

// compactedFrames is how many frames are moved at a time. Those of small blobs,
// which are far more for their bytes, would otherwise keep pushes waiting for
// seconds while the index moves them. A pack of so many is not small, however
// short they are.
const compactedFrames = 1 << 15

// Compact moves the chunks that lie in the packs into new packs, frames as they
// are, each unpacked and compared with its chunk. Blobs are served throughout.
// It holds the frames of a pack that it writes in memory. The caller holds the
// collector's lock.
//
// ErrDamaged: one of the frames is damaged. What was moved before it stays moved.
func (s *Store) Compact(ctx context.Context, packs []string) (Compacted, error) {
	var done Compacted
	var frames []pack.Frame
	var scratch []byte
	r := packReader{store: s}
	defer r.close()
	move := func() error {
		written, err := s.move(ctx, frames, packs)
		done.Written += written
		frames = nil
		return err
	}
	for _, name := range packs {
		chunks, err := s.index.ChunksIn(ctx, name)
		if err != nil {
			return done, err
		}
		for i, l := range chunks {
			data, err := r.frame(ctx, chunks[i:], nil)
			if err != nil {
				return done, err
			}
			f := pack.Frame{Chunk: l.Chunk, Data: data}
			if scratch, err = frame.Check(f, scratch); err != nil {
				return done, &DamagedError{l.Hash, name, err}
			}
			frames = append(frames, f)
			if len(frames) == compactedFrames {
				if err := move(); err != nil {
					return done, err
				}
			}
		}
	}
	if len(frames) > 0 {
		if err := move(); err != nil {
			return done, err
		}
	}
	err := s.index.Update(ctx, func(tx index.Tx) (err error) {
		done.Dropped, err = tx.DropPacks(packs)
		return err
	})
	if err != nil {
		return done, fmt.Errorf("dropping %d packs that were compacted: %w", len(packs), err)
	}
	return done, nil
}

// move writes frames that lie in the packs as a new one, of which it returns the
// size.
func (s *Store) move(ctx context.Context, frames []pack.Frame, packs []string) (int64, error) {
	name, encoded := packName(), pack.Encode(frames)
	if err := s.packs.Put(ctx, name, encoded.Size, encoded.Reader()); err != nil {
		return 0, err
	}
	err := s.index.Update(ctx, func(tx index.Tx) error {
		// Whoever has lost the lock must not rely on its pack either.
		if err := s.addPack(tx, name, encoded); err != nil {
			return err
		}
		_, err := tx.MoveChunks(name, encoded.Entries, packs)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("recording the compaction of %d packs: %w", len(packs), err)
	}
	return encoded.Size, nil
}
