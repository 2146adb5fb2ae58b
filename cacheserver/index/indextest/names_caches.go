package indextest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

var caches = suite{
	"ACacheIsChangedButForItsName":            updateCache,
	"ARemovedCacheIsGoneAtOnce":               removedCache,
	"ARemovedCachesNameIsFree":                nameIsFree,
	"NothingIsPutIntoARemovedCache":           putIntoRemoved,
	"WhatARemovedCacheHeldGoesStepByStep":     purge,
	"ACachesNumberIsNeverUsedAgain":           numbersOfCaches,
	"ChangesOfACacheThatIsNotThereAreRefused": noCache,
}

func removeCache(t testing.TB, x index.Index, c index.Cache) {
	t.Helper()
	update(t, x, func(tx index.Tx) error { return tx.RemoveCache(c.ID) })
}

// purgeAll purges in steps of limit and returns how many it took.
func purgeAll(t testing.TB, x index.Index, limit int) (steps int) {
	t.Helper()
	for more := true; more; steps++ {
		update(t, x, func(tx index.Tx) (err error) {
			more, err = tx.PurgeCaches(limit)
			return err
		})
		if steps > 1000 {
			t.Fatal("it does not end")
		}
	}
	return steps
}

// becomes makes a cache another.
func becomes(other index.Cache) func(*index.Cache) error {
	return func(c *index.Cache) error {
		*c = other
		return nil
	}
}

func updateCache(t *testing.T, x index.Index, _ func() index.Index) {
	c, other := addCache(t, x, "main"), addCache(t, x, "other")
	for _, change := range []index.Cache{
		{Priority: 7, SecretKeys: []string{"new:a", "old:b", "older:c"}, Retention: time.Hour, Public: false, UpstreamKeys: []string{"a", "b"}},
		{Priority: 0, SecretKeys: nil, Retention: index.GlobalRetention, Public: true, UpstreamKeys: nil},
	} {
		change.ID, change.Name, change.StoreDir = c.ID, "ignored", "/ignored"
		update(t, x, func(tx index.Tx) error { return tx.UpdateCache(c.ID, becomes(change)) })
		change.Name, change.StoreDir = c.Name, c.StoreDir
		got, err := x.Caches(t.Context())
		must(t, err)
		wantEqual(t, "caches", got, []index.Cache{change, other})
		objection := errors.New("it must not be")
		wantErr(t, x.Update(t.Context(), func(tx index.Tx) error {
			return tx.UpdateCache(c.ID, func(there *index.Cache) error {
				wantEqual(t, "the cache that is changed", *there, change)
				there.Priority = 99
				return objection
			})
		}), objection)
		got, err = x.Caches(t.Context())
		must(t, err)
		wantEqual(t, "caches after a change that was not made", got, []index.Cache{change, other})
	}
}

func removedCache(t *testing.T, x index.Index, _ func() index.Index) {
	c, other := addCache(t, x, "main"), addCache(t, x, "other")
	removeCache(t, x, c)
	_, err := x.Cache(t.Context(), "main")
	wantErr(t, err, index.ErrNotFound)
	got, err := x.Caches(t.Context())
	must(t, err)
	wantEqual(t, "caches", got, []index.Cache{other})
}

func nameIsFree(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	b := addBlob(t, x, "b", "a")
	var last index.Cache
	for i := range 3 { // several of one name may wait to be purged
		last = addCache(t, x, "main")
		putPath(t, x, path(last, b, i))
		if i < 2 {
			removeCache(t, x, last)
		}
	}
	if holds(t, x, last, 0) || holds(t, x, last, 1) || !holds(t, x, last, 2) {
		t.Error("a new cache has the paths of a removed one")
	}
	purgeAll(t, x, 100)
	if !holds(t, x, last, 2) {
		t.Error("a path of the cache that is there went with those that are not")
	}
}

func putIntoRemoved(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	b := addBlob(t, x, "b", "a")
	c := addCache(t, x, "main")
	putPath(t, x, path(c, b, 1))
	removeCache(t, x, c)
	for _, gone := range []int64{c.ID, c.ID + 1} {
		p := path(c, b, 1)
		p.CacheID = gone
		wantErr(t, change(x, func(tx index.Tx) error { _, err := tx.PutPath(p); return err }), index.ErrNotFound)
		wantErr(t, change(x, func(tx index.Tx) error {
			return tx.PutObject(index.Object{CacheID: gone, Name: "log/a", Blob: b})
		}), index.ErrNotFound)
	}
}

func purge(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	kept := addCache(t, x, "kept")
	for limit := 1; limit <= 12; limit++ {
		b := addBlob(t, x, "b", "a")
		putPath(t, x, path(kept, b, 1))
		putObject(t, x, kept, "log/kept", b, time.Time{})
		for i := range 2 {
			c := addCache(t, x, fmt.Sprint("cache", i))
			for n := range 3 {
				putPath(t, x, path(c, b, n, 0, 1, 2))
				pin(t, x, c, "pin", n, time.Time{}, 3)
				putObject(t, x, c, fmt.Sprint("log/", n), b, time.Time{})
			}
			removeCache(t, x, c)
		}
		if steps, most := purgeAll(t, x, limit), 12/limit+1; steps != most {
			t.Errorf("%d steps of %d for 12 things, want %d", steps, limit, most)
		}
		if !holds(t, x, kept, 1) {
			t.Error("a path of another cache is gone")
		}
		_, err := x.Object(t.Context(), kept.ID, "log/kept")
		must(t, err)
		u, err := x.Usage(t.Context())
		must(t, err)
		if u.Paths != 1 {
			t.Errorf("%d paths are left, want 1", u.Paths)
		}
		wantEqual(t, "swept while another cache has it", sweepBlobsOnce(t, x, future), index.Swept{})
	}
	wantEqual(t, "steps for nothing", purgeAll(t, x, 1), 1)
	removeCache(t, x, kept)
	purgeAll(t, x, 0) // at least 1
	wantEqual(t, "swept after it", sweepBlobsOnce(t, x, future), index.Swept{Removed: 1, Bytes: 42})
}

// A server may hold the number of a cache for a while.
func numbersOfCaches(t *testing.T, x index.Index, _ func() index.Index) {
	seen := map[int64]bool{}
	for range 3 {
		c := addCache(t, x, "main")
		if seen[c.ID] {
			t.Fatalf("number %d was used again", c.ID)
		}
		seen[c.ID] = true
		removeCache(t, x, c)
		purgeAll(t, x, 10)
	}
}

func noCache(t *testing.T, x index.Index, _ func() index.Index) {
	c, removed := addCache(t, x, "main"), addCache(t, x, "removed")
	removeCache(t, x, removed)
	for _, id := range []int64{removed.ID, c.ID + 100} {
		for what, change := range map[string]func(tx index.Tx) error{
			"UpdateCache":  func(tx index.Tx) error { return tx.UpdateCache(id, becomes(index.Cache{})) },
			"RemoveCache":  func(tx index.Tx) error { return tx.RemoveCache(id) },
			"SetRetention": func(tx index.Tx) error { return tx.SetRetention(id, time.Hour) },
		} {
			t.Log(what)
			wantErr(t, x.Update(t.Context(), change), index.ErrNotFound)
		}
	}
}
