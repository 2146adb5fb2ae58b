package collect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// shrink makes the packs fit the size limit: paths that were used longest ago go
// first, each once nothing refers to it any more.
func (c *Collector) shrink(ctx context.Context, r *Report) error {
	if c.policy.MaxSize <= 0 {
		return nil
	}
	for idle := false; ; {
		total, dead, err := c.index.Stored(ctx)
		if err != nil {
			return err
		}
		if total <= c.policy.MaxSize {
			return nil
		}
		if !idle {
			total -= dead // which compaction will free, if enough of it lies together
		}
		evicted, err := c.evict(ctx, total-c.policy.MaxSize)
		r.Evicted += evicted
		if err != nil {
			return fmt.Errorf("evicting paths: %w", err)
		}
		before := r.ChunkBytes
		if err := c.sweep(ctx, r); err != nil {
			return err
		}
		freed := r.Freed
		if err := c.compactBelow(ctx, r, crowdedDead); err != nil {
			return err
		}
		wasIdle := idle
		if idle = evicted == 0 && r.ChunkBytes == before && r.Freed == freed; idle && wasIdle {
			return nil
		}
	}
}

// evict removes paths, the longest unused first, until the files of those that
// went had that many bytes together. Chunks that others share stay, so less may
// become free.
func (c *Collector) evict(ctx context.Context, bytes int64) (evicted int64, err error) {
	before := time.Now().Add(-c.policy.Grace)
	oldest, err := c.oldestFirst(ctx, before)
	if err != nil {
		return 0, err
	}
	for bytes > 0 {
		turn, ok, err := oldest.next(ctx)
		if err != nil || !ok {
			return evicted, err
		}
		// A path that something referred to stayed at its turn. Once that has gone,
		// its turn is now.
		passed := turn.Used.Add(time.Second)
		for due := []index.UsedPath{turn}; len(due) > 0 && bytes > 0; {
			p := due[len(due)-1]
			due = due[:len(due)-1]
			var gone, freed []string
			err := c.index.Update(ctx, func(tx index.Tx) (err error) {
				gone, freed, err = tx.RemoveUnused(p.CacheID, []string{p.Hash}, before)
				return err
			})
			if err != nil {
				return evicted, err
			}
			if len(gone) == 0 {
				continue
			}
			evicted++
			bytes -= p.FileSize
			for _, hash := range freed {
				ref, err := c.index.Path(ctx, p.CacheID, hash)
				if errors.Is(err, index.ErrNotFound) {
					continue
				}
				if err != nil {
					return evicted, err
				}
				if ref.Used.Before(passed) {
					due = append(due, index.UsedPath{
						PathName: index.PathName{CacheID: p.CacheID, Hash: hash, Name: ref.Name},
						Used:     ref.Used, NARSize: ref.NAR.Size, FileSize: ref.NAR.FileSize,
					})
				}
			}
		}
	}
	return evicted, nil
}

// oldestFirst gives the paths of all caches in the order of their last use.
type oldestFirst struct {
	index  index.Index
	before time.Time
	caches []*cursor
}

type cursor struct {
	cache int64
	page  []index.UsedPath
	after index.UsedPath
	ended bool
}

func (c *Collector) oldestFirst(ctx context.Context, before time.Time) (*oldestFirst, error) {
	caches, err := c.index.Caches(ctx)
	if err != nil {
		return nil, err
	}
	o := &oldestFirst{index: c.index, before: before}
	for _, cache := range caches {
		o.caches = append(o.caches, &cursor{cache: cache.ID})
	}
	return o, nil
}

// next returns the path that was used longest ago; ok is false after the last.
func (o *oldestFirst) next(ctx context.Context) (_ index.UsedPath, ok bool, err error) {
	var first *cursor
	for _, c := range o.caches {
		if len(c.page) == 0 && !c.ended {
			if c.page, err = o.index.PathsByUse(ctx, c.cache, o.before, c.after, pathStep); err != nil {
				return index.UsedPath{}, false, err
			}
			if c.ended = len(c.page) == 0; !c.ended {
				c.after = c.page[len(c.page)-1]
			}
		}
		if len(c.page) > 0 && (first == nil || c.page[0].Used.Before(first.page[0].Used)) {
			first = c
		}
	}
	if first == nil {
		return index.UsedPath{}, false, nil
	}
	p := first.page[0]
	first.page = first.page[1:]
	return p, true, nil
}
