package observe

import "sync/atomic"

// tally counts the lookups that make the hit ratio.
type tally struct{ hits, misses atomic.Uint64 }

func (m *requestMetrics) looked(door, kind string, hits, misses int) {
	if hits > 0 {
		m.lookups.WithLabelValues(door, kind, "hit").Add(float64(hits))
	}
	if misses > 0 {
		m.lookups.WithLabelValues(door, kind, "miss").Add(float64(misses))
	}
	if kind == kindNarinfo || kind == kindAction {
		m.tally.hits.Add(uint64(max(hits, 0)))
		m.tally.misses.Add(uint64(max(misses, 0)))
	}
}

// Lookups returns how often, since the start, clients asked for a path or for an
// action's result, and it was here, or not. What they ask for next, such as the
// NAR, is not counted: it is there.
func (o *Observer) Lookups() (hits, misses uint64) {
	return o.requests.tally.hits.Load(), o.requests.tally.misses.Load()
}
