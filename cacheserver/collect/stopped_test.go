package collect_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

func contextOf(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

const (
	stoppedAfter = retention + day // when the collection of that scene begins
	stoppedLimit = 120_000
)

// scene has work for every step of a collection. It returns what must live on.
func scene(t testing.TB, r *rig) (living []*path) {
	t.Helper()
	living = []*path{thin(t, r, "a"), thin(t, r, "b")}
	lib := newPath("lib", nil, noise(3000, "lib"))
	r.push(t, "main", lib, newPath("dead", []*path{lib}, noise(3000, "dead")))
	must(t, r.upload("main", newPath("never-committed", nil, noise(3000, "never"))))
	noName := newPath("no-name", nil, noise(3000, "no-name"))
	must(t, r.upload("main", noName))
	blob, err := r.store.Verify(t.Context(), digest.Digest{Hash: noName.info.NarHash, Size: noName.info.NarSize}, noName.chunks(), drain)
	must(t, err)
	r.update(t, func(tx index.Tx) error {
		_, err := tx.AddBlob(blob, noName.chunks(), r.store.Expiry())
		return err
	})
	e := pack.Encode(newPath("orphan", nil, noise(100, "orphan")).frames)
	must(t, r.packs.Put(t.Context(), packNameAt(time.Now()), e.Size, e.Reader()))
	time.Sleep(retention)
	r.push(t, "main", newPath("evicted", nil, noise(70_000, "evicted")))
	last := newPath("last", nil, noise(3000, "last"))
	r.push(t, "main", last)
	time.Sleep(day)
	r.push(t, "main", last)
	return append(living, last)
}

// Wherever a collection fails, or its process is told to end, all that lives is
// served on, and the next collection finishes.
func TestACollectionThatIsStoppedIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	template := t.TempDir()
	var living []*path
	synctest.Test(t, func(t *testing.T) { living = scene(t, openAt(t, template)) })

	// again runs a test on a copy of the scene, at its time.
	again := func(t *testing.T, test func(t *testing.T, r *rig)) {
		synctest.Test(t, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			must(t, os.CopyFS(dir, os.DirFS(template)))
			time.Sleep(stoppedAfter)
			test(t, openAt(t, dir))
		})
	}
	var calls []string
	var want index.Usage
	again(t, func(t *testing.T, r *rig) {
		r.hook(func(call string, work func() error) error {
			calls = append(calls, call)
			return work()
		})
		got := r.collect(t, stoppedLimit)
		r.unhook()
		if got.Paths != 4 || got.Evicted != 1 || got.Blobs != 6 || got.PacksDeleted < 4 || got.PacksCompacted < 2 || got.Orphans != 1 || got.OverLimit != 0 {
			t.Errorf("the scene has not work for all steps: %+v", got)
		}
		want = finished(t, r, living)
	})

	fault := errors.New("it failed here")
	for mode, stop := range map[string]func(work func() error, cancel func()) error{
		"fails":                   func(func() error, func()) error { return fault },
		"fails after it was done": func(work func() error, _ func()) error { return errors.Join(work(), fault) },
		"is told to end":          func(work func() error, cancel func()) error { cancel(); return work() },
	} {
		for at, call := range calls {
			changes := slices.Contains([]string{"Update", "Put", "Delete"}, call)
			if mode != "fails" && !changes {
				continue // to end there is to end before the next change
			}
			t.Run(fmt.Sprintf("%s, at %s, call %d", mode, call, at), func(t *testing.T) {
				t.Parallel()
				again(t, func(t *testing.T, r *rig) {
					hot := r.newDoor()
					for _, p := range living {
						must(t, served(hot, "main", p))
					}
					ctx, cancel := contextOf(t)
					defer cancel()
					n := 0
					r.hook(func(call string, work func() error) error {
						n++
						if n == at+1 {
							return stop(work, cancel)
						}
						return work()
					})
					_, err := r.collector(stoppedLimit).Run(ctx)
					r.unhook()
					if ctx.Err() == nil {
						wantErr(t, err, fault)
					} else if err != nil {
						wantErr(t, err, context.Canceled)
					}
					for _, p := range living {
						must(t, served(hot, "main", p)) // it knew where they lay
					}
					r.wantServed(t, "main", living...)
					if got := r.collect(t, stoppedLimit); got.OverLimit != 0 {
						t.Errorf("the next: %+v", got)
					}
					if got := finished(t, r, living); got.Paths != want.Paths || got.Blobs != want.Blobs || got.Chunks != want.Chunks {
						t.Errorf("left are %+v, want %+v", got, want)
					}
				})
			})
		}
	}
}

// finished checks that what lives is served, and that once the grace is over, the
// disk holds the packs that the index knows, and no others.
func finished(t testing.TB, r *rig, living []*path) index.Usage {
	t.Helper()
	r.wantServed(t, "main", living...)
	u, err := r.index.Usage(t.Context())
	must(t, err)
	time.Sleep(grace + time.Second)
	r.collect(t, 0)
	r.wantServed(t, "main", living...)
	known, err := r.index.Packs(t.Context(), "", 1000)
	must(t, err)
	files := r.files(t)
	for _, p := range known {
		if files[p.Name] == "" {
			t.Errorf("pack %s is gone", p.Name)
		}
		delete(files, p.Name)
	}
	if len(files) > 0 {
		t.Errorf("packs that the index does not know: %v", files)
	}
	return u
}

// A plan changes nothing, and names what goes for its retention and, where no
// chunks are shared, for the size.
func TestPlanForASizeLimit(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		lib := newPath("lib", nil, noise(20_000, "lib"))
		app := newPath("app", []*path{lib}, noise(20_000, "app"))
		pinned := newPath("pinned", nil, noise(20_000, "pinned"))
		other := newPath("other", nil, noise(20_000, "other"))
		last := newPath("last", nil, noise(20_000, "last"))
		r.pushApart(t, "main", lib, pinned)
		r.pushApart(t, "other", other)
		r.pushApart(t, "main", app, last)
		r.pin(t, "main", "release", pinned, 0)
		time.Sleep(day)
		before, err := r.index.Usage(t.Context())
		must(t, err)
		for limit, want := range map[int64][]*path{
			200_000: nil, 90_000: {other}, 70_000: {other, app}, 50_000: {other, app, lib}, 30_000: {other, app, lib, last},
		} {
			var got []string
			plan, err := r.collector(limit).Plan(t.Context(), func(p index.UsedPath, why collect.Reason) {
				got = append(got, p.String())
				if why != collect.ReasonSize {
					t.Errorf("%s would go because it is %s", p, why)
				}
			})
			var names []string
			for _, p := range want {
				names = append(names, p.base())
			}
			if err != nil || !slices.Equal(got, names) || plan.Paths != int64(len(want)) || plan.Stored != before.PackBytes {
				t.Errorf("to %d: %v, %+v, %v; want %v", limit, got, plan, err, names)
			}
		}
		if after, err := r.index.Usage(t.Context()); err != nil || after != before {
			t.Errorf("it has changed %+v to %+v, %v", before, after, err)
		}
		r.collect(t, 50_000)
		r.wantGone(t, "main", app, lib)
		r.wantGone(t, "other", other)
		r.wantServed(t, "main", pinned, last)
	})
}
