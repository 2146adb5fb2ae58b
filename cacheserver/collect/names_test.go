package collect_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

const holdTime = collect.DefaultHoldTime

// collectBy collects once by a policy, whose grace is the store's.
func (r *rig) collectBy(t tb, policy collect.Policy) collect.Report {
	t.Helper()
	policy.Grace = grace
	report, err := collect.New(r.store, r.packs, r.index, policy, r.logger()).Run(t.Context())
	must(t, err)
	return report
}

// store20 stores a blob of 20,000 bytes that lives without a name for a time.
func (r *rig) store20(t tb, seed string, live time.Duration) index.Blob {
	t.Helper()
	stored, err := r.store.Put(t.Context(), bytes.NewReader(noise(20_000, seed)), 1<<20)
	must(t, err)
	var b index.Blob
	r.update(t, func(tx index.Tx) error {
		var err error
		b, err = tx.AddBlob(stored.Blob, stored.Chunks, time.Now().Add(live))
		return err
	})
	return b
}

func (r *rig) hasBlob(t tb, b index.Blob) bool {
	t.Helper()
	_, err := r.index.Blob(t.Context(), b.Digest)
	if err != nil && !errors.Is(err, index.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func TestTheServersPolicyCountsWhereACacheHasNone(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		p := newPath("a", nil, noise(3000, "a"))
		r.push(t, "main", p)
		r.push(t, "other", p)
		r.setRetention(t, "other", 0)
		time.Sleep(10*day + time.Second)
		if got := r.collectBy(t, collect.Policy{Retention: -1}); got.Paths != 0 {
			t.Errorf("a policy that keeps for ever: %+v", got)
		}
		if got := r.collectBy(t, collect.Policy{Retention: 11 * day}); got.Paths != 0 {
			t.Errorf("before its time: %+v", got)
		}
		if got := r.collectBy(t, collect.Policy{Retention: 10 * day}); got.Paths != 1 {
			t.Errorf("past its time: %+v", got)
		}
		r.wantGone(t, "main", p)
		r.wantServed(t, "other", p)
	})
}

func TestObjectsAndActionsGoInTheirTime(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		log := r.store20(t, "log", grace)
		main := r.cacheID(t, "main")
		action := digest.Of([]byte("action"))
		r.update(t, func(tx index.Tx) error {
			return errors.Join(
				tx.PutObject(index.Object{CacheID: main, Name: "log/a", Blob: log}),
				tx.PutAction(index.Action{Digest: action, Result: []byte("result")}),
			)
		})
		policy := collect.Policy{Retention: 20 * day, ActionRetention: 10 * day}
		time.Sleep(10 * day)
		if got := r.collectBy(t, policy); got.Actions != 0 || got.Objects != 0 || got.Blobs != 0 {
			t.Errorf("before their time: %+v", got)
		}
		time.Sleep(time.Second)
		if got := r.collectBy(t, policy); got.Actions != 1 || got.Objects != 0 {
			t.Errorf("past the action's time: %+v", got)
		}
		time.Sleep(10 * day)
		if got := r.collectBy(t, policy); got.Objects != 1 || got.Blobs != 1 || got.Stored != 0 {
			t.Errorf("past the object's time: %+v", got)
		}
		r.wantNothing(t)
	})
}

func TestWhatARemovedCacheHeldIsCollected(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		lib := newPath("lib", nil, noise(3000, "lib"))
		app := newPath("app", []*path{lib}, noise(3000, "app"))
		r.push(t, "main", lib, app)
		r.push(t, "other", lib)
		r.pin(t, "main", "release", app, 0)
		main := r.cacheID(t, "main")
		r.update(t, func(tx index.Tx) error { return tx.RemoveCache(main) })
		time.Sleep(grace + time.Second)
		r.collect(t, 0)
		r.wantServed(t, "other", lib)
		if u, err := r.index.Usage(t.Context()); err != nil || u.Paths != 1 || u.Blobs != 1 {
			t.Errorf("%+v, %v are left, want the other cache's path", u, err)
		}
		other := r.cacheID(t, "other")
		r.update(t, func(tx index.Tx) error { return tx.RemoveCache(other) })
		r.collect(t, 0)
		r.wantNothing(t)
	})
}

func TestBlobsAndPathsGoByOneClock(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		var paths []*path
		var blobs []index.Blob
		for i := range 4 { // a blob, a path, a blob, …
			blobs = append(blobs, r.store20(t, fmt.Sprint("blob", i), holdTime))
			time.Sleep(time.Minute)
			paths = append(paths, newPath(fmt.Sprint("path", i), nil, noise(20_000, fmt.Sprint("path", i))))
			r.pushApart(t, "main", paths[i])
		}
		time.Sleep(day)
		// The first blob is used: it is the one used last now.
		r.update(t, func(tx index.Tx) error {
			_, err := tx.HoldBlobs([]int64{blobs[0].ID}, time.Now().Add(holdTime))
			return err
		})
		time.Sleep(day)
		for _, step := range []struct {
			limit                 int64
			evicted, released     int64
			pathsLeft, blobsStart int
		}{
			{150_000, 1, 0, 3, 1},
			{130_000, 0, 1, 3, 2},
			{90_000, 1, 1, 2, 3},
		} {
			plan, err := r.collector(step.limit).Plan(t.Context(), func(index.UsedPath, collect.Reason) {})
			if err != nil || plan.Paths != step.evicted || plan.Held != step.released {
				t.Errorf("planned to %d: %+v, %v", step.limit, plan, err)
			}
			got := r.collect(t, step.limit)
			if got.Evicted != step.evicted || got.Released != step.released || got.Stored > step.limit || got.OverLimit != 0 {
				t.Errorf("to %d: %+v", step.limit, got)
			}
			r.wantServed(t, "main", paths[4-step.pathsLeft:]...)
			for i, b := range blobs {
				if want := i == 0 || i >= step.blobsStart; r.hasBlob(t, b) != want {
					t.Errorf("to %d: blob %d is there: %v", step.limit, i, !want)
				}
			}
		}
	})
}

func TestTheLimitTakesNoBlobInUse(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		old := r.store20(t, "old", holdTime)
		named := r.store20(t, "named", holdTime)
		main := r.cacheID(t, "main")
		r.update(t, func(tx index.Tx) error {
			return tx.PutObject(index.Object{CacheID: main, Name: "log/a", Blob: named})
		})
		time.Sleep(holdTime / 2)
		used := r.store20(t, "used", holdTime)
		// Its expiry is early, as if it was not used for long.
		inFlight := r.store20(t, "in flight", grace)
		got := r.collect(t, 1000)
		if r.hasBlob(t, old) || !r.hasBlob(t, used) || !r.hasBlob(t, inFlight) || !r.hasBlob(t, named) {
			t.Errorf("%+v: old is there: %v, used: %v, in flight: %v, named: %v", got,
				r.hasBlob(t, old), r.hasBlob(t, used), r.hasBlob(t, inFlight), r.hasBlob(t, named))
		}
		if got.OverLimit != got.Stored-1000 {
			t.Errorf("%+v", got)
		}
	})
}

func TestABlobThatIsUsedWhileItsTurnComesStays(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		var blobs []index.Blob
		for i := range 3 {
			blobs = append(blobs, r.store20(t, fmt.Sprint(i), holdTime))
		}
		time.Sleep(day)
		listed := &used{Index: r.index, then: func() {
			r.update(t, func(tx index.Tx) error {
				_, err := tx.HoldBlobs([]int64{blobs[1].ID}, time.Now().Add(holdTime))
				return err
			})
		}}
		got, err := collect.New(r.store, r.packs, listed, collect.Policy{Grace: grace, MaxSize: 1000}, r.logger()).Run(t.Context())
		must(t, err)
		if got.Released != 2 || r.hasBlob(t, blobs[0]) || !r.hasBlob(t, blobs[1]) || r.hasBlob(t, blobs[2]) {
			t.Errorf("%+v: the one that was used is there: %v", got, r.hasBlob(t, blobs[1]))
		}
	})
}

// used is an index in which something is used each time that blobs were listed.
type used struct {
	index.Index
	then func()
}

// HeldBlobs implements index.Names.
func (u *used) HeldBlobs(ctx context.Context, now time.Time, after index.HeldBlob, limit int) ([]index.HeldBlob, error) {
	found, err := u.Index.HeldBlobs(ctx, now, after, limit)
	u.then()
	return found, err
}
