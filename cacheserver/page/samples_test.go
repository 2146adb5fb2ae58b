package page_test

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/page"
)

// memory is what a sampler needs of an index, whose goroutines have no place in a
// bubble.
type memory struct {
	index.Index
	mu      sync.Mutex
	samples map[string][]index.Sample
}

func (m *memory) Samples(_ context.Context, name string, since time.Time) (found []index.Sample, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.samples[name] {
		if !s.At.Before(since) {
			found = append(found, s)
		}
	}
	return found, nil
}

func (m *memory) Update(_ context.Context, change func(index.Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return change(&memoryTx{m: m})
}

type memoryTx struct {
	index.Tx
	m *memory
}

func (t *memoryTx) AddSample(name string, s index.Sample, _ time.Time) error {
	t.m.samples[name] = append(t.m.samples[name], s)
	return nil
}

func TestEachLookupIsSampledOnceAndTheStoreByOneServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{samples: map[string][]index.Sample{}}
		var hits atomic.Uint64
		ctx, stop := context.WithCancel(t.Context())
		for range 2 { // servers over one index
			s := &page.Sampler{
				Index: m, Log: slog.New(slog.DiscardHandler),
				Usage:   func(context.Context) (index.Usage, error) { return index.Usage{PackBytes: 7}, nil },
				Lookups: func() (uint64, uint64) { return hits.Load(), 1 },
			}
			go func() { _ = s.Run(ctx) }()
			time.Sleep(time.Second)
		}
		for range 120 {
			time.Sleep(30 * time.Second)
			hits.Add(1)
		}
		stop()
		synctest.Wait()
		total := func(name string) (sum float64) {
			for _, s := range m.samples[name] {
				sum += s.Value
			}
			return sum
		}
		if total("hits") != 240 || total("misses") != 2 {
			t.Errorf("%v hits and %v misses were sampled, of 240 and 2", total("hits"), total("misses"))
		}
		if n := len(m.samples["pack-bytes"]); n < 10 || n > 15 {
			t.Errorf("within an hour, the store was sampled %d times", n)
		}
	})
}

func TestPlotsNeedNoDataAndTakeAnySpan(t *testing.T) {
	t.Parallel()
	empty, full := open(t), open(t)
	full.fill(t)
	for _, span := range []string{"", "day", "week", "month", "quarter", "nonsense"} {
		empty.get(t, "/?range="+span).has(t, http.StatusOK, "Nothing was recorded yet")
		full.get(t, "/?range="+span).has(t, http.StatusOK, `<path class="line s0"`)
		full.get(t, "/?range="+span).lacks(t, "NaN", "Inf")
	}
}
