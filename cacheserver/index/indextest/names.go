package indextest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

var names = suite{
	"AnObjectIsANameOverABlob":          objectOverBlob,
	"AnObjectThatIsUsedMovesOn":         touchObject,
	"ObjectsGoByTheirExpiryAndCache":    sweepObjects,
	"ObjectsAreSweptStepByStep":         sweepObjectSteps,
	"AnActionsResultIsReplaced":         actionResult,
	"ActionsOfInstancesAreApart":        actionsApart,
	"ActionsAreSweptByTheirLastUse":     sweepActions,
	"BlobsAreFoundByTheirDigests":       blobsByDigest,
	"AliasesAreFoundByTheirFunction":    aliases,
	"AnAliasLivesAsLongAsItsBlob":       aliasGoes,
	"PathsAreSearchedForPageByPage":     search,
	"TheLatestPathsAreTheNewest":        latest,
	"SamplesAreKeptUntilTheyAreForgone": samples,
}

func putObject(t testing.TB, x index.Index, c index.Cache, name string, b index.Blob, expires time.Time) {
	t.Helper()
	update(t, x, func(tx index.Tx) error {
		return tx.PutObject(index.Object{CacheID: c.ID, Name: name, ContentType: "text/plain", Blob: b, Expires: expires})
	})
}

func objectOverBlob(t *testing.T, x index.Index, reopen func() index.Index) {
	addPack(t, x, "p1", "a", "b")
	c, other := addCache(t, x, "main"), addCache(t, x, "other")
	first, second := addBlob(t, x, "first", "a"), addBlob(t, x, "second", "b")
	name := "log/" + strings.Repeat("a", 508)
	want := index.Object{CacheID: c.ID, Name: name, ContentType: "text/plain", Blob: first}
	check := func() {
		t.Helper()
		update(t, x, func(tx index.Tx) error { return tx.PutObject(want) })
		got, err := reopen().Object(t.Context(), c.ID, name)
		must(t, err)
		if got.Used.Before(past) || got.Used.After(time.Now()) || got.Used.Nanosecond() != 0 {
			t.Errorf("used at %v", got.Used)
		}
		want.Used = got.Used
		wantEqual(t, "the object", got, want)
	}
	check()
	want.ContentType, want.Blob, want.Expires = "", second, future
	check()
	want.Expires = time.Time{}
	check()
	_, err := x.Object(t.Context(), other.ID, name)
	wantErr(t, err, index.ErrNotFound)
	_, err = x.Object(t.Context(), c.ID, name[1:])
	wantErr(t, err, index.ErrNotFound)
	wantErr(t, change(x, func(tx index.Tx) error {
		return tx.PutObject(index.Object{CacheID: c.ID, Name: "x", Blob: index.Blob{ID: second.ID + 100}})
	}), index.ErrNotFound)
}

func touchObject(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c, other := addCache(t, x, "main"), addCache(t, x, "other")
	b := addBlob(t, x, "b", "a")
	for _, in := range []index.Cache{c, other} {
		putObject(t, x, in, "one", b, time.Time{})
		putObject(t, x, in, "two", b, time.Time{})
	}
	used := func(c index.Cache, name string) time.Time {
		o, err := x.Object(t.Context(), c.ID, name)
		must(t, err)
		return o.Used
	}
	start := used(c, "one")
	eventually(t, "an object that is touched was used later", func() bool {
		update(t, x, func(tx index.Tx) error { return tx.TouchObject(c.ID, "one") })
		return used(c, "one").After(start)
	})
	update(t, x, func(tx index.Tx) error { return tx.TouchObject(c.ID, "not there") })
	if used(c, "one").Equal(used(c, "two")) || used(c, "one").Equal(used(other, "one")) {
		t.Error("a touch of one object is one of another")
	}
	eventually(t, "an object that is put again was used later", func() bool {
		putObject(t, x, c, "two", b, time.Time{})
		return !used(c, "two").Before(used(c, "one"))
	})
}

func sweepObjects(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	b := addBlob(t, x, "b", "a")
	var used time.Time
	kept := map[string]time.Duration{"hour": time.Hour, "forever": 0, "global": index.GlobalRetention}
	ids := map[string]int64{}
	for name, retention := range kept {
		c := addCache(t, x, name)
		update(t, x, func(tx index.Tx) error { return tx.SetRetention(c.ID, retention) })
		ids[name] = c.ID
	}
	put := func() {
		for name := range kept {
			c := index.Cache{ID: ids[name]}
			putObject(t, x, c, "lives", b, time.Time{})
			o, err := x.Object(t.Context(), c.ID, "lives")
			must(t, err)
			used = o.Used
			putObject(t, x, c, "expires", b, used.Add(30*time.Minute))
		}
	}
	for _, s := range []struct {
		after, global time.Duration
		gone          string
	}{
		{29 * time.Minute, time.Minute, "global/lives global/expires"},
		{29 * time.Minute, 0, ""},
		{29 * time.Minute, 30 * time.Minute, ""},
		{31 * time.Minute, 0, "hour/expires forever/expires global/expires"},
		{31 * time.Minute, 2 * time.Hour, "hour/expires forever/expires global/expires"},
		{61 * time.Minute, 2 * time.Hour, "hour/lives hour/expires forever/expires global/expires"},
		{1000 * time.Hour, time.Hour, "hour/lives hour/expires forever/expires global/lives global/expires"},
	} {
		put()
		now := used.Add(s.after)
		var swept index.Swept
		update(t, x, func(tx index.Tx) (err error) {
			swept, err = tx.SweepObjects(0, 100, now, s.global)
			return err
		})
		want := strings.Fields(s.gone)
		wantEqual(t, "swept", swept, index.Swept{Removed: int64(len(want)), Bytes: int64(42 * len(want))})
		for name := range kept {
			for _, object := range []string{"lives", "expires"} {
				_, err := x.Object(t.Context(), ids[name], object)
				if there := err == nil; there == slices.Contains(want, name+"/"+object) {
					t.Errorf("%v later, the global retention %v: %s/%s is there: %v (%v)", s.after, s.global, name, object, there, err)
				}
			}
		}
	}
}

func sweepObjectSteps(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	b := addBlob(t, x, "b", "a")
	c := addCache(t, x, "main")
	for limit := 1; limit <= 12; limit++ {
		for i := range 10 {
			expires := past
			if i%5 == 3 {
				expires = time.Time{}
			}
			putObject(t, x, c, fmt.Sprint(i), b, expires)
		}
		steps, sum := sweep(t, func(from int64) (s index.Swept) {
			update(t, x, func(tx index.Tx) (err error) {
				s, err = tx.SweepObjects(from, limit, time.Now(), 0)
				return err
			})
			return s
		})
		wantEqual(t, "swept", sum, index.Swept{Removed: 8, Bytes: 8 * 42})
		if least := (10 + limit - 1) / limit; steps < least || steps > least+1 {
			t.Errorf("%d steps of %d over 10 objects, want %d", steps, limit, least)
		}
	}
}

func action(n int) digest.Hash { return digest.Of(fmt.Append(nil, "action ", n)) }

func putAction(t testing.TB, x index.Index, instance string, n int, result string) {
	t.Helper()
	update(t, x, func(tx index.Tx) error {
		return tx.PutAction(index.Action{Instance: instance, Digest: action(n), Result: []byte(result)})
	})
}

func actionResult(t *testing.T, x index.Index, _ func() index.Index) {
	for _, result := range []string{"first", strings.Repeat("\x00long ", 100_000), ""} {
		putAction(t, x, "main", 1, result)
		got, err := x.Action(t.Context(), "main", action(1))
		must(t, err)
		if string(got.Result) != result || got.Instance != "main" || got.Digest != action(1) {
			t.Errorf("a result of %d bytes: %+.100v", len(result), got)
		}
		if got.Used.Before(past) || got.Used.After(time.Now()) || got.Used.Nanosecond() != 0 {
			t.Errorf("used at %v", got.Used)
		}
	}
	update(t, x, func(tx index.Tx) error {
		return tx.PutAction(index.Action{Instance: "main", Digest: action(1)})
	})
}

func actionsApart(t *testing.T, x index.Index, _ func() index.Index) {
	putAction(t, x, "", 1, "of no instance")
	putAction(t, x, "main", 1, "of main")
	for instance, want := range map[string]string{"": "of no instance", "main": "of main"} {
		got, err := x.Action(t.Context(), instance, action(1))
		must(t, err)
		wantEqual(t, "result", string(got.Result), want)
	}
	for _, err := range []error{
		second(x.Action(t.Context(), "other", action(1))), second(x.Action(t.Context(), "main", action(2))),
	} {
		wantErr(t, err, index.ErrNotFound)
	}
	start, err := x.Action(t.Context(), "main", action(1))
	must(t, err)
	eventually(t, "an action that is touched was used later", func() bool {
		update(t, x, func(tx index.Tx) error { return tx.TouchAction("main", action(1)) })
		got, err := x.Action(t.Context(), "main", action(1))
		must(t, err)
		return got.Used.After(start.Used)
	})
	if got, err := x.Action(t.Context(), "", action(1)); err != nil || got.Used.After(start.Used) {
		t.Errorf("a touch of one instance's action is one of another's: %v, %v", got, err)
	}
	update(t, x, func(tx index.Tx) error { return tx.TouchAction("not there", action(1)) })
}

func second[T any](_ T, err error) error { return err }

func sweepActions(t *testing.T, x index.Index, _ func() index.Index) {
	for limit := 1; limit <= 12; limit++ {
		for n := range 10 {
			putAction(t, x, "main", n, "12345")
		}
		start, err := x.Action(t.Context(), "main", action(0))
		must(t, err)
		for _, c := range []struct {
			before time.Time
			want   int64
		}{{start.Used, 0}, {future, 10}} {
			steps, sum := sweep(t, func(from int64) (s index.Swept) {
				update(t, x, func(tx index.Tx) (err error) {
					s, err = tx.SweepActions(from, limit, c.before)
					return err
				})
				return s
			})
			if c.want == 0 {
				wantEqual(t, "swept", sum, index.Swept{})
				for n := range 10 {
					putAction(t, x, "main", n, "12345")
				}
				continue
			}
			if sum.Removed != c.want || sum.Bytes != 5*sum.Removed || steps > 11 {
				t.Errorf("%d steps of %d: %+v", steps, limit, sum)
			}
		}
		_, err = x.Action(t.Context(), "main", action(9))
		wantErr(t, err, index.ErrNotFound)
	}
}

func blobsByDigest(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	want := map[digest.Digest]index.Blob{}
	var ask []digest.Digest
	for i := range 50 {
		b := addBlob(t, x, fmt.Sprint(i), "a")
		want[b.Digest] = b
		absent := digest.Digest{Hash: digest.Of(fmt.Append(nil, "absent ", i)), Size: 42}
		other := digest.Digest{Hash: b.Hash, Size: b.Size + 1}
		ask = append(ask, b.Digest, absent, other, b.Digest)
	}
	got, err := x.Blobs(t.Context(), ask)
	must(t, err)
	wantEqual(t, "blobs", got, want)
	for d, b := range got {
		if one, err := x.Blob(t.Context(), d); err != nil || one != b || !one.Expires.Equal(past) {
			t.Errorf("Blob = %+v, %v; Blobs has %+v", one, err, b)
		}
	}
	none, err := x.Blobs(t.Context(), nil)
	must(t, err)
	wantEqual(t, "of none", len(none), 0)
}

func aliases(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	one, two := addBlob(t, x, "one", "a"), addBlob(t, x, "two", "a")
	named := func(n int, size int64) digest.Digest {
		return digest.Digest{Hash: digest.Of(fmt.Append(nil, "alias ", n)), Size: size}
	}
	put := func(function string, d digest.Digest, b index.Blob) {
		update(t, x, func(tx index.Tx) error { return tx.PutAlias(function, d, b.ID) })
	}
	put("blake3", named(1, 42), one)
	put("blake3", named(1, 0), one)
	put("blake3", named(2, 42), two)
	put("sha1", named(1, 42), two)
	for range 2 {
		put("sha1", named(3, 42), one)
	}
	ask := []digest.Digest{named(1, 42), named(1, 0), named(1, 7), named(2, 42), named(2, 0), named(3, 42), named(1, 42)}
	for function, want := range map[string]map[digest.Digest]index.Blob{
		"blake3": {named(1, 42): one, named(1, 0): one, named(2, 42): two},
		"sha1":   {named(1, 42): two, named(3, 42): one},
		"md5":    {},
	} {
		got, err := x.Aliases(t.Context(), function, ask)
		must(t, err)
		wantEqual(t, function, got, want)
	}
	put("blake3", named(1, 42), two) // the last one counts
	got, err := x.Aliases(t.Context(), "blake3", ask[:1])
	must(t, err)
	wantEqual(t, "recorded again", got, map[digest.Digest]index.Blob{named(1, 42): two})
	got, err = x.Aliases(t.Context(), "blake3", nil)
	must(t, err)
	wantEqual(t, "of none", len(got), 0)
	wantErr(t, change(x, func(tx index.Tx) error { return tx.PutAlias("blake3", named(4, 42), two.ID+100) }), index.ErrNotFound)
}

func aliasGoes(t *testing.T, x index.Index, _ func() index.Index) {
	for name, remove := range map[string]func(tx index.Tx) error{
		"SweepBlobs": func(tx index.Tx) error { _, err := tx.SweepBlobs(0, 10, future); return err },
		"DropChunks": func(tx index.Tx) error { _, err := tx.DropChunks(hashes("a")); return err },
	} {
		addPack(t, x, name, "a")
		b := addBlob(t, x, "b", "a")
		d := digest.Digest{Hash: digest.Of([]byte("alias")), Size: 42}
		update(t, x, func(tx index.Tx) error { return tx.PutAlias("blake3", d, b.ID) })
		update(t, x, remove)
		_, err := x.Blob(t.Context(), b.Digest)
		wantErr(t, err, index.ErrNotFound)
		got, err := x.Aliases(t.Context(), "blake3", []digest.Digest{d})
		must(t, err)
		wantEqual(t, "aliases after "+name, len(got), 0)
	}
}

func search(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c, other := addCache(t, x, "main"), addCache(t, x, "other")
	b := addBlob(t, x, "b", "a")
	paths := map[int]string{10: "Hello-2.12", 11: "hello-2.10", 12: "say-HELLO", 13: "50%_off", 14: "zlib", 15: "zlib", 20: "gcc", 21: `back\slash`}
	var all []index.PathName
	for n, name := range paths {
		p := path(c, b, n)
		p.Name = name
		putPath(t, x, p)
		all = append(all, index.PathName{CacheID: c.ID, Hash: hash32(n), Name: name})
	}
	putPath(t, x, path(other, b, 30))
	slices.SortFunc(all, func(a, b index.PathName) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Hash, b.Hash)
	})
	for query, want := range map[string]string{
		"":                "50%_off Hello-2.12 back\\slash gcc hello-2.10 say-HELLO zlib zlib",
		"hello":           "Hello-2.12 hello-2.10 say-HELLO",
		"HELLO-2":         "Hello-2.12 hello-2.10",
		"%":               "50%_off",
		"_":               "50%_off",
		`\`:               `back\slash`,
		"gcc":             "gcc",
		hash32(14):        "zlib",
		hash32(10)[:31]:   "Hello-2.12 hello-2.10 say-HELLO 50%_off zlib zlib",
		hash32(14) + "-z": "",
		"2$":              "",
	} {
		var expected []index.PathName
		for _, p := range all {
			if slices.Contains(strings.Fields(want), p.Name) {
				expected = append(expected, p)
			}
		}
		if query == hash32(14) {
			expected = expected[:1]
		}
		for _, limit := range []int{1, 2, 3, 100} {
			var got []index.PathName
			for after := (index.PathName{}); ; {
				page, err := x.Search(t.Context(), c.ID, query, after, limit)
				must(t, err)
				got = append(got, page...)
				if len(page) > limit {
					t.Errorf("a page of %d, the limit is %d", len(page), limit)
				}
				if len(page) < limit {
					break
				}
				after = page[len(page)-1]
			}
			wantEqual(t, fmt.Sprintf("%q, %d at a time", query, limit), got, expected)
		}
	}
}

func latest(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "b")
	c, other := addCache(t, x, "main"), addCache(t, x, "other")
	for n := range 10 {
		b := addBlob(t, x, fmt.Sprint(n), []string{"a", "b"}[n%2])
		p := path(c, b, n)
		for ref := range n % 4 {
			p.References = append(p.References, hash32(ref)+"-name")
		}
		p.Signatures = []string{fmt.Sprint("key:", n)}
		putPath(t, x, p)
		putPath(t, x, path(other, b, 100+n))
	}
	b := addBlob(t, x, "another", "a")
	putPath(t, x, path(c, b, 3, 1)) // it is no newer for that
	for _, limit := range []int{0, 1, 5, 10, 20} {
		var want []index.Path
		for n := 9; n >= max(0, 10-limit); n-- {
			p, err := x.Path(t.Context(), c.ID, hash32(n))
			must(t, err)
			want = append(want, p)
		}
		got, err := x.Latest(t.Context(), c.ID, limit)
		must(t, err)
		wantEqual(t, fmt.Sprint("the latest ", limit), got, want)
	}
}

func samples(t *testing.T, x index.Index, _ func() index.Index) {
	at := func(seconds int64) time.Time { return time.Unix(1_700_000_000+seconds, 0) }
	add := func(name string, seconds int64, value float64, forget time.Time) {
		update(t, x, func(tx index.Tx) error {
			return tx.AddSample(name, index.Sample{At: at(seconds), Value: value}, forget)
		})
	}
	check := func(name string, since time.Time, want ...index.Sample) {
		t.Helper()
		got, err := x.Samples(t.Context(), name, since)
		must(t, err)
		wantEqual(t, name, got, append([]index.Sample(nil), want...))
	}
	add("bytes", 20, 2.5, time.Time{})
	add("bytes", 10, -1e300, time.Time{})
	add("bytes", 30, 0, time.Time{})
	add("paths", 10, 7, time.Time{})
	check("bytes", time.Time{}, index.Sample{At: at(10), Value: -1e300}, index.Sample{At: at(20), Value: 2.5}, index.Sample{At: at(30)})
	check("bytes", at(20), index.Sample{At: at(20), Value: 2.5}, index.Sample{At: at(30)})
	check("none", time.Time{})
	add("bytes", 30, 9, at(20)) // in place of the other
	check("bytes", time.Time{}, index.Sample{At: at(20), Value: 2.5}, index.Sample{At: at(30), Value: 9})
	check("paths", time.Time{}, index.Sample{At: at(10), Value: 7})
	add("bytes", 40, 1, at(41)) // itself, too
	check("bytes", time.Time{})
}
