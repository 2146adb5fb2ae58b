package indextest

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// In these tests random changes are made to an index and to a few maps, which
// must then say the same. All runs of one test share an index.
var models = suite{
	"PathsAgainstAModel":   modelPaths,
	"StorageAgainstAModel": modelStorage,
}

// A step is one call in a change. As a change may be run again, the model is
// asked and changed by check, after the change is through.
type step struct {
	do    func(tx index.Tx) error
	check func()
}

type steps []step

// change makes steps in one change, then checks them.
func (s steps) change(t testing.TB, x index.Index) {
	update(t, x, func(tx index.Tx) error {
		for _, s := range s {
			if err := s.do(tx); err != nil {
				return err
			}
		}
		return nil
	})
	for _, s := range s {
		s.check()
	}
}

// pathsRun is a cache of few paths, which go by their numbers, and its model.
type pathsRun struct {
	*rapid.T
	t    testing.TB
	x    index.Index
	b    index.Blob
	c    index.Cache
	refs map[int][]int
	pins map[string][]revision // the newest first
}

type revision struct {
	path    int
	expired bool
}

const modelled = 8 // paths

func modelPaths(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	b := addBlob(t, x, "b", "a")
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		r := &pathsRun{
			T: rt, t: t, x: x, b: b, c: addCache(t, x, fmt.Sprint("run", run)),
			refs: map[int][]int{}, pins: map[string][]revision{},
		}
		for range rapid.IntRange(1, 5).Draw(rt, "changes") {
			var s steps
			for range rapid.IntRange(1, 8).Draw(rt, "steps") {
				s = append(s, r.step(rt))
			}
			s.change(t, x)
			r.compare()
		}
		r.collect()
	})
}

func (r *pathsRun) step(rt *rapid.T) step {
	n := rapid.IntRange(0, modelled-1).Draw(rt, "path")
	numbers := rapid.SliceOfNDistinct(rapid.IntRange(0, modelled-1), 0, modelled, rapid.ID).Draw(rt, "paths")
	name := rapid.SampledFrom([]string{"one", "two"}).Draw(rt, "pin")
	switch rapid.SampledFrom([]string{"put", "put", "collect", "remove", "pin", "unpin"}).Draw(rt, "step") {
	case "put":
		slices.Sort(numbers)
		return r.put(n, numbers)
	case "collect":
		return r.removeUnused(numbers, new(int))
	case "remove":
		return r.remove(numbers)
	case "pin":
		return r.pin(name, revision{path: n, expired: rapid.Bool().Draw(rt, "expired")}, rapid.IntRange(1, 3).Draw(rt, "keep"))
	default:
		return r.unpin(name, n)
	}
}

func (r *pathsRun) put(n int, refs []int) step {
	var absent []string
	return step{func(tx index.Tx) (err error) {
		absent, err = tx.PutPath(path(r.c, r.b, n, refs...))
		return err
	}, func() {
		r.refs[n] = refs
		var want []string
		for _, ref := range refs {
			if !r.there(ref) {
				want = append(want, hash32(ref)+"-name")
			}
		}
		if !slices.Equal(absent, want) {
			r.Errorf("absent %v, want %v", absent, want)
		}
	}}
}

func (r *pathsRun) remove(numbers []int) step {
	var removed int
	return step{func(tx index.Tx) (err error) {
		removed, err = tx.RemovePaths(r.c.ID, hash32s(numbers...))
		return err
	}, func() {
		want := 0
		for _, n := range numbers {
			if r.there(n) {
				want++
			}
			r.forget(n)
		}
		if removed != want {
			r.Errorf("%d paths removed, want %d", removed, want)
		}
	}}
}

func (r *pathsRun) pin(name string, p revision, keep int) step {
	var refused bool
	return step{func(tx index.Tx) error {
		return unless(tx.AddPin(index.Pin{
			CacheID: r.c.ID, Name: name, Hash: hash32(p.path), Expires: map[bool]time.Time{true: past, false: future}[p.expired],
		}, keep), index.ErrNotFound, &refused)
	}, func() {
		if refused == r.there(p.path) {
			r.Errorf("a pin on path %d was refused: %v", p.path, refused)
		}
		if refused {
			return
		}
		revisions := r.pins[name]
		if len(revisions) > 0 && revisions[0].path == p.path {
			revisions = revisions[1:]
		}
		revisions = append([]revision{p}, revisions...)
		r.pins[name] = revisions[:min(len(revisions), keep)]
	}}
}

func (r *pathsRun) unpin(name string, n int) step {
	var removed int
	return step{func(tx index.Tx) (err error) {
		removed, err = tx.RemovePins(r.c.ID, name, hash32(n))
		return err
	}, func() {
		before := len(r.pins[name])
		r.pins[name] = slices.DeleteFunc(r.pins[name], func(p revision) bool { return p.path == n })
		if want := before - len(r.pins[name]); removed != want {
			r.Errorf("%d pins removed, want %d", removed, want)
		}
	}}
}

// removeUnused removes what it may of some paths. One that becomes unused only
// as another one of them goes may go with it or stay.
func (r *pathsRun) removeUnused(among []int, count *int) step {
	var removed, references []string
	return step{func(tx index.Tx) (err error) {
		removed, references, err = tx.RemoveUnused(r.c.ID, hash32s(among...), future)
		*count = len(removed)
		return err
	}, func() {
		for _, n := range among {
			if r.unused(n) && !slices.Contains(removed, hash32(n)) {
				r.Errorf("path %d was left, which is unused", n)
			}
		}
		var referred []int
		for left := slices.Clone(removed); len(left) > 0; {
			i := slices.IndexFunc(among, func(n int) bool { return r.unused(n) && slices.Contains(left, hash32(n)) })
			if i < 0 {
				r.Errorf("%v were removed, which are in use", left)
				return
			}
			left = slices.DeleteFunc(left, func(h string) bool { return h == hash32(among[i]) })
			referred = append(referred, r.refs[among[i]]...)
			r.forget(among[i])
		}
		want := map[string]bool{}
		for _, n := range referred {
			if r.there(n) {
				want[hash32(n)] = true
			}
		}
		if got := sorted(references); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
			r.Errorf("references %v, want %v", got, slices.Sorted(maps.Keys(want)))
		}
	}}
}

func (r *pathsRun) there(n int) bool {
	_, there := r.refs[n]
	return there
}

func (r *pathsRun) referrers(n int) []int {
	var out []int
	for _, p := range slices.Sorted(maps.Keys(r.refs)) {
		if p != n && slices.Contains(r.refs[p], n) {
			out = append(out, p)
		}
	}
	return out
}

func (r *pathsRun) unused(n int) bool {
	for _, revisions := range r.pins {
		if slices.Contains(revisions, revision{path: n}) {
			return false
		}
	}
	return r.there(n) && len(r.referrers(n)) == 0
}

func (r *pathsRun) forget(n int) {
	delete(r.refs, n)
	for name, revisions := range r.pins {
		r.pins[name] = slices.DeleteFunc(revisions, func(p revision) bool { return p.path == n })
	}
}

func (r *pathsRun) compare() {
	ctx := r.t.Context()
	var all []int
	var want []string
	for n := range modelled {
		all = append(all, n)
		if !r.there(n) {
			want = append(want, hash32(n))
		}
		got, err := r.x.Referrers(ctx, r.c.ID, hash32(n))
		must(r.t, err)
		var names []index.PathName
		for _, p := range r.referrers(n) {
			names = append(names, index.PathName{CacheID: r.c.ID, Hash: hash32(p), Name: "name"})
		}
		if !slices.Equal(got, names) {
			r.Errorf("referrers of %d: %v, want %v", n, got, names)
		}
	}
	missing, _, err := r.x.MissingPaths(ctx, r.c.ID, hash32s(all...), past)
	must(r.t, err)
	if !slices.Equal(missing, want) {
		r.Errorf("missing %v, want %v", missing, want)
	}
	listed, err := r.x.Pins(ctx, r.c.ID)
	must(r.t, err)
	pins := map[string][]revision{}
	for _, p := range listed {
		n := slices.Index(hash32s(all...), p.Hash)
		pins[p.Name] = append(pins[p.Name], revision{path: n, expired: p.Expires.Equal(past)})
	}
	maps.DeleteFunc(r.pins, func(_ string, p []revision) bool { return len(p) == 0 })
	if !maps.EqualFunc(pins, r.pins, slices.Equal) {
		r.Errorf("pins %v, want %v", pins, r.pins)
	}
}

// collect removes until nothing more goes: what is left is in use.
func (r *pathsRun) collect() {
	var all []int
	for n := range modelled {
		all = append(all, n)
	}
	for removed := 1; removed > 0; {
		steps{r.removeUnused(all, &removed)}.change(r.t, r.x)
	}
	r.compare()
	for n := range modelled {
		if r.unused(n) {
			r.Errorf("path %d is left, which is unused", n)
		}
	}
}
