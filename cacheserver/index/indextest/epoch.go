package indextest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

var epochs = suite{
	"TheEpochOfBlobsChangesWhenSomeGo":          epochChanges,
	"TheEpochOfBlobsStaysWhileNoneGo":           epochStays,
	"TheEpochOfBlobsIsOfWhatWasCommitted":       epochCommitted,
	"TheEpochOfBlobsTellsOfWhatAnyReaderMisses": epochRace,
}

func epoch(t testing.TB, x index.Index) int64 {
	t.Helper()
	n, err := x.BlobEpoch(context.Background())
	must(t, err)
	return n
}

func epochChanges(t *testing.T, x index.Index, reopen func() index.Index) {
	addPack(t, x, "p1", "a", "b")
	released, swept := addBlob(t, x, "released", "a"), addBlob(t, x, "swept", "a")
	addBlob(t, x, "dropped", "b")
	hold(t, x, middle, released.ID)
	other := reopen()
	for _, c := range []struct {
		what string
		do   func()
	}{
		{"release", func() { wantEqual(t, "released", release(t, x, middle, released.ID), 1) }},
		{"sweep", func() {
			hold(t, x, middle, released.ID)
			wantEqual(t, "swept", sweepBlobsOnce(t, x, middle).Removed, int64(2))
			wantEqual(t, "held of what was swept", hold(t, x, middle, swept.ID), 0)
			addBlob(t, x, "dropped", "b")
		}},
		{"loss of a chunk", func() {
			update(t, x, func(tx index.Tx) error {
				_, err := tx.DropChunks(hashes("b"))
				return err
			})
		}},
	} {
		before := epoch(t, other)
		c.do()
		if after := epoch(t, other); after <= before {
			t.Errorf("%s: it was %d and is %d", c.what, before, after)
		}
	}
}

// What adds blobs, looks for some to remove, or prolongs the lives of some must not
// cost readers what they remember.
func epochStays(t *testing.T, x index.Index, _ func() index.Index) {
	before := epoch(t, x)
	addPack(t, x, "p1", "a")
	b := addBlob(t, x, "b", "a")
	hold(t, x, middle, b.ID)
	release(t, x, past, b.ID)
	release(t, x, middle)
	sweepBlobsOnce(t, x, past)
	sweepChunksOnce(t, x, past)
	update(t, x, func(tx index.Tx) error {
		_, err := tx.DropChunks(hashes("none"))
		return err
	})
	update(t, x, func(tx index.Tx) error {
		_, err := tx.AddBlob(blob("in part"), chunks("a", "none"), future)
		wantErr(t, err, index.ErrMissingChunks)
		_, err = tx.AddBlobs([]index.NewBlob{{Blob: blob("in part, too"), Chunks: chunks("none")}, {Blob: blob("whole"), Chunks: chunks("a")}}, future)
		wantErr(t, err, index.ErrMissingChunks)
		return nil
	})
	wantEqual(t, "epoch", epoch(t, x), before)
}

func epochCommitted(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	addBlob(t, x, "b", "a")
	before, undone := epoch(t, x), errors.New("undone")
	wantErr(t, x.Update(t.Context(), func(tx index.Tx) error {
		s, err := tx.SweepBlobs(0, 10, future)
		must(t, err)
		wantEqual(t, "swept", s.Removed, int64(1))
		return undone
	}), undone)
	wantEqual(t, "epoch", epoch(t, x), before)
}

// A reader that finds the epoch to be what it was before it looked must not have
// seen what is gone.
func epochRace(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a")
	var ended atomic.Bool
	both(t, func() error {
		defer ended.Store(true)
		for range rounds {
			if err := comeAndGo(x); err != nil {
				return err
			}
		}
		return nil
	}, func() error {
		for !ended.Load() {
			if err := lookTwice(y); err != nil {
				return err
			}
		}
		return nil
	})
}

// comeAndGo adds a blob, holds it, releases and removes it.
func comeAndGo(x index.Index) error {
	var b index.Blob
	for _, c := range []func(index.Tx) error{
		func(tx index.Tx) (err error) {
			b, err = tx.AddBlob(blob("b"), chunks("a"), past)
			return err
		},
		func(tx index.Tx) error {
			_, err := tx.HoldBlobs([]int64{b.ID}, middle)
			return err
		},
		func(tx index.Tx) error {
			_, err := tx.ReleaseBlobs([]int64{b.ID}, middle)
			return err
		},
		func(tx index.Tx) error {
			_, err := tx.SweepBlobs(0, 10, time.Now())
			return err
		},
	} {
		if err := change(x, c); err != nil {
			return err
		}
	}
	return nil
}

func lookTwice(x index.Index) error {
	ctx, name := context.Background(), []digest.Digest{blob("b").Digest}
	before, err := x.BlobEpoch(ctx)
	if err != nil {
		return err
	}
	found, err := x.Blobs(ctx, name)
	if err != nil {
		return err
	}
	again, err := x.Blobs(ctx, name)
	if err != nil {
		return err
	}
	after, err := x.BlobEpoch(ctx)
	if err != nil || after != before {
		return err
	}
	for d, b := range found {
		if later, ok := again[d]; !ok || later.Expires.Before(b.Expires) {
			return fmt.Errorf("in epoch %d it was %+v and then %+v (%v)", before, b, later, ok)
		}
	}
	return nil
}
