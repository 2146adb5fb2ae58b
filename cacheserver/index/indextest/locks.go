package indextest

import (
	"context"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

var locks = suite{
	"ALockIsHeldByOne":            lockOnce,
	"ALockMayBeTakenAgain":        lockAgain,
	"LocksOfOtherNamesAreFree":    lockOthers,
	"ACancelledLockIsNotTaken":    lockCancelled,
	"ALockDoesNotHoldUpAnyChange": lockAndUpdate,
}

func wantLocked(t testing.TB, x index.Index, name string) {
	t.Helper()
	_, unlock, err := x.Lock(t.Context(), name)
	wantErr(t, err, index.ErrLocked)
	if err == nil {
		unlock()
	}
}

func wantHeld(t testing.TB, lost <-chan struct{}) {
	t.Helper()
	select {
	case <-lost:
		t.Error("the lock was lost")
	default:
	}
}

func lockOnce(t *testing.T, x index.Index, reopen func() index.Index) {
	second := reopen()
	lost, unlock, err := x.Lock(t.Context(), "collection")
	must(t, err)
	defer unlock()
	for range 3 {
		wantLocked(t, second, "collection")
		wantLocked(t, x, "collection")
	}
	wantHeld(t, lost)
}

func lockAgain(t *testing.T, x index.Index, reopen func() index.Index) {
	second := reopen()
	for range 5 {
		for _, handle := range []index.Index{x, second, x, x} {
			lost, unlock, err := handle.Lock(t.Context(), "collection")
			must(t, err)
			wantLocked(t, second, "collection")
			wantHeld(t, lost)
			unlock()
		}
	}
}

func lockOthers(t *testing.T, x index.Index, reopen func() index.Index) {
	_, unlock, err := x.Lock(t.Context(), "collection")
	must(t, err)
	for i, handle := range []index.Index{x, reopen()} {
		_, unlock, err := handle.Lock(t.Context(), []string{"scrub-1", "scrub-2"}[i])
		must(t, err)
		defer unlock()
	}
	unlock()
	wantLocked(t, x, "scrub-1")
	wantLocked(t, x, "scrub-2")
}

func lockCancelled(t *testing.T, x index.Index, _ func() index.Index) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := x.Lock(ctx, "collection")
	wantErr(t, err, context.Canceled)
	// One that was taken outlives the context that it was taken with.
	ctx, cancel = context.WithCancel(t.Context())
	lost, unlock, err := x.Lock(ctx, "collection")
	must(t, err)
	defer unlock()
	cancel()
	wantLocked(t, x, "collection")
	wantHeld(t, lost)
}

func lockAndUpdate(t *testing.T, x index.Index, reopen func() index.Index) {
	_, unlock, err := x.Lock(t.Context(), "collection")
	must(t, err)
	defer unlock()
	addPack(t, x, "p1", "a")
	addPack(t, reopen(), "p2", "b")
}
