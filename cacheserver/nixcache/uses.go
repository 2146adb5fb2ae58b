package nixcache

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

const (
	// useStep is how exactly the last use of a path is known. Retention is counted
	// in days; to write down each use would make reads cost writes.
	useStep = time.Hour
	// usesEvery is how often uses are written down, all those of a moment together.
	usesEvery = 2 * time.Second
	// maxUses bounds those that wait while the index cannot be reached. Those
	// beyond are noted at a later use.
	maxUses = 1 << 18
)

// lastNoted is when a use of something was noted, in Unix seconds.
type lastNoted struct{ seconds atomic.Int64 }

// due is true once every useStep.
func (l *lastNoted) due() bool {
	now := time.Now().Unix()
	last := l.seconds.Load()
	return now-last >= int64(useStep/time.Second) && l.seconds.CompareAndSwap(last, now)
}

// uses are the paths, NARs and objects that were read since they were last
// written down.
type uses struct {
	mu sync.Mutex
	used
}

type used struct {
	paths   map[pathKey]struct{}
	nars    map[narKey]struct{}
	objects map[objectKey]struct{}
}

func newUses() *uses { return &uses{used: noUses()} }

func noUses() used {
	return used{paths: map[pathKey]struct{}{}, nars: map[narKey]struct{}{}, objects: map[objectKey]struct{}{}}
}

func (u *uses) path(k pathKey) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.paths) < maxUses {
		u.paths[k] = struct{}{}
	}
}

func (u *uses) nar(k narKey) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.nars) < maxUses {
		u.nars[k] = struct{}{}
	}
}

func (u *uses) object(k objectKey) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.objects) < maxUses {
		u.objects[k] = struct{}{}
	}
}

func (u *uses) take() used {
	u.mu.Lock()
	defer u.mu.Unlock()
	taken := u.used
	u.used = noUses()
	return taken
}

// RecordUses writes down what is read, which is what retention is counted from,
// until ctx is done, and then what is left.
func (d *Door) RecordUses(ctx context.Context) error {
	turn := time.NewTicker(usesEvery)
	defer turn.Stop()
	for {
		select {
		case <-turn.C:
			d.recordUses(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			d.recordUses(last)
			return nil
		}
	}
}

func (d *Door) recordUses(ctx context.Context) {
	taken := d.uses.take()
	if len(taken.paths) == 0 && len(taken.nars) == 0 && len(taken.objects) == 0 {
		return
	}
	byCache := map[int64][]string{}
	for k := range taken.paths {
		byCache[k.cache] = append(byCache[k.cache], k.hash)
	}
	err := d.index.Update(ctx, func(tx index.Tx) error {
		for cache, hashes := range byCache {
			if err := tx.TouchPaths(cache, hashes); err != nil {
				return err
			}
		}
		for k := range taken.nars {
			if err := tx.TouchNAR(k.cache, k.hash); err != nil {
				return err
			}
		}
		for k := range taken.objects {
			if err := tx.TouchObject(k.cache, k.name); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		return
	}
	if !errors.Is(err, context.Canceled) {
		d.log.Warn("the last uses of paths were not written down, and are tried again", "paths", len(taken.paths), "error", err)
	}
	for k := range taken.paths {
		d.uses.path(k)
	}
	for k := range taken.nars {
		d.uses.nar(k)
	}
	for k := range taken.objects {
		d.uses.object(k)
	}
}
