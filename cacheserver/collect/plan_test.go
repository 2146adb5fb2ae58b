package collect_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// What a dry run says is what then happens, and it changes nothing.
func TestAPlanNamesWhatARunRemoves(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		inBubble(t, func(t *testing.T) { planned(drawn{rt, t.Context()}, openAt(t, t.TempDir())) })
	})
}

// inBubble runs a property's test in a bubble. Rapid itself, whose limits are in
// real time, stays outside: what it throws is passed on.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	var thrown any
	synctest.Test(t, func(t *testing.T) {
		defer func() { thrown = recover() }()
		test(t)
	})
	if thrown != nil {
		panic(thrown)
	}
}

// drawn is a rapid.T with a context of the bubble's.
type drawn struct {
	*rapid.T
	ctx context.Context
}

func (d drawn) Context() context.Context { return d.ctx }

// planned draws two caches, and compares a plan with a run over them.
func planned(t drawn, r *rig) {
	shared := newPath("shared", nil, noise(100, "shared"))
	r.push(t, "main", shared)
	main, other := r.cacheID(t, "main"), r.cacheID(t, "other")
	caches := []int64{main, other}
	blob, err := r.index.NAR(t.Context(), main, shared.info.NarHash)
	must(t, err)
	ctx := t.Context()
	count := rapid.IntRange(1, 16).Draw(t.T, "paths")
	hash := func(i int) string { return hash32(fmt.Sprint("path", i)) }
	// Ages meet often.
	age := rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.IntRange(0, 9).Draw(t, "steps")) * 12 * time.Hour
	})
	anyPath := rapid.IntRange(0, count-1)
	for _, cache := range caches {
		keep := rapid.SampledFrom([]time.Duration{0, time.Minute, day, 3 * day, 7 * day}).Draw(t.T, "retention")
		r.update(t, func(tx index.Tx) error { return tx.SetRetention(cache, keep) })
	}
	var puts []index.Path
	flush := func() {
		r.update(t, func(tx index.Tx) error {
			for _, p := range puts {
				if _, err := tx.PutPath(p); err != nil {
					return err
				}
			}
			return nil
		})
		puts = nil
	}
	for i := range count {
		if pause := age.Draw(t.T, "then"); i%5 == 0 { // a few at a time: each change waits for the disk
			flush()
			time.Sleep(pause)
		}
		p := index.Path{CacheID: rapid.SampledFrom(caches).Draw(t.T, "cache"), Hash: hash(i), Name: "x", NAR: blob}
		for range rapid.IntRange(0, 3).Draw(t.T, "references") {
			// Those of the other cache, too, and itself: they count for nothing.
			p.References = append(p.References, hash(rapid.IntRange(0, i).Draw(t.T, "reference"))+"-x")
		}
		slices.Sort(p.References)
		p.References = slices.Compact(p.References)
		puts = append(puts, p)
	}
	flush()
	for range rapid.IntRange(0, 4).Draw(t.T, "pins") {
		pin := index.Pin{CacheID: rapid.SampledFrom(caches).Draw(t.T, "cache"), Name: "pin", Hash: hash(anyPath.Draw(t.T, "path"))}
		if expires := age.Draw(t.T, "expires"); expires != 0 {
			pin.Expires = time.Now().Add(expires)
		}
		r.update(t, func(tx index.Tx) error { _ = tx.AddPin(pin, 3); return nil }) // the other cache may hold it
	}
	time.Sleep(age.Draw(t.T, "then"))
	for range rapid.IntRange(0, 4).Draw(t.T, "uses") {
		cache, used := rapid.SampledFrom(caches).Draw(t.T, "cache"), hash(anyPath.Draw(t.T, "path"))
		r.update(t, func(tx index.Tx) error { return tx.TouchPaths(cache, []string{used}) })
		time.Sleep(age.Draw(t.T, "then"))
	}
	time.Sleep(age.Draw(t.T, "then"))

	before := everything(t, r, caches)
	got := map[string]bool{}
	plan, err := r.collector(0).Plan(ctx, func(p index.UsedPath, why collect.Reason) {
		key := fmt.Sprint(p.CacheID, " ", p)
		if got[key] || why != collect.ReasonRetention {
			t.Errorf("%s is named twice, or because it is %s", key, why)
		}
		got[key] = true
	})
	if err != nil || plan.Paths != int64(len(got)) || plan.NARBytes != plan.Paths*blob.Size || plan.FileBytes != plan.Paths*blob.FileSize {
		t.Fatalf("%d paths, %+v, %v", len(got), plan, err)
	}
	if after := everything(t, r, caches); !maps.Equal(after, before) {
		t.Fatalf("the plan has changed\n%v to\n%v", before, after)
	}
	report, err := r.collector(0).Run(ctx)
	must(t, err)
	left := everything(t, r, caches)
	for key := range before {
		if _, there := left[key]; there == got[key] {
			t.Errorf("%s: planned to go %v, still there %v", key, got[key], there)
		}
	}
	if report.Paths != plan.Paths {
		t.Errorf("%d paths went, %d were planned to", report.Paths, plan.Paths)
	}
}

// everything is all paths of the caches with their last uses.
func everything(t tb, r *rig, caches []int64) map[string]time.Time {
	all := map[string]time.Time{}
	for _, cache := range caches {
		paths, err := r.index.PathsByUse(t.Context(), cache, time.Now().AddDate(1, 0, 0), index.UsedPath{}, 1000)
		must(t, err)
		for _, p := range paths {
			all[fmt.Sprint(cache, " ", p)] = p.Used
		}
	}
	return all
}
