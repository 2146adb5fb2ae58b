package page

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// span is a stretch of time up to now that plots can show, in steps of which each
// is a point.
type span struct {
	name, label  string
	length, step time.Duration
}

const dayTime = 24 * time.Hour

var spans = []span{
	{"day", "24 hours", dayTime, 10 * time.Minute},
	{"week", "7 days", 7 * dayTime, time.Hour},
	{"month", "30 days", 30 * dayTime, 4 * time.Hour},
	{"quarter", "90 days", 90 * dayTime, 12 * time.Hour},
}

// spanOf returns the span of a name, or the usual one.
func spanOf(name string) span {
	for _, s := range spans {
		if s.name == name {
			return s
		}
	}
	return spans[1]
}

// history is what was sampled within a span.
type history struct {
	span
	from, to     time.Time
	series       map[string][]index.Sample
	hits, misses float64
}

// historyFor is how long a history is shown before it is read again: a quarter of
// a year is 100,000 samples.
const historyFor = time.Minute

// histories are those read last.
type histories struct {
	mu   sync.Mutex
	last map[string]*history // by the span's name
}

func (h *histories) read(ctx context.Context, idx index.Index, s span) (*history, error) {
	h.mu.Lock()
	known := h.last[s.name]
	h.mu.Unlock()
	now := time.Now()
	if known != nil && now.Sub(known.to) < historyFor {
		return known, nil
	}
	fresh := &history{span: s, from: now.Add(-s.length), to: now, series: map[string][]index.Sample{}}
	earliest := now
	for _, name := range []string{samplePackBytes, sampleBlobBytes, sampleChunkBytes, sampleHits, sampleMisses} {
		samples, err := idx.Samples(ctx, name, fresh.from)
		if err != nil {
			return nil, fmt.Errorf("reading the history: %w", err)
		}
		if len(samples) > 0 && samples[0].At.Before(earliest) {
			earliest = samples[0].At
		}
		adds := name == sampleHits || name == sampleMisses
		fresh.series[name] = thin(samples, s.step, adds)
	}
	fresh.hits, fresh.misses = sum(fresh.series[sampleHits]), sum(fresh.series[sampleMisses])
	// A server that is new fills its plots rather than their right edge.
	const narrowest = time.Hour
	if earliest.After(fresh.from) {
		fresh.from = earliest
	}
	if latest := now.Add(-narrowest); fresh.from.After(latest) {
		fresh.from = latest
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last == nil {
		h.last = map[string]*history{}
	}
	h.last[s.name] = fresh
	return fresh, nil
}

// thin leaves one sample for each step: the last, or, where they add up, the sum.
func thin(samples []index.Sample, step time.Duration, adds bool) []index.Sample {
	var out []index.Sample
	var current time.Time
	for _, s := range samples {
		if at := s.At.Truncate(step); len(out) > 0 && at.Equal(current) {
			if adds {
				s.Value += out[len(out)-1].Value
			}
			out[len(out)-1] = s
		} else {
			out, current = append(out, s), at
		}
	}
	return out
}

func sum(samples []index.Sample) (total float64) {
	for _, s := range samples {
		total += s.Value
	}
	return total
}

// per divides samples by those of the same time, where there are such and they
// are above 0.
func per(samples, by []index.Sample) []index.Sample {
	var out []index.Sample
	for _, s := range samples {
		i, ok := slices.BinarySearchFunc(by, s, func(a, b index.Sample) int { return a.At.Compare(b.At) })
		if ok && by[i].Value > 0 {
			out = append(out, index.Sample{At: s.At, Value: s.Value / by[i].Value})
		}
	}
	return out
}

// hitRatio is the part of lookups that were hits, step by step.
func (h *history) hitRatio() []index.Sample {
	all := make([]index.Sample, 0, len(h.series[sampleHits]))
	hits := h.series[sampleHits]
	for i, m := range h.series[sampleMisses] {
		if i < len(hits) && hits[i].At.Equal(m.At) {
			all = append(all, index.Sample{At: m.At, Value: m.Value + hits[i].Value})
		}
	}
	return per(hits, all)
}

// figures are those of a span; what the store holds now is added to them.
func (h *history) figures() figures {
	var f figures
	if total := h.hits + h.misses; total > 0 {
		f.HitRatio = percentText(h.hits / total)
		f.HitNote = fmt.Sprintf("%s lookups in %s", countText(int64(total)), h.label)
	}
	return f
}

func (f *figures) add(u index.Usage) {
	f.Known = true
	f.Stored, f.Contents, f.Paths = bytesize.Text(u.PackBytes), bytesize.Text(u.BlobBytes), countText(u.Paths)
	f.DeadNote = fmt.Sprintf("in %s packs", countText(u.Packs))
	if u.DeadBytes > 0 {
		f.DeadNote += fmt.Sprintf(", %s to be compacted", bytesize.Text(u.DeadBytes))
	}
	if live := u.PackBytes - u.DeadBytes; live > 0 && u.ChunkBytes > 0 {
		f.Factor = factorText(float64(u.BlobBytes) / float64(live))
		f.Dup = fmt.Sprintf("%s by deduplication, %s by compression",
			factorText(float64(u.BlobBytes)/float64(u.ChunkBytes)), factorText(float64(u.ChunkBytes)/float64(live)))
	}
}

func (h *history) plots() []plot {
	bytes := newPlot(h, "Size", "bytes on disk, and what they hold", inBytes,
		line{"packs on disk", h.series[samplePackBytes], true},
		line{"contents, each chunk once", h.series[sampleChunkBytes], false},
		line{"contents", h.series[sampleBlobBytes], false})
	ratio := newPlot(h, "Hit ratio", "of what clients asked for", inPercent,
		line{"narinfos and action results found", h.hitRatio(), true})
	saved := newPlot(h, "Deduplication", "contents for each byte stored", inFactors,
		line{"with compression", per(h.series[sampleBlobBytes], h.series[samplePackBytes]), true},
		line{"deduplication alone", per(h.series[sampleBlobBytes], h.series[sampleChunkBytes]), false})
	return []plot{bytes, ratio, saved}
}
