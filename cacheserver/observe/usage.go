package observe

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

const (
	// usageFor is how old a count may be before it is made again. Counting may take
	// the database seconds.
	usageFor = time.Minute
	// usagePatience is how long a page waits for a count, rather than show none.
	usagePatience = 500 * time.Millisecond
)

// Usage counts what an index holds, beside those who want to know: nobody waits
// for a count. It is a prometheus.Collector.
type Usage struct {
	count func(context.Context) (index.Usage, error)
	log   *slog.Logger
	asked chan struct{} // has room for one

	mu      sync.Mutex
	known   index.Usage
	at      time.Time     // of known; zero before the first
	counted chan struct{} // closed by the next count
}

// NewUsage makes a counter over count, such as index.Inventory's Usage. It counts
// while Run does.
func NewUsage(count func(context.Context) (index.Usage, error), log *slog.Logger) *Usage {
	return &Usage{count: count, log: log, asked: make(chan struct{}, 1), counted: make(chan struct{})}
}

// Run counts when it is asked, once a minute at most, until ctx is done.
func (u *Usage) Run(ctx context.Context) error {
	for {
		select {
		case <-u.asked:
		case <-ctx.Done():
			return nil
		}
		if _, fresh, _ := u.now(); fresh {
			continue
		}
		if _, err := u.Count(ctx); err != nil {
			if ctx.Err() == nil && !errors.Is(err, index.ErrUnavailable) {
				u.log.Warn("what the store holds was not counted", "error", err)
			}
			select { // who asks every second does not make a broken database count every second
			case <-time.After(usageFor / 6):
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// Count counts now.
func (u *Usage) Count(ctx context.Context) (index.Usage, error) {
	counted, err := u.count(ctx)
	if err != nil {
		return index.Usage{}, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.known, u.at = counted, time.Now()
	close(u.counted)
	u.counted = make(chan struct{})
	return counted, nil
}

// now returns what is known, and whether that is of the last minute; next is
// closed by the next count.
func (u *Usage) now() (usage index.Usage, fresh bool, next <-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.known, time.Since(u.at) < usageFor, u.counted
}

func (u *Usage) ask() {
	select {
	case u.asked <- struct{}{}:
	default: // somebody has
	}
}

// Recent returns the last count, and asks for another when that is old. Only
// where there is none yet does it wait, half a second at most; ok is false when
// that was not enough.
func (u *Usage) Recent(ctx context.Context) (usage index.Usage, ok bool) {
	known, fresh, next := u.now()
	if fresh {
		return known, true
	}
	u.ask()
	if u.everCounted() {
		return known, true
	}
	ctx, cancel := context.WithTimeout(ctx, usagePatience)
	defer cancel()
	select {
	case <-next:
		known, _, _ = u.now()
		return known, true
	case <-ctx.Done():
		return index.Usage{}, false
	}
}

func (u *Usage) everCounted() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.at.IsZero()
}

func storeDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "store", name), help, nil, nil)
}

// usageDescs are what Collect tells, of the last count.
var usageDescs = []struct {
	*prometheus.Desc
	value func(*index.Usage) int64
}{
	{storeDesc("packs", "Packs."), func(u *index.Usage) int64 { return u.Packs }},
	{storeDesc("pack_bytes", "Bytes of all packs."), func(u *index.Usage) int64 { return u.PackBytes }},
	{storeDesc("dead_bytes", "Bytes of packs in which no chunk lies any more; compaction frees them."), func(u *index.Usage) int64 { return u.DeadBytes }},
	{storeDesc("paths", "Store paths in all caches."), func(u *index.Usage) int64 { return u.Paths }},
	{storeDesc("blobs", "Blobs: NARs, and what Bazel keeps."), func(u *index.Usage) int64 { return u.Blobs }},
	{storeDesc("blob_bytes", "Bytes of all blobs, uncompressed."), func(u *index.Usage) int64 { return u.BlobBytes }},
	{storeDesc("chunks", "Chunks."), func(u *index.Usage) int64 { return u.Chunks }},
	{storeDesc("chunk_bytes", "Bytes of all chunks, uncompressed: what of blob_bytes is left by deduplication."), func(u *index.Usage) int64 { return u.ChunkBytes }},
}

var countedDesc = storeDesc("counted_timestamp_seconds", "When what attic_cache_store_* tell was counted.")

// Describe implements prometheus.Collector.
func (u *Usage) Describe(out chan<- *prometheus.Desc) {
	for _, d := range usageDescs {
		out <- d.Desc
	}
	out <- countedDesc
}

// Collect implements prometheus.Collector. It tells of the last count, and of
// nothing before the first.
func (u *Usage) Collect(out chan<- prometheus.Metric) {
	known, fresh, _ := u.now()
	if !fresh {
		u.ask()
	}
	if !u.everCounted() {
		return
	}
	for _, d := range usageDescs {
		out <- prometheus.MustNewConstMetric(d.Desc, prometheus.GaugeValue, float64(d.value(&known)))
	}
	u.mu.Lock()
	at := u.at
	u.mu.Unlock()
	out <- prometheus.MustNewConstMetric(countedDesc, prometheus.GaugeValue, float64(at.UnixMilli())/1000)
}
