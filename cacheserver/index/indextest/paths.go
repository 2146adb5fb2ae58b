package indextest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

var paths = suite{
	"PathIsANameOverABlob":               pathOverBlob,
	"CachesAreApart":                     cachesApart,
	"CachesAreListedByName":              listCaches,
	"RetentionIsChanged":                 retention,
	"MissingPathsOfManyHashes":           missingPaths,
	"PathsThatWereNotUsedForLongAreTold": stalePaths,
	"AbsentReferencesAreTold":            absentReferences,
	"ReferrersFollowEachReplacement":     referrers,
	"AUseMovesThePathOn":                 touchPaths,
	"PathsByTheirUsePageByPage":          pathsByUse,
	"PathsWithAChunk":                    pathsWith,
}

// eventually tries until try succeeds: the times in the index are whole seconds.
func eventually(t testing.TB, what string, try func() bool) {
	t.Helper()
	for start := time.Now(); !try(); time.Sleep(50 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatalf("after a minute it is still not so that %s", what)
		}
	}
}

func pathOverBlob(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "b")
	c := addCache(t, x, "main")
	first, second := addBlob(t, x, "first", "a"), addBlob(t, x, "second", "b")
	want := path(c, first, 1, 0, 1)
	want.Deriver, want.Signatures, want.CA = hash32(9)+"-name.drv", []string{"a:b", "c:d"}, "fixed:r:sha256:x"
	want.PushedBy, want.BuildTime = "ci@example.org", 90*time.Second+time.Nanosecond
	putPath(t, x, want)
	var created time.Time
	check := func() {
		t.Helper()
		got, err := x.Path(t.Context(), c.ID, want.Hash)
		must(t, err)
		for _, at := range []time.Time{got.Created, got.Used} {
			if at.Before(past) || at.After(time.Now()) || at.Nanosecond() != 0 {
				t.Errorf("created at %v, used at %v", got.Created, got.Used)
			}
		}
		if created.IsZero() {
			created = got.Created
		}
		if !got.Created.Equal(created) {
			t.Errorf("it was created at %v, then at %v", created, got.Created)
		}
		want.Created, want.Used = got.Created, got.Used
		wantEqual(t, "the path", got, want)
	}
	check()
	want.Name, want.NAR, want.References, want.Deriver, want.Signatures, want.CA = "other", second, nil, "", nil, ""
	known := want.BuildTime
	want.PushedBy, want.BuildTime = "", 0
	putPath(t, x, want)
	want.BuildTime = known
	check()
	want.BuildTime = time.Minute
	putPath(t, x, want)
	check()
	_, err := x.NAR(t.Context(), c.ID, first.Hash)
	wantErr(t, err, index.ErrNotFound)
	if got, err := x.NAR(t.Context(), c.ID, second.Hash); got != second || err != nil {
		t.Errorf("NAR = %+v, %v", got, err)
	}
}

func cachesApart(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	one, two := addCache(t, x, "one"), addCache(t, x, "two")
	b := addBlob(t, x, "b", "a")
	putPath(t, x, path(one, b, 1))
	putPath(t, x, path(two, b, 2, 1))
	if holds(t, x, two, 1) || holds(t, x, one, 2) {
		t.Error("a path is in both caches")
	}
	missing, stale, err := x.MissingPaths(t.Context(), two.ID, hash32s(1, 2), past)
	must(t, err)
	wantEqual(t, "missing", missing, hash32s(1))
	wantEqual(t, "stale", len(stale), 0)
	if got, err := x.Referrers(t.Context(), one.ID, hash32(1)); len(got) != 0 || err != nil {
		t.Errorf("another cache's path refers to it: %v, %v", got, err)
	}
	update(t, x, func(tx index.Tx) error {
		wantErr(t, tx.AddPin(index.Pin{CacheID: two.ID, Name: "pin", Hash: hash32(1)}, 1), index.ErrNotFound)
		return nil
	})
	update(t, x, func(tx index.Tx) error {
		removed, references, err := tx.RemoveUnused(two.ID, hash32s(1, 2), index.WheneverUsed())
		wantEqual(t, "removed", removed, hash32s(2))
		wantEqual(t, "references", len(references), 0)
		return err
	})
	if !holds(t, x, one, 1) || holds(t, x, two, 2) {
		t.Error("a path was removed from the other cache")
	}
	_, err = x.NAR(t.Context(), two.ID, b.Hash)
	wantErr(t, err, index.ErrNotFound)
	if got, err := x.NAR(t.Context(), one.ID, b.Hash); got != b || err != nil {
		t.Errorf("NAR = %+v, %v", got, err)
	}
}

func listCaches(t *testing.T, x index.Index, _ func() index.Index) {
	want := []index.Cache{addCache(t, x, "two"), addCache(t, x, "one"), addCache(t, x, "three")}
	for _, w := range want {
		got, err := x.Cache(t.Context(), w.Name)
		must(t, err)
		wantEqual(t, "cache", got, w)
	}
	slices.SortFunc(want, func(a, b index.Cache) int { return strings.Compare(a.Name, b.Name) })
	got, err := x.Caches(t.Context())
	must(t, err)
	wantEqual(t, "caches", got, want)
	err = x.Update(t.Context(), func(tx index.Tx) error {
		_, err := tx.AddCache(index.Cache{Name: "one"})
		return err
	})
	wantErr(t, err, index.ErrExists)
	// A change may go on after that.
	update(t, x, func(tx index.Tx) error {
		_, err := tx.AddCache(index.Cache{Name: "two"})
		wantErr(t, err, index.ErrExists)
		_, err = tx.AddCache(index.Cache{Name: "four"})
		return err
	})
	if c, err := x.Cache(t.Context(), "four"); c.Retention != 0 || err != nil {
		t.Errorf("a cache that keeps paths for ever: %+v, %v", c, err)
	}
}

func retention(t *testing.T, x index.Index, _ func() index.Index) {
	one, two := addCache(t, x, "one"), addCache(t, x, "two")
	for _, r := range []time.Duration{time.Second, 0, index.GlobalRetention, 1000 * 24 * time.Hour} {
		update(t, x, func(tx index.Tx) error { return tx.SetRetention(one.ID, r) })
		one.Retention = r
		got, err := x.Caches(t.Context())
		must(t, err)
		wantEqual(t, "caches", got, []index.Cache{one, two})
	}
}

func missingPaths(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addBlob(t, x, "b", "a")
	var ask, want, held []string
	for i := range 100_000 {
		ask = append(ask, hash32(i))
		if i%20_000 == 7 {
			putPath(t, x, path(c, b, i))
			held = append(held, hash32(i))
		} else {
			want = append(want, hash32(i))
		}
	}
	slices.Reverse(ask)
	slices.Reverse(want)
	ask = append(ask, ask[:100]...)
	for before, wantStale := range map[time.Time][]string{past: nil, future: held} {
		got, stale, err := x.MissingPaths(t.Context(), c.ID, ask, before)
		must(t, err)
		if !slices.Equal(got, want) {
			t.Errorf("%d missing, want %d, each once and in order", len(got), len(want))
		}
		slices.Sort(stale)
		wantEqual(t, "stale", stale, wantStale)
	}
	missing, stale, err := x.MissingPaths(t.Context(), c.ID, nil, future)
	if len(missing)+len(stale) != 0 || err != nil {
		t.Errorf("of none: %v, %v, %v", missing, stale, err)
	}
}

func stalePaths(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addBlob(t, x, "b", "a")
	putPath(t, x, path(c, b, 1))
	p, err := x.Path(t.Context(), c.ID, hash32(1))
	must(t, err)
	for before, want := range map[time.Time]int{p.Used: 0, p.Used.Add(time.Second): 1} {
		missing, stale, err := x.MissingPaths(t.Context(), c.ID, hash32s(1, 2), before)
		must(t, err)
		wantEqual(t, "missing", missing, hash32s(2))
		if len(stale) != want {
			t.Errorf("last used at %v, %d of it are stale before %v, want %d", p.Used, len(stale), before, want)
		}
	}
}

func absentReferences(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c, other := addCache(t, x, "main"), addCache(t, x, "other")
	b := addBlob(t, x, "b", "a")
	putPath(t, x, path(other, b, 3))
	putPath(t, x, path(c, b, 2))
	wantEqual(t, "absent", putPath(t, x, path(c, b, 5, 2, 3, 4, 5)), []string{hash32(3) + "-name", hash32(4) + "-name"})
	putPath(t, x, path(c, b, 3))
	putPath(t, x, path(c, b, 4))
	wantEqual(t, "absent", len(putPath(t, x, path(c, b, 5, 2, 3, 4, 5))), 0)
	wantEqual(t, "absent of none", len(putPath(t, x, path(c, b, 6))), 0)
}

func referrers(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addBlob(t, x, "b", "a")
	check := func(of int, want ...int) {
		t.Helper()
		got, err := x.Referrers(t.Context(), c.ID, hash32(of))
		must(t, err)
		var names []index.PathName
		for _, n := range want {
			names = append(names, index.PathName{CacheID: c.ID, Hash: hash32(n), Name: "name"})
		}
		wantEqual(t, "referrers of "+hash32(of), got, names)
	}
	putPath(t, x, path(c, b, 3, 1, 2, 3))
	check(1, 3) // which the cache does not hold
	putPath(t, x, path(c, b, 1))
	putPath(t, x, path(c, b, 2, 1, 2))
	check(1, 2, 3)
	check(2, 3)
	check(3)
	putPath(t, x, path(c, b, 3, 2, 3))
	check(1, 2)
	check(2, 3)
	update(t, x, func(tx index.Tx) error {
		_, err := tx.RemovePaths(c.ID, hash32s(1, 3))
		return err
	})
	check(1, 2) // although it is gone
	check(2)
	putPath(t, x, path(c, b, 2))
	check(1)
}

func touchPaths(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "b")
	c, other := addCache(t, x, "main"), addCache(t, x, "other")
	one, two := addBlob(t, x, "one", "a"), addBlob(t, x, "two", "b")
	for _, p := range []index.Path{path(c, one, 1), path(c, one, 2), path(c, two, 3), path(other, one, 1)} {
		putPath(t, x, p)
	}
	used := func(c index.Cache, n int) time.Time {
		p, err := x.Path(t.Context(), c.ID, hash32(n))
		must(t, err)
		return p.Used
	}
	start := used(c, 3)
	eventually(t, "a path that is touched was used later", func() bool {
		update(t, x, func(tx index.Tx) error { return tx.TouchPaths(c.ID, hash32s(1, 9, 1)) })
		return used(c, 1).After(start)
	})
	if used(c, 2).After(start) || used(c, 3).After(start) || used(other, 1).After(start) {
		t.Error("a touch of one path is one of another")
	}
	eventually(t, "the paths over a NAR that is touched were used later", func() bool {
		update(t, x, func(tx index.Tx) error { return tx.TouchNAR(c.ID, one.Hash) })
		return used(c, 2).After(start)
	})
	if used(c, 3).After(start) || used(other, 1).After(start) {
		t.Error("a touch of a NAR is one of another's or another cache's paths")
	}
	eventually(t, "a path that is put again was used later", func() bool {
		putPath(t, x, path(c, two, 3))
		return used(c, 3).After(start)
	})
}

func pathsByUse(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "b")
	c, other := addCache(t, x, "main"), addCache(t, x, "other")
	b := addBlob(t, x, "b", "a")
	putPath(t, x, path(other, b, 50))
	var all []index.UsedPath
	put := func(from, to int) {
		update(t, x, func(tx index.Tx) error {
			for n := from; n < to; n++ {
				if _, err := tx.PutPath(path(c, b, n*13%40)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	put(0, 20)
	first, err := x.Path(t.Context(), c.ID, hash32(0))
	must(t, err)
	eventually(t, "paths of a later use are there", func() bool {
		put(20, 40)
		p, err := x.Path(t.Context(), c.ID, hash32(20*13%40))
		must(t, err)
		return p.Used.After(first.Used)
	})
	var newest time.Time
	for n := range 40 {
		p, err := x.Path(t.Context(), c.ID, hash32(n))
		must(t, err)
		all = append(all, index.UsedPath{
			PathName: index.PathName{CacheID: c.ID, Hash: p.Hash, Name: p.Name},
			Used:     p.Used.UTC(), NARSize: b.Size, FileSize: b.FileSize,
		})
		if p.Used.After(newest) {
			newest = p.Used
		}
	}
	slices.SortFunc(all, func(a, b index.UsedPath) int {
		if d := a.Used.Compare(b.Used); d != 0 {
			return d
		}
		return strings.Compare(a.Hash, b.Hash)
	})
	for _, before := range []time.Time{future, newest, first.Used} {
		var want []index.UsedPath
		for _, p := range all {
			if p.Used.Before(before) {
				want = append(want, p)
			}
		}
		for _, limit := range []int{1, 7, 20, 40, 100} {
			var got []index.UsedPath
			for after := (index.UsedPath{}); ; {
				page, err := x.PathsByUse(t.Context(), c.ID, before, after, limit)
				must(t, err)
				for _, p := range page {
					p.Used = p.Used.UTC()
					got = append(got, p)
				}
				if len(page) > limit {
					t.Errorf("a page of %d, the limit is %d", len(page), limit)
				}
				if len(page) < limit {
					break
				}
				after = page[len(page)-1]
			}
			wantEqual(t, "by use", got, want)
		}
	}
}

func pathsWith(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "b", "c", "unnamed")
	c, other := addCache(t, x, "main"), addCache(t, x, "other")
	ab, bc := addBlob(t, x, "ab", "a", "b", "a"), addBlob(t, x, "bc", "b", "c")
	addBlob(t, x, "without a name", "unnamed")
	putPath(t, x, path(c, ab, 1))
	putPath(t, x, path(c, ab, 2))
	putPath(t, x, path(c, bc, 3))
	putPath(t, x, path(other, ab, 1))
	name := func(c index.Cache, n int) index.PathName {
		return index.PathName{CacheID: c.ID, Hash: hash32(n), Name: "name"}
	}
	for _, q := range []struct {
		chunks []string
		want   []index.PathName
	}{
		{[]string{"a"}, []index.PathName{name(c, 1), name(c, 2), name(other, 1)}},
		{[]string{"c"}, []index.PathName{name(c, 3)}},
		{[]string{"a", "b", "c", "b"}, []index.PathName{name(c, 1), name(c, 2), name(c, 3), name(other, 1)}},
		{[]string{"unnamed", "never stored"}, nil},
		{nil, nil},
	} {
		got, err := x.PathsWith(t.Context(), hashes(q.chunks...))
		must(t, err)
		slices.SortFunc(got, func(a, b index.PathName) int {
			if a.CacheID != b.CacheID {
				return int(a.CacheID - b.CacheID)
			}
			return strings.Compare(a.Hash, b.Hash)
		})
		wantEqual(t, strings.Join(q.chunks, ", "), got, q.want)
	}
}
