package fsck

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

func (c *Checker) repair(ctx context.Context, r *Report) error {
	if err := c.adopt(ctx, r); err != nil {
		return fmt.Errorf("recording packs that the index did not know: %w", err)
	}
	if len(r.Damaged) > 0 {
		if err := c.restore(ctx, r); err != nil {
			return fmt.Errorf("looking for other copies of damaged chunks: %w", err)
		}
	}
	for _, name := range r.Tables {
		if err := c.rewrite(ctx, name); err != nil {
			return fmt.Errorf("rewriting pack %s: %w", name, err)
		}
		r.Rewritten++
	}
	return nil
}

// adopt records what packs hold that the index does not know: all of them, after
// the index was lost.
func (c *Checker) adopt(ctx context.Context, r *Report) error {
	for _, name := range r.Unknown {
		good, size, err := c.goodEntries(ctx, name, func(pack.Entry) bool { return true })
		if errors.Is(err, pack.ErrDamaged) || (err == nil && len(good) == 0) {
			r.BadPacks = append(r.BadPacks, name)
			continue
		}
		if err != nil {
			return err
		}
		if err := c.Index.Update(ctx, func(tx index.Tx) error { return tx.AddPack(name, size, good) }); err != nil {
			return err
		}
		r.Adopted++
	}
	return nil
}

// goodEntries returns those of the wanted entries of a pack that are what they
// say.
func (c *Checker) goodEntries(ctx context.Context, name string, wanted func(pack.Entry) bool) (good []pack.Entry, size int64, err error) {
	if size, err = c.Packs.Size(ctx, name); err != nil {
		if errors.Is(err, packstore.ErrNotFound) {
			err = fmt.Errorf("%w: %w", pack.ErrDamaged, err)
		}
		return nil, 0, err
	}
	entries, err := c.table(ctx, name, size)
	if err != nil {
		return nil, 0, err
	}
	var at []index.Location
	for _, e := range entries {
		if e.Kind == pack.KindChunk && wanted(e) {
			at = append(at, index.Location{Chunk: e.Chunk, Pack: name, Offset: e.Offset, Length: e.Length})
			good = append(good, e)
		}
	}
	damaged, err := c.Store.CheckChunks(ctx, at)
	if err != nil {
		return nil, 0, err
	}
	bad := map[digest.Hash]bool{}
	for _, d := range damaged {
		bad[d.Chunk] = true
	}
	return slices.DeleteFunc(good, func(e pack.Entry) bool { return bad[e.Hash] }), size, nil
}

// restore looks through all packs for other copies of damaged chunks, and drops
// those that have none, with the paths that need them: what is not there can be
// pushed again.
func (c *Checker) restore(ctx context.Context, r *Report) error {
	wanted := map[digest.Hash]index.Location{}
	for part := range slices.Chunk(lost(r.Damaged), step) {
		at, err := c.Index.Locate(ctx, part)
		if err != nil {
			return err
		}
		for _, l := range at {
			wanted[l.Hash] = l
		}
	}
	var names []string
	if err := c.Packs.List(ctx, func(name string, _ int64) error {
		names = append(names, name)
		return nil
	}); err != nil {
		return err
	}
	for _, name := range names {
		if len(wanted) == 0 {
			break
		}
		if err := c.restoreFrom(ctx, r, name, wanted); err != nil {
			return err
		}
	}
	rest := make([]digest.Hash, 0, len(wanted))
	for h := range wanted {
		rest = append(rest, h)
	}
	for part := range slices.Chunk(rest, step) {
		var paths []index.PathName
		err := c.Index.Update(ctx, func(tx index.Tx) (err error) {
			paths, err = tx.DropChunks(part)
			return err
		})
		if err != nil {
			return err
		}
		r.Dropped += int64(len(part))
		r.Paths = append(r.Paths, paths...)
	}
	r.Paths = distinct(r.Paths)
	return nil
}

func (c *Checker) restoreFrom(ctx context.Context, r *Report, name string, wanted map[digest.Hash]index.Location) error {
	good, _, err := c.goodEntries(ctx, name, func(e pack.Entry) bool {
		l, ok := wanted[e.Hash]
		// A frame of another length would make another file of a blob than the
		// one that its FileSize and FileHash tell of.
		return ok && l.Pack != name && l.Length == e.Length
	})
	if errors.Is(err, pack.ErrDamaged) {
		return nil
	}
	if err != nil || len(good) == 0 {
		return err
	}
	from := make([]string, len(good))
	for i, e := range good {
		from[i] = wanted[e.Hash].Pack
	}
	var moved int
	err = c.Index.Update(ctx, func(tx index.Tx) (err error) {
		moved, err = tx.MoveChunks(name, good, from)
		return err
	})
	if err != nil {
		return err
	}
	for _, e := range good {
		delete(wanted, e.Hash)
	}
	r.Restored += int64(moved)
	return nil
}

// rewrite moves what a pack holds into one that describes itself.
func (c *Checker) rewrite(ctx context.Context, name string) error {
	done, err := c.Store.Compact(ctx, []string{name})
	if err != nil {
		return err
	}
	for _, dropped := range done.Dropped {
		if err := c.Packs.Delete(ctx, dropped); err != nil {
			return err
		}
	}
	return nil
}
