package collect_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

func TestPathsGoAfterTheRetentionOfTheirCache(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		p := newPath("a", nil, noise(3000, "a"))
		r.push(t, "main", p)
		r.push(t, "other", p)
		r.setRetention(t, "other", 10*day)

		time.Sleep(10 * day)
		if got := r.collect(t, 0); got.Paths != 0 {
			t.Errorf("at their retention: %+v", got)
		}
		time.Sleep(time.Second)
		if got := r.collect(t, 0); got.Paths != 1 || got.Blobs != 0 || got.Chunks != 0 {
			t.Errorf("a cache's path, over a NAR that another cache has: %+v", got)
		}
		r.wantGone(t, "other", p)
		r.wantServed(t, "main", p)

		time.Sleep(retention - 10*day)
		got := r.collect(t, 0)
		if got.Paths != 1 || got.Blobs != 1 || got.Chunks != 3 || got.PacksDeleted != 1 || got.Stored != 0 || got.Freed <= 3000 {
			t.Errorf("the last of them: %+v", got)
		}
		r.wantGone(t, "main", p)
		r.wantNothing(t)
	})
}

func TestACacheWithoutRetentionKeepsPaths(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		p := newPath("a", nil, noise(3000, "a"))
		r.push(t, "main", p)
		r.setRetention(t, "main", 0)
		time.Sleep(50 * 365 * day)
		if got := r.collect(t, 0); got.Paths != 0 {
			t.Errorf("%+v", got)
		}
		r.wantServed(t, "main", p)
	})
}

// A push that was told that a path is there may refer to it for half of the
// grace, even where the retention is shorter than that.
func TestNoPathGoesWithinTheGrace(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		lib := newPath("lib", nil, noise(3000, "lib"))
		app := newPath("app", []*path{lib}, noise(3000, "app"))
		r.setRetention(t, "main", time.Minute)
		r.push(t, "main", lib)
		time.Sleep(grace/2 - time.Second)
		if missing, err := r.missing("main", lib); len(missing) > 0 || err != nil {
			t.Fatal(missing, err)
		}
		time.Sleep(grace / 2)
		r.collect(t, 0)
		r.push(t, "main", app)
		r.wantServed(t, "main", lib, app)
		time.Sleep(grace + time.Second)
		if got := r.collect(t, 0); got.Paths != 2 {
			t.Errorf("after the grace: %+v", got)
		}
	})
}

func TestWhatALivingPathRefersToStays(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		libc := newPath("libc", nil, noise(3000, "libc"))
		lib := newPath("lib", []*path{libc}, noise(3000, "lib"))
		old := newPath("old", []*path{lib, libc}, noise(3000, "old"))
		r.push(t, "main", libc, lib, old)
		time.Sleep(retention / 2)
		app := newPath("app", []*path{lib}, noise(3000, "app"))
		r.push(t, "main", app)
		time.Sleep(retention/2 + time.Second)
		if got := r.collect(t, 0); got.Paths != 1 {
			t.Errorf("%+v, want the one that nothing refers to", got)
		}
		r.wantGone(t, "main", old)
		r.wantServed(t, "main", libc, lib, app)
	})
}

// Paths of one cache do not keep another's alive.
func TestReferencesAreWithinACache(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		lib := newPath("lib", nil, noise(3000, "lib"))
		app := newPath("app", []*path{lib}, noise(3000, "app"))
		r.push(t, "main", lib, app)
		r.push(t, "other", lib)
		time.Sleep(retention - day)
		r.push(t, "main", app)
		time.Sleep(day + time.Second)
		r.collect(t, 0)
		r.wantServed(t, "main", lib, app)
		r.wantGone(t, "other", lib)
	})
}

func TestADeadClosureGoesInOneRun(t *testing.T) {
	t.Parallel()
	for name, closure := range map[string]func() []*path{
		"a chain": func() []*path {
			paths := []*path{newPath("link", nil, noise(100, "link"))}
			for i := range 40 {
				paths = append(paths, newPath(fmt.Sprint("link", i), paths[i:], noise(100, fmt.Sprint("link", i%3))))
			}
			return paths
		},
		"a diamond": func() []*path {
			bottom := newPath("bottom", nil, noise(100, "bottom"))
			left := newPath("left", []*path{bottom}, noise(100, "left"))
			right := newPath("right", []*path{bottom}, noise(100, "right"))
			return []*path{bottom, left, right, newPath("top", []*path{left, right, bottom}, noise(100, "top"))}
		},
		"one that refers to itself": func() []*path {
			self := newPath("self", nil, noise(100, "self"))
			self.info.References = []string{self.base()}
			return []*path{self}
		},
		"one that refers to what is not there": func() []*path {
			return []*path{newPath("torn", []*path{newPath("absent", nil)}, noise(100, "torn"))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, r *rig) {
				paths := closure()
				r.push(t, "main", paths...)
				// The page of those used longest ago then begins with what others need.
				time.Sleep(time.Second)
				r.push(t, "main", paths[len(paths)-1])
				time.Sleep(retention + time.Second)
				if got := r.collect(t, 0); got.Paths != int64(len(paths)) {
					t.Errorf("%d paths went, want %d", got.Paths, len(paths))
				}
				r.wantNothing(t)
			})
		})
	}
}

func TestPinsKeepWholeClosures(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		libc := newPath("libc", nil, noise(3000, "libc"))
		lib := newPath("lib", []*path{libc}, noise(3000, "lib"))
		app := newPath("app", []*path{lib}, noise(3000, "app"))
		tool := newPath("tool", []*path{libc}, noise(3000, "tool"))
		r.push(t, "main", libc, lib, app, tool)
		r.pin(t, "main", "release", lib, 0)
		r.pin(t, "main", "branch", app, retention+2*day)

		time.Sleep(retention + day)
		r.collect(t, 0)
		r.wantGone(t, "main", tool)
		r.wantServed(t, "main", libc, lib, app)

		time.Sleep(day)
		r.collect(t, 0)
		r.wantServed(t, "main", app) // in the second in which its pin ends
		time.Sleep(time.Second)
		r.collect(t, 0)
		r.wantGone(t, "main", app)
		r.wantServed(t, "main", libc, lib)
		if pins, err := r.index.Pins(t.Context(), r.cacheID(t, "main")); err != nil || len(pins) != 1 || pins[0].Name != "release" {
			t.Errorf("pins: %v, %v; the one that ended should be gone with its path", pins, err)
		}

		main := r.cacheID(t, "main")
		r.update(t, func(tx index.Tx) error { _, err := tx.RemovePins(main, "release", ""); return err })
		r.collect(t, 0)
		r.wantNothing(t)
	})
}

func TestUsesProlong(t *testing.T) {
	t.Parallel()
	get := func(route string) func(t *testing.T, r *rig) {
		return func(t *testing.T, r *rig) {
			if w := ask(r.door, http.MethodGet, route, nil); w.Code != http.StatusOK {
				t.Fatalf("%s: %d", route, w.Code)
			}
		}
	}
	p := newPath("a", nil, noise(3000, "a"))
	for name, use := range map[string]func(t *testing.T, r *rig){
		"the narinfo is read": get("/main/" + p.hash() + ".narinfo"),
		"the NAR is read":     get("/main/nar/" + p.info.NarHash.Nix32() + ".nar.zst"),
		"it is pushed again":  func(t *testing.T, r *rig) { r.push(t, "main", p) },
		"a push asks whether it is missing": func(t *testing.T, r *rig) {
			if missing, err := r.missing("main", p); len(missing) > 0 || err != nil {
				t.Fatal(missing, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, r *rig) {
				r.push(t, "main", p)
				for range 3 {
					time.Sleep(retention - day)
					use(t, r)
					r.recordUses(t)
					if got := r.collect(t, 0); got.Paths != 0 {
						t.Fatalf("it went: %+v", got)
					}
				}
				time.Sleep(retention)
				r.collect(t, 0)
				r.wantServed(t, "main", p)
				time.Sleep(time.Second)
				r.collect(t, 0)
				r.wantGone(t, "main", p)
			})
		})
	}
}

// Uses are written down at most once an hour, and not lost when the index
// could not take them.
func TestUsesAreWrittenDownSparingly(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		p := newPath("a", nil, noise(3000, "a"))
		r.push(t, "main", p)
		updates := 0
		var fault error
		r.hook(func(call string, work func() error) error {
			if call == "Update" {
				updates++
				if fault != nil {
					return fault
				}
			}
			return work()
		})
		used := func() time.Time {
			got, err := r.index.Path(t.Context(), r.cacheID(t, "main"), p.hash())
			must(t, err)
			return got.Used
		}
		for range 30 {
			time.Sleep(10 * time.Minute)
			ask(r.door, http.MethodGet, "/main/"+p.hash()+".narinfo", nil)
			r.recordUses(t)
		}
		if behind := time.Since(used()); behind > time.Hour || updates > 5 {
			t.Errorf("%d writes in five hours, and the last use is %v behind", updates, behind)
		}

		time.Sleep(2 * time.Hour)
		fault = index.ErrUnavailable
		asked := time.Now()
		ask(r.door, http.MethodGet, "/main/"+p.hash()+".narinfo", nil)
		r.recordUses(t)
		fault = nil
		r.recordUses(t)
		if used().Before(asked.Truncate(time.Second)) {
			t.Errorf("a use that could not be written down is lost: %v, it was at %v", used(), asked)
		}
	})
}

func TestPagesOfOldPathsAreSeenToTheEnd(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		p := newPath("shared", nil, noise(100, "shared"))
		r.push(t, "main", p)
		main := r.cacheID(t, "main")
		blob, err := r.index.NAR(t.Context(), main, p.info.NarHash)
		must(t, err)
		const n = 1203 // of more than two pages
		r.update(t, func(tx index.Tx) error {
			for i := range n {
				if _, err := tx.PutPath(index.Path{CacheID: main, Hash: hash32(fmt.Sprint(i)), Name: "x", NAR: blob}); err != nil {
					return err
				}
			}
			return nil
		})
		time.Sleep(retention + time.Second)
		var planned []string
		plan, err := r.collector(0).Plan(t.Context(), func(p index.UsedPath, _ collect.Reason) { planned = append(planned, p.Hash) })
		must(t, err)
		slices.Sort(planned)
		if len(slices.Compact(planned)) != n+1 || plan.Paths != n+1 {
			t.Errorf("%d paths are planned, want %d", len(planned), n+1)
		}
		if got := r.collect(t, 0); got.Paths != n+1 {
			t.Errorf("%d paths went, want %d", got.Paths, n+1)
		}
		r.wantNothing(t)
	})
}
