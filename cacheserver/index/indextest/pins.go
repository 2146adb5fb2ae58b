package indextest

import (
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

var pins = suite{
	"APinKeepsItsNewestRevisions":          pinRevisions,
	"PinningAgainRenews":                   pinRenewed,
	"PinsAreRemovedByNameOrPath":           pinsRemoved,
	"APinOnAPathThatIsNotThereIsRefused":   pinOnNothing,
	"PinsOfAnotherCacheAreLeftAlone":       pinsApart,
	"APinStaysOnAPathThatIsReplaced":       pinOnReplaced,
	"APinProtectsUntilItExpires":           pinProtects,
	"ARemovedPathTakesItsPinsWithIt":       pinsGoWithPath,
	"OneOfTwoPinsIsEnough":                 pinnedTwice,
	"ARemovedPinProtectsNoMore":            pinRemovedFirst,
	"AnOlderRevisionProtectsUntilItIsGone": olderRevision,
}

// pinned makes a cache with so many paths that refer to nothing.
func pinned(t *testing.T, x index.Index, n int) index.Cache {
	t.Helper()
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addBlob(t, x, "b", "a")
	for i := range n {
		putPath(t, x, path(c, b, i))
	}
	return c
}

func pin(t testing.TB, x index.Index, c index.Cache, name string, n int, expires time.Time, keep int) {
	t.Helper()
	update(t, x, func(tx index.Tx) error {
		return tx.AddPin(index.Pin{CacheID: c.ID, Name: name, Hash: hash32(n), Expires: expires}, keep)
	})
}

// on is a pin as Pins lists it, but for its creation.
func on(c index.Cache, name string, n int, expires time.Time) index.Pin {
	return index.Pin{CacheID: c.ID, Name: name, Hash: hash32(n), PathName: "name", Expires: expires}
}

func wantPins(t testing.TB, x index.Index, c index.Cache, want ...index.Pin) {
	t.Helper()
	got, err := x.Pins(t.Context(), c.ID)
	must(t, err)
	for i, p := range got {
		if p.Created.Before(past) || p.Created.After(time.Now()) || p.Created.Nanosecond() != 0 {
			t.Errorf("a pin was created at %v", p.Created)
		}
		got[i].Created = time.Time{}
		got[i].Expires = p.Expires.UTC()
	}
	for i := range want {
		want[i].Expires = want[i].Expires.UTC()
	}
	wantEqual(t, "pins", got, append([]index.Pin(nil), want...))
}

func removeUnused(t testing.TB, x index.Index, c index.Cache, numbers ...int) (removed, references []string) {
	t.Helper()
	update(t, x, func(tx index.Tx) (err error) {
		removed, references, err = tx.RemoveUnused(c.ID, hash32s(numbers...), future)
		return err
	})
	return removed, references
}

func pinRevisions(t *testing.T, x index.Index, _ func() index.Index) {
	c := pinned(t, x, 6)
	for n := range 5 {
		pin(t, x, c, "main", n, future, 3)
	}
	pin(t, x, c, "another", 0, future, 3)
	never := time.Time{}
	wantPins(t, x, c, on(c, "another", 0, future), on(c, "main", 4, future), on(c, "main", 3, future), on(c, "main", 2, future))
	// A path of an older revision is pinned anew, as the newest.
	pin(t, x, c, "main", 2, never, 10)
	wantPins(t, x, c, on(c, "another", 0, future),
		on(c, "main", 2, never), on(c, "main", 4, future), on(c, "main", 3, future), on(c, "main", 2, future))
	pin(t, x, c, "main", 5, past, 2)
	wantPins(t, x, c, on(c, "another", 0, future), on(c, "main", 5, past), on(c, "main", 2, never))
	pin(t, x, c, "main", 0, past, 0) // at least 1
	wantPins(t, x, c, on(c, "another", 0, future), on(c, "main", 0, past))
}

func pinRenewed(t *testing.T, x index.Index, _ func() index.Index) {
	c := pinned(t, x, 3)
	for n := range 3 {
		pin(t, x, c, "main", n, past, 3)
	}
	for _, expires := range []time.Time{future, {}, past, past.Add(time.Second)} {
		pin(t, x, c, "main", 2, expires, 3)
		wantPins(t, x, c, on(c, "main", 2, expires), on(c, "main", 1, past), on(c, "main", 0, past))
	}
	pin(t, x, c, "main", 2, future, 2)
	wantPins(t, x, c, on(c, "main", 2, future), on(c, "main", 1, past))
	pin(t, x, c, "main", 2, future, -1)
	wantPins(t, x, c, on(c, "main", 2, future))
}

func pinsRemoved(t *testing.T, x index.Index, _ func() index.Index) {
	c := pinned(t, x, 3)
	for _, name := range []string{"main", "another"} {
		for _, n := range []int{0, 1, 0, 2} {
			pin(t, x, c, name, n, future, 10)
		}
	}
	remove := func(name, hash string, want int) {
		t.Helper()
		update(t, x, func(tx index.Tx) error {
			n, err := tx.RemovePins(c.ID, name, hash)
			if n != want {
				t.Errorf("%d pins removed, want %d", n, want)
			}
			return err
		})
	}
	remove("main", hash32(9), 0)
	remove("none", "", 0)
	remove("main", hash32(0), 2)
	remove("another", hash32(2), 1)
	wantPins(t, x, c,
		on(c, "another", 0, future), on(c, "another", 1, future), on(c, "another", 0, future),
		on(c, "main", 2, future), on(c, "main", 1, future))
	remove("another", "", 3)
	wantPins(t, x, c, on(c, "main", 2, future), on(c, "main", 1, future))
}

func pinOnNothing(t *testing.T, x index.Index, _ func() index.Index) {
	c := pinned(t, x, 1)
	pin(t, x, c, "main", 0, future, 1)
	update(t, x, func(tx index.Tx) error {
		wantErr(t, tx.AddPin(index.Pin{CacheID: c.ID, Name: "main", Hash: hash32(7)}, 1), index.ErrNotFound)
		wantErr(t, tx.AddPin(index.Pin{CacheID: c.ID + 1, Name: "main", Hash: hash32(0)}, 1), index.ErrNotFound)
		return nil
	})
	wantPins(t, x, c, on(c, "main", 0, future))
}

func pinsApart(t *testing.T, x index.Index, _ func() index.Index) {
	c := pinned(t, x, 3)
	other := addCache(t, x, "other")
	b, err := x.Blob(t.Context(), blob("b").Digest)
	must(t, err)
	for n := range 3 {
		putPath(t, x, path(other, b, n))
		pin(t, x, c, "main", n, future, 2)
		pin(t, x, other, "main", n, future, 2)
	}
	update(t, x, func(tx index.Tx) error {
		_, err := tx.RemovePins(c.ID, "main", "")
		return err
	})
	wantPins(t, x, c)
	wantPins(t, x, other, on(other, "main", 2, future), on(other, "main", 1, future))
}

func pinOnReplaced(t *testing.T, x index.Index, _ func() index.Index) {
	c := pinned(t, x, 1)
	pin(t, x, c, "main", 0, future, 1)
	b, err := x.Blob(t.Context(), blob("b").Digest)
	must(t, err)
	putPath(t, x, path(c, b, 0, 5))
	wantPins(t, x, c, on(c, "main", 0, future))
}

func pinProtects(t *testing.T, x index.Index, _ func() index.Index) {
	c := pinned(t, x, 5)
	for n, expires := range []time.Time{future, {}, past, time.Now().Add(-2 * time.Second), time.Now().Add(time.Hour)} {
		pin(t, x, c, hash32(n), n, expires, 1)
	}
	removed, _ := removeUnused(t, x, c, 0, 1, 2, 3, 4)
	wantEqual(t, "removed", sorted(removed), hash32s(2, 3))
}

func pinsGoWithPath(t *testing.T, x index.Index, _ func() index.Index) {
	c := pinned(t, x, 4)
	for n := range 4 {
		pin(t, x, c, "expired", n, past, 10)
	}
	pin(t, x, c, "valid", 3, future, 10)
	removed, _ := removeUnused(t, x, c, 0)
	wantEqual(t, "removed", removed, hash32s(0))
	wantPins(t, x, c,
		on(c, "expired", 3, past), on(c, "expired", 2, past), on(c, "expired", 1, past), on(c, "valid", 3, future))
	update(t, x, func(tx index.Tx) error {
		n, err := tx.RemovePaths(c.ID, hash32s(3, 1, 8))
		if n != 2 {
			t.Errorf("%d paths removed, want 2", n)
		}
		return err
	})
	wantPins(t, x, c, on(c, "expired", 2, past))
}

func pinnedTwice(t *testing.T, x index.Index, _ func() index.Index) {
	c := pinned(t, x, 1)
	pin(t, x, c, "expired", 0, past, 1)
	pin(t, x, c, "valid", 0, future, 1)
	if removed, _ := removeUnused(t, x, c, 0); len(removed) != 0 {
		t.Error("a path was removed under a valid pin")
	}
	wantPins(t, x, c, on(c, "expired", 0, past), on(c, "valid", 0, future))
}

func pinRemovedFirst(t *testing.T, x index.Index, _ func() index.Index) {
	c := pinned(t, x, 1)
	pin(t, x, c, "main", 0, future, 1)
	update(t, x, func(tx index.Tx) error {
		_, err := tx.RemovePins(c.ID, "main", hash32(0))
		return err
	})
	removed, _ := removeUnused(t, x, c, 0)
	wantEqual(t, "removed", removed, hash32s(0))
}

func olderRevision(t *testing.T, x index.Index, _ func() index.Index) {
	c := pinned(t, x, 3)
	for n := range 3 {
		pin(t, x, c, "main", n, future, 2)
	}
	removed, _ := removeUnused(t, x, c, 0, 1, 2)
	wantEqual(t, "removed", removed, hash32s(0))
}
