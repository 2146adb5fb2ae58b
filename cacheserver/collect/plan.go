package collect

import (
	"context"
	"errors"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// Reason is why a path would go.
type Reason string

// Why paths go.
const (
	ReasonRetention Reason = "past its retention"
	ReasonSize      Reason = "to fit the size limit"
)

// Plan is what a collection would do.
type Plan struct {
	Paths     int64
	NARBytes  int64 // uncompressed
	FileBytes int64 // of the files as they are served; shared chunks may keep some of it
	Held      int64 // blobs without a path that would go to fit the size limit
	HeldBytes int64 // of their files
	Stored    int64 // bytes of all packs now
	Dead      int64 // of those, in frames that nothing needs
}

// Plan finds out which paths a collection would remove, and changes nothing. For
// the size limit it takes the whole file of a path as freed, so that it names
// too few paths where they share chunks.
func (c *Collector) Plan(ctx context.Context, visit func(index.UsedPath, Reason)) (Plan, error) {
	var plan Plan
	var err error
	if plan.Stored, plan.Dead, err = c.index.Stored(ctx); err != nil {
		return plan, err
	}
	caches, err := c.index.Caches(ctx)
	if err != nil {
		return plan, err
	}
	s := simulation{index: c.index, gone: map[pathKey]bool{}, pinned: map[pathKey]bool{}}
	s.took = func(p index.UsedPath, why Reason) {
		plan.Paths++
		plan.NARBytes += p.NARSize
		plan.FileBytes += p.FileSize
		visit(p, why)
	}
	for _, cache := range caches {
		if err := s.notePins(ctx, cache.ID); err != nil {
			return plan, err
		}
	}
	for _, cache := range caches {
		before, ok := c.expiry(cache)
		if !ok {
			continue
		}
		if err := s.expire(ctx, cache.ID, before); err != nil {
			return plan, err
		}
	}
	if c.policy.MaxSize > 0 {
		before := time.Now().Add(-c.policy.Grace)
		oldest, err := c.oldestFirst(ctx, before)
		if err != nil {
			return plan, err
		}
		over := func() int64 { return plan.Stored - plan.Dead - plan.FileBytes - plan.HeldBytes - c.policy.MaxSize }
		fits := func() bool { return over() <= 0 }
		for !fits() {
			p, blobs, err := oldest.next(ctx, over())
			if err != nil || p == nil && len(blobs) == 0 {
				return plan, err
			}
			for _, b := range blobs {
				plan.Held++
				plan.HeldBytes += b.FileSize
			}
			if p == nil {
				continue
			}
			if err := s.remove(ctx, *p, p.Used.Add(time.Second), ReasonSize, fits); err != nil {
				return plan, err
			}
		}
	}
	return plan, nil
}

type pathKey struct {
	cache int64
	hash  string
}

// simulation removes paths in memory only.
type simulation struct {
	index  index.Index
	gone   map[pathKey]bool
	pinned map[pathKey]bool
	took   func(index.UsedPath, Reason)
}

func (s *simulation) notePins(ctx context.Context, cache int64) error {
	pins, err := s.index.Pins(ctx, cache)
	now := time.Now().Truncate(time.Second) // as the index counts
	for _, p := range pins {
		if p.Expires.IsZero() || !p.Expires.Before(now) {
			s.pinned[pathKey{cache, p.Hash}] = true
		}
	}
	return err
}

func (s *simulation) expire(ctx context.Context, cache int64, before time.Time) error {
	var after index.UsedPath
	for {
		page, err := s.index.PathsByUse(ctx, cache, before, after, pathStep)
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1]
		for _, p := range page {
			if err := s.remove(ctx, p, before, ReasonRetention, never); err != nil {
				return err
			}
		}
	}
}

func never() bool { return false }

// remove removes a path if it may go, and then those that it alone referred to
// and that were last used before the given time, until that is enough.
func (s *simulation) remove(ctx context.Context, first index.UsedPath, before time.Time, why Reason, enough func() bool) error {
	for due := []index.UsedPath{first}; len(due) > 0 && !enough(); {
		p := due[len(due)-1]
		due = due[:len(due)-1]
		key := pathKey{p.CacheID, p.Hash}
		if s.gone[key] || s.pinned[key] {
			continue
		}
		needed, err := s.needed(ctx, p.PathName)
		if err != nil {
			return err
		}
		if needed {
			continue
		}
		s.gone[key] = true
		s.took(p, why)
		full, err := s.index.Path(ctx, p.CacheID, p.Hash)
		if errors.Is(err, index.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		for _, ref := range full.References {
			r, err := s.index.Path(ctx, p.CacheID, ref[:len(p.Hash)])
			if errors.Is(err, index.ErrNotFound) || (err == nil && !r.Used.Before(before)) {
				continue
			}
			if err != nil {
				return err
			}
			due = append(due, index.UsedPath{
				PathName: index.PathName{CacheID: p.CacheID, Hash: r.Hash, Name: r.Name},
				Used:     r.Used, NARSize: r.NAR.Size, FileSize: r.NAR.FileSize,
			})
		}
	}
	return nil
}

func (s *simulation) needed(ctx context.Context, p index.PathName) (bool, error) {
	referrers, err := s.index.Referrers(ctx, p.CacheID, p.Hash)
	for _, r := range referrers {
		if !s.gone[pathKey{r.CacheID, r.Hash}] {
			return true, err
		}
	}
	return false, err
}
