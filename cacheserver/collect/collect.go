// Package collect removes what nobody needs any more: paths, objects and action
// results past their retention, what removed caches held, blobs without a name,
// chunks without a blob, packs without chunks.
// It runs beside pushes and pulls, in short transactions, and may be killed at
// any moment: what it left half-done, the next collection finishes.
package collect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// LockName is the index's lock that collectors, and all who move what lies in
// packs, hold.
const LockName = "collector"

const (
	// pathStep and sweepStep are how many rows one transaction looks at: pushes
	// wait for no more than that.
	pathStep  = 500
	sweepStep = 5000
)

const (
	// DefaultHoldTime is how long a blob that has no path lives after its last use.
	DefaultHoldTime = 30 * 24 * time.Hour
	// DefaultActionRetention is how long an action's result does.
	DefaultActionRetention = 30 * 24 * time.Hour
)

// Policy says what may go.
type Policy struct {
	// Grace is how long uploads in flight are left alone: chunks that no blob has
	// yet, blobs that have no name yet, and packs that are not in the index yet. No
	// path goes that was used within it, whatever its cache's retention: a push
	// may be about to refer to it. It must be what the stores over the same index have; zero is
	// cas.DefaultGrace.
	Grace time.Duration
	// Retention is how long paths and objects live after their last use whose
	// caches have no retention of their own. Zero is nixcache.DefaultRetention, and
	// below zero is for ever.
	Retention time.Duration
	// ActionRetention is how long the results of actions live after their last use;
	// zero is DefaultActionRetention.
	ActionRetention time.Duration
	// HoldTime is how long blobs are held, from their last use on, by the doors that
	// store some without a path: what a blob's expiry says of that use. Zero is
	// DefaultHoldTime.
	HoldTime time.Duration
	// MaxSize is how many bytes the packs may take; paths, and blobs without one,
	// that were used longest ago go first. Zero is no limit.
	MaxSize int64
}

// Report is what a collection did.
type Report struct {
	Paths          int64 // past their retention
	Evicted        int64 // paths that went because of MaxSize
	Released       int64 // blobs without a path that went because of MaxSize
	Objects        int64
	Actions        int64
	Blobs          int64
	BlobBytes      int64 // uncompressed
	Chunks         int64
	ChunkBytes     int64 // of their frames
	PacksDeleted   int64
	PacksCompacted int64
	Orphans        int64    // packs that the index did not know
	Foreign        int64    // packs that it does not know either, left alone because they are older than it
	Freed          int64    // bytes of the packs that went, less those of the packs written instead
	Stored         int64    // bytes of all packs at the end
	Damaged        []string // packs that could not be compacted, for their frames are damaged
	// OverLimit is how many bytes the packs take beyond MaxSize because all that
	// is left is pinned or was used within the grace.
	OverLimit int64
	Took      time.Duration
}

// Collector collects over one index and its packs.
type Collector struct {
	index  index.Index
	packs  packstore.Store
	store  *cas.Store
	policy Policy
	log    *slog.Logger
	report func(Report, error)
}

// New makes a collector. store must be one over the same packs and index.
func New(store *cas.Store, packs packstore.Store, idx index.Index, policy Policy, log *slog.Logger) *Collector {
	for _, d := range []struct {
		value *time.Duration
		unset time.Duration
	}{
		{&policy.Grace, cas.DefaultGrace},
		{&policy.Retention, nixcache.DefaultRetention},
		{&policy.ActionRetention, DefaultActionRetention},
		{&policy.HoldTime, DefaultHoldTime},
	} {
		if *d.value == 0 {
			*d.value = d.unset
		}
	}
	return &Collector{index: idx, packs: packs, store: store, policy: policy, log: log, report: func(Report, error) {}}
}

// OnReport makes Schedule tell what each collection did, and how it ended.
func (c *Collector) OnReport(report func(Report, error)) { c.report = report }

// Run collects once. index.ErrLocked: another process is collecting. The report
// tells what was done, also when there is an error.
func (c *Collector) Run(ctx context.Context) (r Report, err error) {
	began := time.Now()
	err = index.WithLock(ctx, c.index, LockName, func(ctx context.Context) error {
		for _, step := range []func(context.Context, *Report) error{
			c.expire, c.purge, c.sweepNames, c.sweep, c.compact, c.shrink, c.removeOrphans,
		} {
			if err := step(ctx, &r); err != nil {
				return err
			}
		}
		r.Stored, _, err = c.index.Stored(ctx)
		if c.policy.MaxSize > 0 {
			r.OverLimit = max(0, r.Stored-c.policy.MaxSize)
		}
		return err
	})
	r.Took = time.Since(began)
	return r, err
}

// Schedule collects every interval, the first time after one, until ctx is done.
// Failures are logged and tried again at the next turn.
func (c *Collector) Schedule(ctx context.Context, interval time.Duration) error {
	turn := time.NewTicker(interval)
	defer turn.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-turn.C:
		}
		r, err := c.Run(ctx)
		c.report(r, err)
		switch {
		case errors.Is(err, index.ErrLocked):
			c.log.Debug("another process is collecting")
		case err != nil && ctx.Err() == nil:
			c.log.Error("collection ended early", "error", err)
		case err == nil:
			c.log.Info("collected", "paths", r.Paths, "evicted", r.Evicted, "released", r.Released, "objects", r.Objects, "actions", r.Actions, "chunks", r.Chunks,
				"deleted", r.PacksDeleted, "compacted", r.PacksCompacted, "orphans", r.Orphans, "freed", r.Freed, "stored", r.Stored, "took", r.Took.Round(time.Millisecond))
		}
		if r.OverLimit > 0 {
			c.log.Warn("over the size limit: all that is left is pinned or in use", "bytes", r.OverLimit)
		}
		if r.Foreign > 0 {
			c.log.Warn("packs that are older than the index, and unknown to it, were left alone; cacheserver fsck --repair makes it know them", "packs", r.Foreign)
		}
		for _, p := range r.Damaged {
			c.log.Error("a damaged pack was left as it is; cacheserver fsck tells more", "pack", p)
		}
	}
}

func (c *Collector) expire(ctx context.Context, r *Report) error {
	caches, err := c.index.Caches(ctx)
	if err != nil {
		return err
	}
	for _, cache := range caches {
		before, ok := c.expiry(cache)
		if !ok {
			continue
		}
		removed, err := c.expireCache(ctx, cache.ID, before)
		r.Paths += removed
		if err != nil {
			return fmt.Errorf("removing old paths of cache %q: %w", cache.Name, err)
		}
	}
	return nil
}

// expiry is the time before which a path of a cache must have been used last to
// go. It is a whole second, as uses are. ok is false where paths live for ever.
func (c *Collector) expiry(cache index.Cache) (before time.Time, ok bool) {
	keep := cache.Retention
	if keep == index.GlobalRetention {
		keep = c.global()
	}
	return time.Now().Add(-max(keep, c.policy.Grace)).Truncate(time.Second), keep > 0
}

// global is the retention of caches that have none of their own, as theirs: 0 is
// for ever.
func (c *Collector) global() time.Duration { return max(c.policy.Retention, 0) }

// expireCache removes the paths of a cache that were last used before a time.
// One that something refers to stays until that has gone, so it is looked at
// again then.
func (c *Collector) expireCache(ctx context.Context, cache int64, before time.Time) (removed int64, err error) {
	var after index.UsedPath
	for {
		page, err := c.index.PathsByUse(ctx, cache, before, after, pathStep)
		if err != nil {
			return removed, err
		}
		if len(page) == 0 {
			return removed, nil
		}
		after = page[len(page)-1]
		n, err := c.removeTree(ctx, cache, hashesOf(page), before)
		removed += n
		if err != nil {
			return removed, err
		}
	}
}

// removeTree removes those of the paths that may go, and then those that they
// alone referred to, on and on.
func (c *Collector) removeTree(ctx context.Context, cache int64, hashes []string, before time.Time) (removed int64, err error) {
	for len(hashes) > 0 {
		step := hashes[:min(pathStep, len(hashes))]
		hashes = hashes[len(step):]
		var gone, freed []string
		err := c.index.Update(ctx, func(tx index.Tx) (err error) {
			gone, freed, err = tx.RemoveUnused(cache, step, before)
			return err
		})
		if err != nil {
			return removed, err
		}
		removed += int64(len(gone))
		hashes = append(hashes, freed...)
	}
	return removed, nil
}

func hashesOf(paths []index.UsedPath) []string {
	hashes := make([]string, len(paths))
	for i, p := range paths {
		hashes[i] = p.Hash
	}
	return hashes
}

// purge removes what removed caches held.
func (c *Collector) purge(ctx context.Context, _ *Report) error {
	for more := true; more; {
		err := c.index.Update(ctx, func(tx index.Tx) (err error) {
			more, err = tx.PurgeCaches(pathStep)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sweepNames removes the names over blobs that are not paths.
func (c *Collector) sweepNames(ctx context.Context, r *Report) error {
	now := time.Now()
	objects, _, err := c.steps(ctx, func(tx index.Tx, from int64) (index.Swept, error) {
		return tx.SweepObjects(from, sweepStep, now, c.global())
	})
	r.Objects += objects
	if err != nil {
		return fmt.Errorf("sweeping objects: %w", err)
	}
	actions, _, err := c.steps(ctx, func(tx index.Tx, from int64) (index.Swept, error) {
		return tx.SweepActions(from, sweepStep, now.Add(-c.policy.ActionRetention))
	})
	r.Actions += actions
	if err != nil {
		return fmt.Errorf("sweeping action results: %w", err)
	}
	return nil
}

func (c *Collector) sweep(ctx context.Context, r *Report) error {
	now := time.Now()
	blobs, bytes, err := c.steps(ctx, func(tx index.Tx, from int64) (index.Swept, error) {
		return tx.SweepBlobs(from, sweepStep, now)
	})
	r.Blobs += blobs
	r.BlobBytes += bytes
	if err != nil {
		return fmt.Errorf("sweeping blobs: %w", err)
	}
	chunks, bytes, err := c.steps(ctx, func(tx index.Tx, from int64) (index.Swept, error) {
		return tx.SweepChunks(from, sweepStep, now.Add(-c.policy.Grace))
	})
	r.Chunks += chunks
	r.ChunkBytes += bytes
	if err != nil {
		return fmt.Errorf("sweeping chunks: %w", err)
	}
	return nil
}

// steps sweeps to the end of a table, one transaction a step.
func (c *Collector) steps(ctx context.Context, step func(tx index.Tx, from int64) (index.Swept, error)) (removed, bytes int64, err error) {
	for from := int64(1); from != 0; {
		var swept index.Swept
		err := c.index.Update(ctx, func(tx index.Tx) (err error) {
			swept, err = step(tx, from)
			return err
		})
		if err != nil {
			return removed, bytes, err
		}
		removed += swept.Removed
		bytes += swept.Bytes
		from = swept.Next
	}
	return removed, bytes, nil
}
