package collect_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// pushApart pushes paths one after the other, so that each is used later than
// the one before.
func (r *rig) pushApart(t testing.TB, cache string, paths ...*path) {
	t.Helper()
	for _, p := range paths {
		r.push(t, cache, p)
		time.Sleep(time.Minute)
	}
}

func TestTheLongestUnusedGoFirstOverAllCaches(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		var paths []*path
		caches := []string{"main", "other"}
		r.setRetention(t, "other", 0) // the limit is the stronger one
		for i := range 8 {
			paths = append(paths, newPath(fmt.Sprint("p", i), nil, noise(20_000, fmt.Sprint(i))))
			r.pushApart(t, caches[i%2], paths[i])
		}
		time.Sleep(day)
		// The second is read: it is the one used last now.
		must(t, served(r.door, "other", paths[1]))
		r.recordUses(t)
		time.Sleep(day)

		got := r.collect(t, 110_000)
		if got.Evicted != 3 || got.Stored > 110_000 || got.OverLimit != 0 || got.Paths != 0 {
			t.Errorf("%+v", got)
		}
		for i, p := range paths {
			switch i {
			case 0, 2, 3:
				r.wantGone(t, caches[i%2], p)
			default:
				r.wantServed(t, caches[i%2], p)
			}
		}
		if got := r.collect(t, 110_000); got.Evicted != 0 || got.Freed != 0 {
			t.Errorf("again: %+v", got)
		}
	})
}

// What others refer to goes after them, however long it was not used itself,
// and then at once.
func TestRootsGoFirst(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		lib := newPath("lib", nil, noise(20_000, "lib"))
		alone := newPath("alone", nil, noise(20_000, "alone"))
		app := newPath("app", []*path{lib}, noise(20_000, "app"))
		last := newPath("last", nil, noise(20_000, "last"))
		r.pushApart(t, "main", lib, alone, app, last)
		time.Sleep(day)
		for _, step := range []struct {
			limit      int64
			gone, left []*path
		}{
			{70_000, []*path{alone}, []*path{lib, app, last}},
			{50_000, []*path{app}, []*path{lib, last}},
			{30_000, []*path{lib}, []*path{last}},
		} {
			if got := r.collect(t, step.limit); got.Evicted != 1 || got.Stored > step.limit {
				t.Errorf("to %d: %+v", step.limit, got)
			}
			r.wantGone(t, "main", step.gone...)
			r.wantServed(t, "main", step.left...)
		}
	})
}

// A path whose chunks others have, too, frees little: more have to go.
func TestSharedChunksAreNotTakenAsFreed(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		shared := noise(30_000, "shared")
		var paths []*path
		for i := range 5 {
			paths = append(paths, newPath(fmt.Sprint("p", i), nil, shared, noise(10_000, fmt.Sprint(i))))
		}
		r.pushApart(t, "main", paths...)
		time.Sleep(day)
		got := r.collect(t, 55_000)
		if got.Evicted != 3 || got.Stored > 55_000 || got.OverLimit != 0 {
			t.Errorf("%+v", got)
		}
		r.wantGone(t, "main", paths[:3]...)
		r.wantServed(t, "main", paths[3:]...)
	})
}

func TestTheLimitTakesNothingPinnedOrInUse(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		lib := newPath("lib", nil, noise(20_000, "lib"))
		pinned := newPath("pinned", []*path{lib}, noise(20_000, "pinned"))
		old := newPath("old", nil, noise(20_000, "old"))
		r.push(t, "main", lib, pinned, old)
		r.pin(t, "main", "release", pinned, 0)
		time.Sleep(day)
		fresh := newPath("fresh", nil, noise(20_000, "fresh"))
		r.push(t, "main", fresh)
		inFlight := newPath("in-flight", nil, noise(20_000, "in-flight"))
		must(t, r.upload("main", inFlight))
		time.Sleep(grace)

		got := r.collect(t, 1000)
		if got.Evicted != 1 || got.OverLimit != got.Stored-1000 || got.Stored < 80_000 || got.Stored > 82_000 {
			t.Errorf("%+v", got)
		}
		r.wantGone(t, "main", old)
		r.wantServed(t, "main", lib, pinned, fresh)
		r.push(t, "main", inFlight)
		r.wantServed(t, "main", inFlight)
	})
}

// Dead bytes that are spread too thin to be worth a compaction count against
// the limit all the same.
func TestTheLimitHoldsOverThinlySpreadDeadBytes(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		var kept []*path
		for i := range 10 {
			gone := newPath(fmt.Sprint("gone", i), nil, noise(1500, fmt.Sprint("gone", i)))
			kept = append(kept, newPath(fmt.Sprint("kept", i), nil, noise(20_000, fmt.Sprint("kept", i))))
			r.pushTogether(t, "main", gone, kept[i])
			time.Sleep(time.Minute)
		}
		time.Sleep(retention - day)
		for _, p := range kept {
			r.pushApart(t, "main", p)
		}
		time.Sleep(day)
		const limit = 212_000
		got := r.collect(t, limit)
		if got.Paths != 10 || got.Evicted != 1 || got.Stored > limit || got.OverLimit != 0 {
			t.Errorf("%+v", got)
		}
		r.wantGone(t, "main", kept[0])
		r.wantServed(t, "main", kept[1:]...)
	})
}

func TestScheduleGoesOnOverFailures(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		first, second := newPath("first", nil, noise(3000, "1")), newPath("second", nil, noise(3000, "2"))
		pinned := newPath("pinned", nil, noise(3000, "3"))
		r.push(t, "main", first, pinned)
		r.pin(t, "main", "release", pinned, 0)
		r.pushApart(t, "other", second)
		r.setRetention(t, "main", day)
		r.setRetention(t, "other", 3*day)
		ended := make(chan error)
		ctx, cancel := contextOf(t)
		go func() { ended <- r.collector(0).Schedule(ctx, 6*time.Hour) }()
		time.Sleep(day/2 + time.Hour) // and so never at the very moment of a turn
		r.wantServed(t, "main", first)
		time.Sleep(day)
		r.wantGone(t, "main", first)

		r.hook(func(string, func() error) error { return fmt.Errorf("on fire: %w", index.ErrUnavailable) })
		time.Sleep(2 * day)
		r.unhook()
		if !strings.Contains(r.log.String(), "on fire") {
			t.Errorf("the log says\n%s", r.log)
		}
		_, unlock, err := r.index.Lock(t.Context(), "collector")
		must(t, err)
		time.Sleep(day)
		unlock()
		time.Sleep(6 * time.Hour)
		r.wantGone(t, "other", second)
		r.wantServed(t, "main", pinned)
		if log := r.log.String(); !strings.Contains(log, "msg=collected paths=1") {
			t.Errorf("the log says\n%s", log)
		}
		cancel()
		must(t, <-ended)

		ctx, cancel = contextOf(t)
		go func() { ended <- r.collector(100).Schedule(ctx, 6*time.Hour) }()
		time.Sleep(7 * time.Hour)
		cancel()
		must(t, <-ended)
		if log := r.log.String(); !strings.Contains(log, "over the size limit") {
			t.Errorf("the log says\n%s", log)
		}
	})
}
