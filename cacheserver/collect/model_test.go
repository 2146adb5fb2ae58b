package collect_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
)

// model does at random what clients and operators do, and looks whether it
// comes out as was promised to them.
type model struct {
	*testing.T
	*rig
	rand  *rand.Rand
	hot   *nixcache.Door // reads through it are no uses
	paths []*path
	refs  map[*path][]*path
	moved bool // since the last check, a collection may have moved or removed something
}

var modelCaches = []string{"main", "other"}

func newModel(t *testing.T, r *rig, seed uint64) *model {
	m := &model{T: t, rig: r, rand: rand.New(rand.NewPCG(seed, 0)), hot: r.newDoor(), refs: map[*path][]*path{}}
	for i := range 14 {
		var refs []*path
		for range m.rand.IntN(4) {
			if i > 0 {
				refs = append(refs, m.paths[m.rand.IntN(i)])
			}
		}
		slices.SortFunc(refs, func(a, b *path) int { return slices.Index(m.paths, a) - slices.Index(m.paths, b) })
		refs = slices.Compact(refs)
		var pieces [][]byte
		for range m.rand.IntN(5) {
			n := m.rand.IntN(12)
			pieces = append(pieces, noise(500+1000*n, fmt.Sprint("piece", n))) // shared by many
		}
		p := newPath(fmt.Sprint("p", i), refs, append(pieces, noise(3000, fmt.Sprint("own", i)))...)
		m.paths = append(m.paths, p)
		m.refs[p] = refs
	}
	return m
}

func (m *model) cache() string { return modelCaches[m.rand.IntN(len(modelCaches))] }

func (m *model) path() *path { return m.paths[m.rand.IntN(len(m.paths))] }

func (m *model) upTo(d time.Duration) time.Duration { return time.Duration(m.rand.Int64N(int64(d))) }

// wait waits up to d, and perhaps collects after it.
func (m *model) wait(d time.Duration) {
	time.Sleep(m.upTo(d))
	if m.rand.IntN(3) == 0 {
		m.collectNow()
	}
}

// closure is a path with all that it refers to, each after what it refers to.
func (m *model) closure(p *path) []*path {
	var all []*path
	var visit func(p *path)
	visit = func(p *path) {
		for _, ref := range m.refs[p] {
			visit(ref)
		}
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	visit(p)
	return all
}

// pushClosure pushes a path as the client does, slowly, but within half of the
// grace: what it was told to be there must be there when it refers to it.
func (m *model) pushClosure(cache string, p *path) {
	closure := m.closure(p)
	missing, err := m.missing(cache, closure...)
	must(m, err)
	pause := grace / 2 / time.Duration(3*len(closure))
	for _, p := range closure {
		if !slices.Contains(missing, p.hash()) {
			continue
		}
		m.wait(pause)
		must(m, m.upload(cache, p))
		m.wait(pause)
		must(m, m.commit(cache, p)) // it names absent references
	}
}

// pinned is true when a living pin is on the path.
func (m *model) pinned(pins []index.Pin, p *path) bool {
	return slices.ContainsFunc(pins, func(pin index.Pin) bool {
		return pin.Hash == p.hash() && (pin.Expires.IsZero() || !pin.Expires.Before(time.Now().Truncate(time.Second)))
	})
}

// needed are the paths of a cache that may not go: those that were used since a
// time or are pinned, with all that they refer to.
func (m *model) needed(cache string, since time.Time) []*path {
	pins, err := m.index.Pins(m.Context(), m.cacheID(m, cache))
	must(m, err)
	var needed []*path
	for _, p := range m.paths {
		if there, err := m.index.Path(m.Context(), m.cacheID(m, cache), p.hash()); err == nil &&
			(!there.Used.Before(since.Truncate(time.Second)) || m.pinned(pins, p)) {
			needed = append(needed, m.closure(p)...)
		}
	}
	return needed
}

// collectNow collects, sometimes with a limit, sometimes not to the end.
func (m *model) collectNow() {
	var limit int64
	if m.rand.IntN(3) == 0 {
		limit = 1 + m.rand.Int64N(200_000)
	}
	needed := map[string][]*path{}
	for _, cache := range modelCaches {
		c, err := m.index.Cache(m.Context(), cache)
		must(m, err)
		keep := max(grace, c.Retention)
		if c.Retention == index.GlobalRetention {
			keep = retention
		}
		if limit > 0 {
			keep = grace
		}
		if c.Retention == 0 && limit == 0 {
			keep = 1000 * day
		}
		needed[cache] = m.needed(cache, time.Now().Add(-keep))
	}
	ctx, cancel := context.WithCancel(m.Context())
	defer cancel()
	stopped := errors.New("stopped")
	if m.rand.IntN(4) == 0 {
		calls := m.rand.IntN(30)
		m.hook(func(_ string, work func() error) error {
			if calls--; calls < 0 {
				return stopped
			}
			return work()
		})
	}
	report, err := m.collector(limit).Run(ctx)
	m.moved = true
	m.unhook()
	if err != nil && !errors.Is(err, stopped) {
		m.Fatal(err)
	}
	if len(report.Damaged) > 0 {
		m.Errorf("damaged: %v", report.Damaged)
	}
	for cache, paths := range needed {
		for _, p := range paths {
			if !m.has(m, cache, p) {
				m.Fatalf("%s is gone from %s, it was needed: %+v", p.base(), cache, report)
			}
		}
	}
	if err == nil {
		m.checkLimit(limit, report)
	}
}

// checkLimit checks that what is over the limit could not go.
func (m *model) checkLimit(limit int64, r collect.Report) {
	if limit == 0 {
		return
	}
	if over := max(0, r.Stored-limit); r.OverLimit != over {
		m.Errorf("limit %d: %+v", limit, r)
	}
	if r.OverLimit == 0 {
		return
	}
	for _, cache := range modelCaches {
		needed := m.needed(cache, time.Now().Add(-grace))
		for _, p := range m.paths {
			if m.has(m, cache, p) && !slices.Contains(needed, p) {
				m.Errorf("%d bytes over the limit, and %s of %s is left", r.OverLimit, p.base(), cache)
			}
		}
	}
}

// check checks that all that the index has is served, with all that it refers
// to: to clients of a server that knew of it before, and of one that did not.
func (m *model) check() {
	if !m.moved {
		return
	}
	m.moved = false
	fresh := m.newDoor()
	for _, cache := range modelCaches {
		for _, p := range m.paths {
			if !m.has(m, cache, p) {
				continue
			}
			for _, d := range []*nixcache.Door{fresh, m.hot} {
				must(m, served(d, cache, p))
			}
			for _, ref := range m.refs[p] {
				if !m.has(m, cache, ref) {
					m.Errorf("%s of %s has lost %s", p.base(), cache, ref.base())
				}
			}
		}
	}
	if m.Failed() {
		m.FailNow()
	}
}

func (m *model) step() {
	cache, p := m.cache(), m.path()
	switch m.rand.IntN(10) {
	case 0, 1, 2:
		m.pushClosure(cache, p)
	case 3:
		if m.has(m, cache, p) {
			must(m, served(m.door, cache, p))
			if m.rand.IntN(2) == 0 {
				m.recordUses(m)
			}
		}
	case 4:
		if m.has(m, cache, p) {
			expires := time.Duration(m.rand.IntN(5)) * 12 * time.Hour
			m.pin(m, cache, fmt.Sprint("pin", m.rand.IntN(3)), p, expires)
		}
	case 5:
		id := m.cacheID(m, cache)
		m.update(m, func(tx index.Tx) error {
			_, err := tx.RemovePins(id, fmt.Sprint("pin", m.rand.IntN(3)), "")
			return err
		})
	case 6:
		m.setRetention(m, cache, []time.Duration{0, time.Minute, 12 * time.Hour, 3 * day}[m.rand.IntN(4)])
	case 7:
		time.Sleep(time.Duration(m.rand.IntN(8)) * 12 * time.Hour)
	case 8:
		time.Sleep(m.upTo(2 * grace))
	case 9:
		m.collectNow()
	}
}

func TestNothingThatIsNeededIsEverLost(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, r *rig) {
				m := newModel(t, r, seed)
				for range 30 {
					m.step()
					m.check()
				}
				for _, cache := range modelCaches {
					r.setRetention(t, cache, day)
					id := r.cacheID(t, cache)
					r.update(t, func(tx index.Tx) error {
						for i := range 3 {
							if _, err := tx.RemovePins(id, fmt.Sprint("pin", i), ""); err != nil {
								return err
							}
						}
						return nil
					})
				}
				time.Sleep(day + time.Second)
				r.collect(t, 0)
				r.wantNothing(t)
			})
		})
	}
}
