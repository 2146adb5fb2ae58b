// Package fsck sees whether all that the index promises can be read, and mends
// what is not so: lost packs, damaged frames, an index that was lost.
package fsck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// settling is how long ago a pack must have been begun for fsck to believe that
// nobody is about to record it.
const settling = 15 * time.Minute

// step is how many rows one transaction is given.
const step = 1000

// ErrAllLost is a repair's that would drop everything: it was given another storage
// than the index's, rather.
var ErrAllLost = errors.New("none of the packs that the index knows is in the storage")

// Report is what a check found, and what a repair did.
type Report struct {
	Packs  int64 // checked
	Chunks int64 // read back
	Bytes  int64 // of their frames

	Damaged  []*cas.DamagedError // chunks that are not what was stored
	Tables   []string            // packs that no longer describe themselves; their chunks were checked by the index
	Unknown  []string            // packs that the index does not know
	Foreign  int64               // how many of those collection leaves: from before the index, or not by a server
	BadPacks []string            // of those, the ones that cannot be read

	Paths []index.PathName // that the damage hits; after a repair, those that were dropped

	// The rest is a repair's.
	Adopted   int64 // packs that the index did not know and now does
	Restored  int64 // damaged chunks of which another copy was found
	Dropped   int64 // damaged chunks that nobody has any more
	Rewritten int64 // packs that describe themselves again
}

// Good is true when nothing was found that a repair would have to mend. Packs
// that the index does not know do no harm: collection deletes them, and leaves those
// that are older than the index, which was lost then.
func (r *Report) Good() bool { return len(r.Damaged) == 0 && len(r.Tables) == 0 }

// Progress is how far a check has come.
type Progress struct {
	Packs, Total int64
	Damaged      int64
}

// Checker checks one store.
type Checker struct {
	Packs packstore.Store
	Index index.Index
	Store *cas.Store
	// Repair mends what is found.
	Repair bool
	// AllLost lets a repair drop everything where no pack is left.
	AllLost bool
	// Progress is called after each pack, if it is set.
	Progress func(Progress)
}

// Run checks everything. It holds the collector's lock, so that nothing moves;
// pushes and pulls go on. index.ErrLocked: a collection is under way. ErrAllLost: a
// repair has changed nothing.
func (c *Checker) Run(ctx context.Context) (*Report, error) {
	r := &Report{}
	err := index.WithLock(ctx, c.Index, collect.LockName, func(ctx context.Context) error {
		if err := c.check(ctx, r); err != nil {
			return err
		}
		if c.Repair {
			return c.repair(ctx, r)
		}
		return c.findPaths(ctx, r)
	})
	return r, err
}

func (c *Checker) check(ctx context.Context, r *Report) error {
	sizes := map[string]int64{}
	if err := c.Packs.List(ctx, func(name string, size int64) error {
		sizes[name] = size
		return nil
	}); err != nil {
		return err
	}
	var known []string
	for after := ""; ; {
		page, err := c.Index.Packs(ctx, after, step)
		if err != nil {
			return err
		}
		for _, p := range page {
			known = append(known, p.Name)
			after = p.Name
		}
		if len(page) < step {
			break
		}
	}
	there := func(name string) bool { _, ok := sizes[name]; return ok }
	if c.Repair && !c.AllLost && len(known) > 0 && !slices.ContainsFunc(known, there) {
		return fmt.Errorf("%w: there should be %d", ErrAllLost, len(known))
	}
	total := int64(len(known))
	for _, name := range known {
		size, stored := sizes[name]
		delete(sizes, name)
		if err := c.checkPack(ctx, r, name, size, stored); err != nil {
			return fmt.Errorf("checking pack %s: %w", name, err)
		}
		r.Packs++
		if c.Progress != nil {
			c.Progress(Progress{Packs: r.Packs, Total: total, Damaged: int64(len(r.Damaged))})
		}
	}
	began, err := c.Index.Began(ctx)
	if err != nil {
		return err
	}
	for name := range sizes {
		made, ours := cas.PackTime(name)
		if ours && time.Since(made) <= settling {
			continue
		}
		r.Unknown = append(r.Unknown, name)
		if !ours || made.Before(began) {
			r.Foreign++
		}
	}
	slices.Sort(r.Unknown)
	return nil
}

func (c *Checker) checkPack(ctx context.Context, r *Report, name string, size int64, stored bool) error {
	chunks, err := c.Index.ChunksIn(ctx, name)
	if err != nil {
		return err
	}
	damaged, err := c.Store.CheckChunks(ctx, chunks)
	if err != nil {
		return err
	}
	r.Damaged = append(r.Damaged, damaged...)
	r.Chunks += int64(len(chunks))
	for _, l := range chunks {
		r.Bytes += int64(l.Length)
	}
	if !stored || len(chunks) == 0 {
		return nil
	}
	entries, err := c.table(ctx, name, size)
	if err != nil && !errors.Is(err, pack.ErrDamaged) {
		return err
	}
	if err != nil || !describes(entries, chunks) {
		r.Tables = append(r.Tables, name)
	}
	return nil
}

// describes is true when the chunks could be found again by the table alone.
func describes(entries []pack.Entry, chunks []index.Location) bool {
	at := map[digest.Chunk]bool{}
	for _, e := range entries {
		at[e.Chunk] = true
	}
	for _, l := range chunks {
		if !at[l.Chunk] {
			return false
		}
	}
	return true
}

// table reads the table of a pack. pack.ErrDamaged: it cannot be one.
func (c *Checker) table(ctx context.Context, name string, size int64) ([]pack.Entry, error) {
	entries, err := pack.ReadTable(readerAt{ctx, c.Packs, name}, size)
	if packstore.Unreadable(err) {
		err = fmt.Errorf("%w: %w", pack.ErrDamaged, err)
	}
	return entries, err
}

// readerAt reads parts of a pack.
type readerAt struct {
	ctx   context.Context
	packs packstore.Store
	name  string
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	part, err := r.packs.Open(r.ctx, r.name, off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	defer part.Close()
	return io.ReadFull(part, p)
}

// findPaths says which paths the damage hits.
func (c *Checker) findPaths(ctx context.Context, r *Report) error {
	for part := range slices.Chunk(lost(r.Damaged), step) {
		paths, err := c.Index.PathsWith(ctx, part)
		if err != nil {
			return err
		}
		r.Paths = append(r.Paths, paths...)
	}
	r.Paths = distinct(r.Paths)
	return nil
}

func lost(damaged []*cas.DamagedError) []digest.Hash {
	hashes := make([]digest.Hash, len(damaged))
	for i, d := range damaged {
		hashes[i] = d.Chunk
	}
	return hashes
}

func distinct(paths []index.PathName) []index.PathName {
	slices.SortFunc(paths, func(a, b index.PathName) int {
		if a.CacheID != b.CacheID {
			return int(a.CacheID - b.CacheID)
		}
		return strings.Compare(a.Hash, b.Hash)
	})
	return slices.Compact(paths)
}
