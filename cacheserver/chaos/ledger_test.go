package chaos

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// entry is a store path with what is known of it at the server.
type entry struct {
	item

	// Attempts to commit it that overlap are one group, and only the whole of it
	// tells what came of it.
	active int
	group  attempts
	last   attempts // the group that ended last
	count  int      // of attempts

	acknowledged bool
	used         time.Time // when the last acknowledged attempt began

	// What was seen when all was looked at last.
	served      bool
	servedCount int // count, then
}

// attempts are commits of one path.
type attempts struct {
	began, ended time.Time
	uncertain    bool            // one was not answered
	absent       map[string]bool // references that the cache did not hold
}

// ledger is what the driver knows. Its rules are those by which the server is
// judged.
type ledger struct {
	seed  [32]byte
	grace time.Duration

	mu      sync.Mutex
	entries []*entry
	pins    map[string]*entry // those that were acknowledged and not removed
	faults  []string
	counts  counts
}

// counts are what a test reports.
type counts struct {
	kills, earlyKills, commandKills int
	outages                         int // of storage or database
	acknowledged, unanswered        int
	refused                         int // pushes that the server could not take: see pusher
	pinned, unpinned                int
	checks, reads                   int
	collected                       int
	lost, corrupt                   int
	compacted, packsDeleted         int
	orphans                         int
}

func newLedger(seed [32]byte, grace time.Duration) *ledger {
	return &ledger{seed: seed, grace: grace, pins: map[string]*entry{}}
}

// fault records what must not be.
func (l *ledger) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faultLocked(format, args...)
}

func (l *ledger) faultLocked(format string, args ...any) {
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

// takeFaults returns what must not have been since it was last called.
func (l *ledger) takeFaults() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.faults
	l.faults = nil
	return f
}

func (l *ledger) count(add func(c *counts)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	add(&l.counts)
}

// pick returns a path to push: mostly a new one, and sometimes one that was
// pushed before, whatever has become of it.
func (l *ledger) pick(r *rand.Rand) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.entries); n > 0 && r.IntN(3) == 0 {
		const recent = 300
		return l.entries[n-1-r.IntN(min(n, recent))]
	}
	return l.addLocked(r)
}

func (l *ledger) addLocked(r *rand.Rand) *entry {
	level := r.IntN(levels)
	lower := slices.DeleteFunc(slices.Clone(l.entries[max(0, len(l.entries)-60):]), func(e *entry) bool { return e.level >= level })
	var refs []*entry
	for range min(r.IntN(4), len(lower)) {
		if e := lower[r.IntN(len(lower))]; !slices.Contains(refs, e) {
			refs = append(refs, e)
		}
	}
	e := &entry{item: newItem(l.seed, len(l.entries), level, refs)}
	l.entries = append(l.entries, e)
	return e
}

// sample returns a path that was acknowledged, half of the time one that is
// pinned, or nil. pinned says which.
func (l *ledger) sample(r *rand.Rand) (e *entry, pinned bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pins) > 0 && r.IntN(2) == 0 {
		names := slices.Sorted(maps.Keys(l.pins))
		return l.pins[names[r.IntN(len(names))]], true
	}
	if e = l.recentLocked(r, 400); e == nil {
		return nil, false
	}
	return e, l.pinnedLocked(e)
}

// recentLocked returns one of the last paths, if it was acknowledged.
func (l *ledger) recentLocked(r *rand.Rand, most int) *entry {
	const tries = 20
	for range tries {
		if n := len(l.entries); n > 0 {
			if e := l.entries[n-1-r.IntN(min(n, most))]; e.acknowledged {
				return e
			}
		}
	}
	return nil
}

func (l *ledger) pinnedLocked(e *entry) bool {
	for _, p := range l.pins {
		if p == e {
			return true
		}
	}
	return false
}

// pinned says whether a pin keeps a path.
func (l *ledger) pinned(e *entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pinnedLocked(e)
}

// begin notes that a path is about to be committed.
func (l *ledger) begin(e *entry) (began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	began = time.Now()
	if e.active == 0 {
		e.group = attempts{began: began, absent: map[string]bool{}}
	}
	e.active++
	e.count++
	return began
}

// end notes how that ended: with the references that the cache does not hold, or
// with an error, after which it may have been committed or not.
func (l *ledger) end(e *entry, began time.Time, absent []string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.counts.acknowledged++
		e.acknowledged = true
		if began.After(e.used) {
			e.used = began
		}
		for _, base := range absent {
			e.group.absent[base] = true
		}
	} else {
		l.counts.unanswered++
		e.group.uncertain = true
	}
	if e.active--; e.active == 0 {
		e.group.ended = time.Now()
		e.last = e.group
	}
}

// judge compares what is served, now that nothing changes, with what has to be.
// killed is when the last process ended that could collect.
func (l *ledger) judge(served map[*entry]bool, killed time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := func(e *entry, format string, args ...any) {
		l.counts.lost++
		l.faultLocked("%s (acknowledged %v, %v before the kill) is lost: %s", e.base, e.acknowledged,
			killed.Sub(e.used).Round(time.Millisecond), fmt.Sprintf(format, args...))
	}
	for name, e := range l.pins {
		if !served[e] {
			lost(e, "it is pinned as %s", name)
		}
	}
	for _, e := range l.entries {
		if e.acknowledged && !served[e] && killed.Sub(e.used) < l.grace {
			lost(e, "it was acknowledged within the grace")
		}
		if served[e] && e.count == 0 {
			l.faultLocked("%s is served and was never committed", e.base)
		}
		if !served[e] {
			continue
		}
		for _, r := range e.refs {
			if !served[r] {
				if why := l.needs(e, r); why != "" {
					lost(r, "%s, which is served, refers to it, and %s", e.base, why)
				}
			}
		}
	}
	for _, e := range l.entries {
		if e.acknowledged && e.served && !served[e] {
			l.counts.collected++
		}
		e.served, e.servedCount = served[e], e.count
	}
}

// needs says why a reference of a path that is served has to be served, too, or
// nothing where the reference may be away.
func (l *ledger) needs(e, r *entry) string {
	switch {
	case e.served && e.servedCount == e.count && r.served:
		return "both were there before"
	case e.last.uncertain || !e.acknowledged:
		return ""
	case !e.last.absent[r.base]:
		return "the cache held it then"
	case r.acknowledged && r.used.After(e.last.ended):
		return "it was acknowledged later"
	}
	return ""
}
