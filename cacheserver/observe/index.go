package observe

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

type writeMetrics struct {
	updates   *prometheus.HistogramVec
	paths     prometheus.Counter
	narBytes  prometheus.Counter
	packs     prometheus.Counter
	packBytes prometheus.Counter
}

func newWriteMetrics(f factory) writeMetrics {
	return writeMetrics{
		updates:   f.histogram("index_update_duration_seconds", "How long changes of the index took, to the commit that made them durable.", fastBuckets, "outcome"),
		paths:     f.counter("committed_paths_total", "Store paths that were recorded, those that were there already among them.").WithLabelValues(),
		narBytes:  f.counter("committed_nar_bytes_total", "Bytes of the NARs, uncompressed, of the store paths that were recorded.").WithLabelValues(),
		packs:     f.counter("written_packs_total", "Packs that were recorded, those that compaction wrote among them.").WithLabelValues(),
		packBytes: f.counter("written_pack_bytes_total", "Bytes of the packs that were recorded: what committed_nar_bytes_total takes, deduplicated and compressed.").WithLabelValues(),
	}
}

// Index watches the changes of an index.
func (o *Observer) Index(next index.Index) index.Index {
	if o == nil {
		return next
	}
	return &watchedIndex{Index: next, o: o}
}

type watchedIndex struct {
	index.Index
	o *Observer
}

// Unwrap returns the index that Index was given to watch.
func Unwrap(x index.Index) index.Index {
	if watched, ok := x.(*watchedIndex); ok {
		return watched.Index
	}
	return x
}

// Update implements index.Index.
func (x *watchedIndex) Update(ctx context.Context, change func(index.Tx) error) error {
	ctx, end := Span(ctx, "index update")
	start := time.Now()
	var written written
	err := x.Index.Update(ctx, func(tx index.Tx) error {
		written = noneWritten // an earlier try of the change was undone
		return change(&watchedTx{Tx: tx, written: &written})
	})
	m := &x.o.writes
	m.updates.WithLabelValues(outcomeOf(err)).Observe(time.Since(start).Seconds())
	if err == nil {
		m.paths.Add(float64(written.paths))
		m.narBytes.Add(float64(written.narBytes))
		m.packs.Add(float64(written.packs))
		m.packBytes.Add(float64(written.packBytes))
	}
	end(err)
	return err
}

// written is what a change records.
type written struct{ paths, narBytes, packs, packBytes int64 }

var noneWritten written

type watchedTx struct {
	index.Tx
	written *written
}

// AddPack implements index.Tx.
func (t *watchedTx) AddPack(name string, size int64, entries []pack.Entry) error {
	err := t.Tx.AddPack(name, size, entries)
	if err == nil {
		t.written.packs++
		t.written.packBytes += size
	}
	return err
}

// PutPath implements index.Tx.
func (t *watchedTx) PutPath(p index.Path) ([]string, error) {
	absent, err := t.Tx.PutPath(p)
	if err == nil {
		t.written.paths++
		t.written.narBytes += p.NAR.Size
	}
	return absent, err
}
