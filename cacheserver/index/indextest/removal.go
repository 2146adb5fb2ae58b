package indextest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

var removal = suite{
	"APathThatIsReferredToStays":            referredStays,
	"APathThatIsInUseStays":                 usedStays,
	"RemovingTellsWhatMayGoNext":            removalReferences,
	"ManyUnusedPathsAreRemovedAtOnce":       removeMany,
	"RemovePathsAsksNobody":                 removePaths,
	"ABlobLivesUntilItExpires":              blobExpires,
	"ABlobWithANameIsNotSwept":              namedBlobStays,
	"BlobsAreSweptStepByStep":               sweepBlobs,
	"AChunkOfABlobIsNotSwept":               blobsChunkStays,
	"ChunksAreSweptStepByStep":              sweepChunks,
	"LostChunksTakeTheirBlobsAndPathsAlong": dropChunks,
	"AChunkThatIsStoredAgainIsFound":        storedAgain,
	"AHugeBlobIsRemovedWhole":               hugeBlob,
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

func referredStays(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addBlob(t, x, "b", "a")
	putPath(t, x, path(c, b, 1, 1)) // to itself
	putPath(t, x, path(c, b, 2, 1))
	putPath(t, x, path(c, b, 3, 4)) // before there is 4
	putPath(t, x, path(c, b, 4))
	for range 2 {
		if removed, references := removeUnused(t, x, c, 1, 4, 9); len(removed)+len(references) != 0 {
			t.Errorf("removed %v, which are referred to; references %v", removed, references)
		}
	}
	// A replaced path no longer refers to it.
	putPath(t, x, path(c, b, 3, 1))
	removed, _ := removeUnused(t, x, c, 4)
	wantEqual(t, "removed", removed, hash32s(4))
	removed, _ = removeUnused(t, x, c, 2, 3)
	wantEqual(t, "removed", sorted(removed), hash32s(2, 3))
	removed, _ = removeUnused(t, x, c, 1)
	wantEqual(t, "removed", removed, hash32s(1))
}

func usedStays(t *testing.T, x index.Index, _ func() index.Index) {
	c := pinned(t, x, 2)
	p, err := x.Path(t.Context(), c.ID, hash32(0))
	must(t, err)
	for _, before := range []time.Time{past, p.Used} {
		update(t, x, func(tx index.Tx) error {
			removed, _, err := tx.RemoveUnused(c.ID, hash32s(0), before)
			if len(removed) != 0 {
				t.Errorf("used at %v, it was removed as not used since %v", p.Used, before)
			}
			return err
		})
	}
	update(t, x, func(tx index.Tx) error {
		removed, _, err := tx.RemoveUnused(c.ID, hash32s(0), p.Used.Add(time.Second))
		wantEqual(t, "removed", removed, hash32s(0))
		return err
	})
	if holds(t, x, c, 0) || !holds(t, x, c, 1) {
		t.Error("not the path that was named is gone")
	}
}

func removalReferences(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c, other := addCache(t, x, "main"), addCache(t, x, "other")
	b := addBlob(t, x, "b", "a")
	for n := range 4 {
		putPath(t, x, path(c, b, n))
	}
	putPath(t, x, path(other, b, 8))
	putPath(t, x, path(c, b, 5, 0, 1, 2, 5, 8, 9))
	putPath(t, x, path(c, b, 6, 1, 2, 3))
	putPath(t, x, path(c, b, 7, 0))
	removed, references := removeUnused(t, x, c, 5, 6)
	wantEqual(t, "removed", sorted(removed), hash32s(5, 6))
	wantEqual(t, "references", sorted(references), hash32s(0, 1, 2, 3))
	removed, references = removeUnused(t, x, c, 0, 1, 2, 3)
	wantEqual(t, "removed", sorted(removed), hash32s(1, 2, 3))
	wantEqual(t, "references", len(references), 0)
	if !holds(t, x, c, 0) || !holds(t, x, c, 7) || !holds(t, x, other, 8) {
		t.Error("a path is gone that was in use")
	}
}

func removeMany(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addBlob(t, x, "b", "a")
	const n = 500
	var tops, leaves []int
	update(t, x, func(tx index.Tx) error {
		for i := range n {
			if _, err := tx.PutPath(path(c, b, i, n+i, 2*n)); err != nil {
				return err
			}
			if _, err := tx.PutPath(path(c, b, n+i)); err != nil {
				return err
			}
			tops, leaves = append(tops, i), append(leaves, n+i)
		}
		return nil
	})
	if removed, _ := removeUnused(t, x, c, leaves...); len(removed) != 0 {
		t.Errorf("%d paths were removed that are referred to", len(removed))
	}
	removed, references := removeUnused(t, x, c, tops...)
	wantEqual(t, "removed", sorted(removed), hash32s(tops...))
	wantEqual(t, "references", sorted(references), hash32s(leaves...))
	removed, _ = removeUnused(t, x, c, leaves...)
	wantEqual(t, "removed", sorted(removed), hash32s(leaves...))
}

func removePaths(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c, other := addCache(t, x, "main"), addCache(t, x, "other")
	b := addBlob(t, x, "b", "a")
	putPath(t, x, path(c, b, 1))
	putPath(t, x, path(c, b, 2, 1))
	putPath(t, x, path(other, b, 1))
	pin(t, x, c, "main", 1, time.Time{}, 1)
	update(t, x, func(tx index.Tx) error {
		n, err := tx.RemovePaths(c.ID, hash32s(1, 9, 1))
		wantEqual(t, "removed", n, 1)
		return err
	})
	if holds(t, x, c, 1) || !holds(t, x, c, 2) || !holds(t, x, other, 1) {
		t.Error("not the path that was named is gone")
	}
	wantEqual(t, "absent when it is put again", putPath(t, x, path(c, b, 2, 1)), []string{hash32(1) + "-name"})
}

func sweepBlobsOnce(t testing.TB, x index.Index, now time.Time) (s index.Swept) {
	t.Helper()
	update(t, x, func(tx index.Tx) (err error) {
		s, err = tx.SweepBlobs(0, 1000, now)
		return err
	})
	return s
}

func sweepChunksOnce(t testing.TB, x index.Index, before time.Time) (s index.Swept) {
	t.Helper()
	update(t, x, func(tx index.Tx) (err error) {
		s, err = tx.SweepChunks(0, 1000, before)
		return err
	})
	return s
}

func blobExpires(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	at := time.Unix(2_000_000_000, 0)
	add := func(expires time.Time) {
		update(t, x, func(tx index.Tx) error {
			_, err := tx.AddBlob(blob("b"), chunks("a"), expires)
			return err
		})
	}
	add(past)
	add(at)
	add(at.Add(-time.Hour)) // it lives until at, at least
	wantEqual(t, "swept at its expiry", sweepBlobsOnce(t, x, at), index.Swept{})
	wantEqual(t, "swept after it", sweepBlobsOnce(t, x, at.Add(time.Second)), index.Swept{Removed: 1, Bytes: 42})
	_, err := x.Blob(t.Context(), blob("b").Digest)
	wantErr(t, err, index.ErrNotFound)
}

func namedBlobStays(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addBlob(t, x, "b", "a")
	putPath(t, x, path(c, b, 1))
	putPath(t, x, path(c, b, 2))
	for n := 1; n <= 2; n++ {
		wantEqual(t, "swept", sweepBlobsOnce(t, x, future), index.Swept{})
		removeUnused(t, x, c, n)
	}
	wantEqual(t, "swept without a name", sweepBlobsOnce(t, x, future), index.Swept{Removed: 1, Bytes: 42})
	wantEqual(t, "its chunk is swept", sweepChunksOnce(t, x, future), index.Swept{Removed: 1, Bytes: 1})
}

// sweep goes on to the end and counts its steps.
func sweep(t testing.TB, step func(from int64) index.Swept) (steps int, sum index.Swept) {
	t.Helper()
	for from := int64(0); ; {
		s := step(from)
		steps++
		sum.Removed += s.Removed
		sum.Bytes += s.Bytes
		if s.Next == 0 {
			return steps, sum
		}
		if s.Next <= from {
			t.Fatalf("a step from %d leads to %d", from, s.Next)
		}
		from = s.Next
	}
}

func sweepBlobs(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "bb")
	c := addCache(t, x, "main")
	for limit := 1; limit <= 12; limit++ {
		for i := range 10 {
			b := addBlob(t, x, fmt.Sprint(i), "a", "bb", "a")
			if i%5 == 3 {
				putPath(t, x, path(c, b, i))
			}
		}
		steps, sum := sweep(t, func(from int64) (s index.Swept) {
			update(t, x, func(tx index.Tx) (err error) {
				s, err = tx.SweepBlobs(from, limit, future)
				return err
			})
			if s.Removed > int64(limit) {
				t.Errorf("a step of %d removed %d", limit, s.Removed)
			}
			return s
		})
		wantEqual(t, "swept", sum, index.Swept{Removed: 8, Bytes: 8 * 42})
		if least := (10 + limit - 1) / limit; steps < least || steps > least+1 {
			t.Errorf("%d steps of %d over 10 blobs, want %d", steps, limit, least)
		}
		for i := range 10 {
			_, err := x.Blob(t.Context(), blob(fmt.Sprint(i)).Digest)
			if i%5 == 3 {
				must(t, err)
			} else {
				wantErr(t, err, index.ErrNotFound)
			}
		}
	}
}

func blobsChunkStays(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "bb", "ccc")
	addBlob(t, x, "one", "a", "bb")
	update(t, x, func(tx index.Tx) error {
		_, err := tx.AddBlob(blob("two"), chunks("bb"), future.Add(time.Hour))
		return err
	})
	wantEqual(t, "swept before", sweepChunksOnce(t, x, past), index.Swept{})
	wantEqual(t, "swept", sweepChunksOnce(t, x, future), index.Swept{Removed: 1, Bytes: 3})
	wantEqual(t, "blobs swept", sweepBlobsOnce(t, x, future), index.Swept{Removed: 1, Bytes: 42})
	wantEqual(t, "swept", sweepChunksOnce(t, x, future), index.Swept{Removed: 1, Bytes: 1})
	wantEqual(t, "places", where(t, x, "a", "bb", "ccc"), map[string]index.Location{"bb": place("bb", "p1", 9)})
	wantDead(t, x, map[string]int64{"p1": 4})
}

func sweepChunks(t *testing.T, x index.Index, _ func() index.Index) {
	names := numbered("c", 10)
	for limit := 1; limit <= 12; limit++ {
		p := fmt.Sprintf("p%02d", limit)
		addPack(t, x, p, names...)
		addBlob(t, x, "b", names[3], names[8])
		steps, sum := sweep(t, func(from int64) (s index.Swept) {
			update(t, x, func(tx index.Tx) (err error) {
				s, err = tx.SweepChunks(from, limit, future)
				return err
			})
			if s.Removed > int64(limit) {
				t.Errorf("a step of %d removed %d", limit, s.Removed)
			}
			return s
		})
		wantEqual(t, "swept", sum, index.Swept{Removed: 8, Bytes: 8 * 7})
		if least := (10 + limit - 1) / limit; steps < least || steps > least+1 {
			t.Errorf("%d steps of %d over 10 chunks, want %d", steps, limit, least)
		}
		if got := where(t, x, names...); len(got) != 2 {
			t.Errorf("%d chunks are left, want 2", len(got))
		}
		want := map[string]int64{"p01": 8 * 7}
		for i := 2; i <= limit; i++ {
			want[fmt.Sprintf("p%02d", i)] = 10 * 7
		}
		wantDead(t, x, want)
	}
}

func dropChunks(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "bb")
	addPack(t, x, "p2", "ccc", "dddd", "a")
	c, other := addCache(t, x, "main"), addCache(t, x, "other")
	hit, spared := addBlob(t, x, "hit", "a", "bb", "ccc", "a"), addBlob(t, x, "spared", "bb", "dddd")
	addBlob(t, x, "hit without a name", "ccc")
	putPath(t, x, path(c, hit, 1))
	putPath(t, x, path(c, hit, 2, 1))
	putPath(t, x, path(c, spared, 3, 1, 2))
	putPath(t, x, path(other, hit, 1))
	pin(t, x, c, "main", 1, time.Time{}, 1)
	pin(t, x, c, "main", 3, time.Time{}, 2)
	var lost []index.PathName
	update(t, x, func(tx index.Tx) (err error) {
		lost, err = tx.DropChunks(hashes("a", "ccc", "never stored", "a"))
		return err
	})
	var names []string
	for _, p := range lost {
		names = append(names, fmt.Sprint(p.CacheID == c.ID, " ", p))
	}
	wantEqual(t, "lost", sorted(names), []string{
		"false " + hash32(1) + "-name", "true " + hash32(1) + "-name", "true " + hash32(2) + "-name",
	})
	if holds(t, x, c, 1) || holds(t, x, c, 2) || holds(t, x, other, 1) || !holds(t, x, c, 3) {
		t.Error("not the paths over the lost chunks are gone")
	}
	for name, want := range map[string]error{"hit": index.ErrNotFound, "hit without a name": index.ErrNotFound, "spared": nil} {
		if _, err := x.Blob(t.Context(), blob(name).Digest); want == nil {
			must(t, err)
		} else {
			wantErr(t, err, want)
		}
	}
	wantPins(t, x, c, on(c, "main", 3, time.Time{}))
	wantEqual(t, "places", where(t, x, "a", "bb", "ccc", "dddd"), map[string]index.Location{
		"bb": place("bb", "p1", 9), "dddd": place("dddd", "p2", 11),
	})
	wantDead(t, x, map[string]int64{"p1": 1, "p2": 3 + 1})
}

func storedAgain(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "bb")
	sweepChunksOnce(t, x, future)
	addPack(t, x, "p2", "bb", "a")
	wantEqual(t, "places", where(t, x, "a", "bb"), map[string]index.Location{
		"a": place("a", "p2", 10), "bb": place("bb", "p2", 8),
	})
	wantDead(t, x, map[string]int64{"p1": 3, "p2": 0})
	addBlob(t, x, "b", "a", "bb")
}

func hugeBlob(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "bb")
	list := make([]string, many)
	for i := range list {
		list[i] = []string{"a", "bb"}[i%2]
	}
	addBlob(t, x, "huge", list...)
	wantEqual(t, "swept", sweepBlobsOnce(t, x, future), index.Swept{Removed: 1, Bytes: 42})
	wantEqual(t, "chunks swept", sweepChunksOnce(t, x, future), index.Swept{Removed: 2, Bytes: 3})
}
