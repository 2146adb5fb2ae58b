package bazelcache

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

const (
	// refreshStep is how exactly lifetimes are kept: to write down each use would
	// make reads cost writes.
	refreshStep = time.Hour
	// surely is how long a blob lives at least that a client was told is there. A
	// build may count on it until its end.
	surely = 24 * time.Hour
	// usesEvery is how often uses are written down, all those of a moment together.
	usesEvery = 2 * time.Second
	// maxUses bounds those that wait while the index cannot be reached. Those
	// beyond are noted at a later use.
	maxUses = 1 << 18
	// holdStep is how many blobs are held in one statement.
	holdStep = 4096
)

// uses are the blobs and action results that were used since they were last
// written down.
type uses struct {
	mu      sync.Mutex
	blobs   map[int64]struct{}
	actions map[actionKey]struct{}
}

type actionKey struct {
	instance string
	hash     digest.Hash
}

func newUses() *uses {
	return &uses{blobs: map[int64]struct{}{}, actions: map[actionKey]struct{}{}}
}

func (u *uses) blob(id int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.blobs) < maxUses {
		u.blobs[id] = struct{}{}
	}
}

func (u *uses) action(k actionKey) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.actions) < maxUses {
		u.actions[k] = struct{}{}
	}
}

func (u *uses) take() (map[int64]struct{}, map[actionKey]struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	blobs, actions := u.blobs, u.actions
	u.blobs, u.actions = map[int64]struct{}{}, map[actionKey]struct{}{}
	return blobs, actions
}

// expiry is until when what is used now is to live.
func (d *Door) expiry() time.Time { return time.Now().Add(d.config.Retention) }

// due says whether it is time to write down that a blob is used, and whether
// that must be through before a client is told that the blob is there.
func (d *Door) due(b index.Blob) (due, before bool) {
	return b.Expires.Before(d.dueBefore()), time.Until(b.Expires) < min(surely, d.config.Retention/2)
}

// dueBefore is when what expires next expires for whose use it is time to be written
// down.
func (d *Door) dueBefore() time.Time {
	return d.expiry().Add(-min(refreshStep, d.config.Retention/4))
}

// use notes that a blob is read. It is written down later.
func (d *Door) use(b index.Blob) {
	if due, _ := d.due(b); due {
		d.uses.blob(b.ID)
	}
}

// hold makes blobs live on, for a client that is then told that they are there.
// all is false when some of them were collected before.
func (d *Door) hold(ctx context.Context, blobs map[digest.Digest]index.Blob) (all bool, err error) {
	var ids []int64
	for _, b := range blobs {
		due, before := d.due(b)
		switch {
		case before:
			ids = append(ids, b.ID)
		case due:
			d.uses.blob(b.ID)
		}
	}
	if len(ids) == 0 {
		return true, nil
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	held := 0
	err = d.index.Update(ctx, func(tx index.Tx) (err error) {
		held, err = holdBlobs(tx, ids, d.expiry())
		return err
	})
	return held == len(ids), err
}

func holdBlobs(tx index.Tx, ids []int64, until time.Time) (held int, err error) {
	for part := range slices.Chunk(ids, holdStep) {
		n, err := tx.HoldBlobs(part, until)
		if err != nil {
			return 0, err
		}
		held += n
	}
	return held, nil
}

// recordUses writes down what was used since it last did.
func (d *Door) recordUses(ctx context.Context) {
	blobs, actions := d.uses.take()
	if len(blobs) == 0 && len(actions) == 0 {
		return
	}
	ids := slices.Sorted(maps.Keys(blobs))
	err := d.index.Update(ctx, func(tx index.Tx) error {
		if _, err := holdBlobs(tx, ids, d.expiry()); err != nil {
			return err
		}
		for k := range actions {
			if err := tx.TouchAction(k.instance, k.hash); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		return
	}
	if !errors.Is(err, context.Canceled) {
		d.log.Warn("the last uses of blobs were not written down, and are tried again", "blobs", len(blobs), "error", err)
	}
	for id := range blobs {
		d.uses.blob(id)
	}
	for k := range actions {
		d.uses.action(k)
	}
}
