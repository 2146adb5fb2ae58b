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
	Written int64    // bytes of the pack that was written, 0 where nothing lived
	Dropped []string // packs that the index no longer knows: their files may be deleted
}

// Compact moves the chunks that lie in the packs into a new pack, frames as they
// are, each unpacked and compared with its chunk. Blobs are served throughout.
// It holds the frames in memory. The caller holds the collector's lock.
//
// ErrDamaged: one of the frames is damaged, and nothing was changed.
func (s *Store) Compact(ctx context.Context, packs []string) (Compacted, error) {
	var frames []pack.Frame
	var scratch []byte
	r := packReader{store: s}
	defer r.close()
	for _, name := range packs {
		chunks, err := s.index.ChunksIn(ctx, name)
		if err != nil {
			return Compacted{}, err
		}
		for i, l := range chunks {
			data, err := r.frame(ctx, chunks[i:], nil)
			if err != nil {
				return Compacted{}, err
			}
			f := pack.Frame{Chunk: l.Chunk, Data: data}
			if scratch, err = frame.Check(f, scratch); err != nil {
				return Compacted{}, &DamagedError{l.Hash, name, err}
			}
			frames = append(frames, f)
		}
	}
	var done Compacted
	var name string
	var encoded *pack.Encoded
	if len(frames) > 0 {
		name, encoded = packName(), pack.Encode(frames)
		if err := s.packs.Put(ctx, name, encoded.Size, encoded.Reader()); err != nil {
			return Compacted{}, err
		}
		done.Written = encoded.Size
	}
	err := s.index.Update(ctx, func(tx index.Tx) (err error) {
		if encoded != nil {
			// Whoever has lost the lock must not rely on its pack either.
			if err := s.addPack(tx, name, encoded); err != nil {
				return err
			}
			if _, err := tx.MoveChunks(name, encoded.Entries, packs); err != nil {
				return err
			}
		}
		done.Dropped, err = tx.DropPacks(packs)
		return err
	})
	if err != nil {
		return Compacted{}, fmt.Errorf("recording the compaction of %d packs: %w", len(packs), err)
	}
	return done, nil
}
