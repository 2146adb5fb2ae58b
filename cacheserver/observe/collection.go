package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type collectionMetrics struct {
	runs     *prometheus.CounterVec
	duration *prometheus.HistogramVec
	removed  *prometheus.CounterVec
	freed    prometheus.Counter
	success  *prometheus.GaugeVec
	over     prometheus.Gauge
}

func newCollectionMetrics(f factory) collectionMetrics {
	return collectionMetrics{
		runs:     f.counter("collections_total", "Collections by this server; skipped are those that another process was busy with.", "outcome"),
		duration: f.histogram("collection_duration_seconds", "How long collections took.", slowBuckets, "outcome"),
		removed:  f.counter("collection_removed_total", "What collections by this server removed.", "kind"),
		freed:    f.counter("collection_freed_bytes_total", "Bytes of packs that collections by this server freed.").WithLabelValues(),
		success:  f.gauge("collection_last_success_timestamp_seconds", "When a collection by this server last ended well."),
		over:     f.gauge("collection_over_limit_bytes", "Bytes of packs beyond the size limit that the last collection could not free, because all that is left is pinned or in use.").WithLabelValues(),
	}
}

// Collection is what a collection did.
type Collection struct {
	Skipped bool // another process was collecting
	Err     error
	Took    time.Duration
	// Removed counts by kind: path, object, action, blob, chunk, pack.
	Removed   map[string]int64
	Freed     int64 // bytes; below 0 where more was written than went
	OverLimit int64 // bytes
}

// Collected counts a collection.
func (o *Observer) Collected(c Collection) {
	m := &o.collects
	if c.Skipped {
		m.runs.WithLabelValues("skipped").Inc()
		return
	}
	m.runs.WithLabelValues(outcomeOf(c.Err)).Inc()
	m.duration.WithLabelValues(outcomeOf(c.Err)).Observe(c.Took.Seconds())
	for kind, n := range c.Removed {
		m.removed.WithLabelValues(kind).Add(float64(n))
	}
	m.freed.Add(float64(max(c.Freed, 0)))
	if c.Err == nil {
		m.success.WithLabelValues().SetToCurrentTime()
		m.over.Set(float64(c.OverLimit))
	}
}
