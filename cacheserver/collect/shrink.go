package collect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// shrink makes the packs fit the size limit: what was used longest ago goes first,
// paths, each once nothing refers to it any more, as well as blobs that no path
// has.
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
		gone := r.Evicted + r.Released
		if err := c.evict(ctx, r, total-c.policy.MaxSize); err != nil {
			return fmt.Errorf("evicting what was used longest ago: %w", err)
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
		if idle = r.Evicted+r.Released == gone && r.ChunkBytes == before && r.Freed == freed; idle && wasIdle {
			return nil
		}
	}
}

// evict removes paths and releases blobs, the longest unused first, until the
// files of those that went had that many bytes together. Chunks that others share
// stay, so less may become free.
func (c *Collector) evict(ctx context.Context, r *Report, bytes int64) error {
	before := time.Now().Add(-c.policy.Grace)
	oldest, err := c.oldestFirst(ctx, before)
	if err != nil {
		return err
	}
	for bytes > 0 {
		path, blobs, err := oldest.next(ctx, bytes)
		if err != nil || path == nil && len(blobs) == 0 {
			return err
		}
		var freed int64
		if path != nil {
			freed, err = c.evictTree(ctx, r, *path, before, bytes)
		} else {
			freed, err = c.release(ctx, r, blobs)
		}
		if err != nil {
			return err
		}
		bytes -= freed
	}
	return nil
}

// release lets go of blobs, but for those that were used meanwhile.
func (c *Collector) release(ctx context.Context, r *Report, blobs []index.HeldBlob) (freed int64, err error) {
	ids := make([]int64, len(blobs))
	for i, b := range blobs {
		ids[i] = b.ID
		freed += b.FileSize
	}
	var released int
	err = c.index.Update(ctx, func(tx index.Tx) (err error) {
		released, err = tx.ReleaseBlobs(ids, blobs[len(blobs)-1].Expires)
		return err
	})
	if err != nil || released == 0 {
		return 0, err
	}
	r.Released += int64(released)
	return freed, nil
}

// evictTree removes a path if nothing needs it, and then those that it alone
// referred to and whose turn has passed: they had stayed for its sake.
func (c *Collector) evictTree(ctx context.Context, r *Report, turn index.UsedPath, before time.Time, bytes int64) (freed int64, err error) {
	passed := turn.Used.Add(time.Second)
	for due := []index.UsedPath{turn}; len(due) > 0 && freed < bytes; {
		p := due[len(due)-1]
		due = due[:len(due)-1]
		var gone, references []string
		err := c.index.Update(ctx, func(tx index.Tx) (err error) {
			gone, references, err = tx.RemoveUnused(p.CacheID, []string{p.Hash}, before)
			return err
		})
		if err != nil {
			return freed, err
		}
		if len(gone) == 0 {
			continue
		}
		r.Evicted++
		freed += p.FileSize
		for _, hash := range references {
			ref, err := c.index.Path(ctx, p.CacheID, hash)
			if errors.Is(err, index.ErrNotFound) {
				continue
			}
			if err != nil {
				return freed, err
			}
			if ref.Used.Before(passed) {
				due = append(due, index.UsedPath{
					PathName: index.PathName{CacheID: p.CacheID, Hash: hash, Name: ref.Name},
					Used:     ref.Used, NARSize: ref.NAR.Size, FileSize: ref.NAR.FileSize,
				})
			}
		}
	}
	return freed, nil
}

// oldestFirst gives the paths of all caches, and the blobs that no path has, in
// the order of their last use.
type oldestFirst struct {
	index  index.Index
	before time.Time
	caches []*cursor
	held   heldCursor
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
	o := &oldestFirst{index: c.index, before: before, held: heldCursor{policy: c.policy}}
	for _, cache := range caches {
		o.caches = append(o.caches, &cursor{cache: cache.ID})
	}
	return o, nil
}

// next returns the path that was used longest ago, or the blobs that were used no
// later than that, of no more bytes than are wanted but for the last of them;
// neither after the last.
func (o *oldestFirst) next(ctx context.Context, bytes int64) (*index.UsedPath, []index.HeldBlob, error) {
	var first *cursor
	for _, c := range o.caches {
		if len(c.page) == 0 && !c.ended {
			var err error
			if c.page, err = o.index.PathsByUse(ctx, c.cache, o.before, c.after, pathStep); err != nil {
				return nil, nil, err
			}
			if c.ended = len(c.page) == 0; !c.ended {
				c.after = c.page[len(c.page)-1]
			}
		}
		if len(c.page) > 0 && (first == nil || c.page[0].Used.Before(first.page[0].Used)) {
			first = c
		}
	}
	until := o.before
	if first != nil {
		if turn := first.page[0].Used.Add(time.Second); turn.Before(until) {
			until = turn
		}
	}
	blobs, err := o.held.take(ctx, o.index, until, bytes)
	if err != nil || len(blobs) > 0 || first == nil {
		return nil, blobs, err
	}
	p := first.page[0]
	first.page = first.page[1:]
	return &p, nil, nil
}

// heldCursor gives the blobs that no path has in the order of their last use,
// which their expiry tells.
type heldCursor struct {
	policy Policy
	page   []index.HeldBlob
	after  index.HeldBlob
	ended  bool
}

// take returns the next blobs that were last used before a time, of no more bytes
// than are wanted but for the last of them.
func (c *heldCursor) take(ctx context.Context, idx index.Index, before time.Time, bytes int64) ([]index.HeldBlob, error) {
	if len(c.page) == 0 && !c.ended {
		// One that expires earlier may be an upload's that has no name yet, by a clock
		// that is ahead of this one; if it is not, it goes soon by itself.
		settled := time.Now().Add(2 * c.policy.Grace)
		var err error
		if c.page, err = idx.HeldBlobs(ctx, settled, c.after, pathStep); err != nil {
			return nil, err
		}
		if c.ended = len(c.page) == 0; !c.ended {
			c.after = c.page[len(c.page)-1]
		}
	}
	n := 0
	for ; n < len(c.page) && bytes > 0 && c.page[n].Expires.Add(-c.policy.HoldTime).Before(before); n++ {
		bytes -= c.page[n].FileSize
	}
	taken := c.page[:n]
	c.page = c.page[n:]
	return taken, nil
}
