// Package observe tells how a server fares: metrics for Prometheus, and traces
// for OpenTelemetry. It stands around the doors and the engines, which know
// little of it: what is sent and received is counted at the edge, what is
// written where index and storage are called.
package observe

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
)

// namespace begins the names of all metrics but those of Go and the process.
const namespace = "attic_cache"

// Observer watches one server. Each has a registry of its own, so that several
// may be open in one process. A nil Observer watches nothing, and its wrapping
// methods return what they are given.
type Observer struct {
	registry *prometheus.Registry
	requests requestMetrics
	writes   writeMetrics
	storage  *prometheus.HistogramVec
	collects collectionMetrics
	tracer   trace.Tracer // nil where nobody wants traces
}

// New makes an observer. traces may be nil: then none are made.
func New(traces trace.TracerProvider) *Observer {
	o := &Observer{registry: prometheus.NewRegistry()}
	if traces != nil {
		o.tracer = traces.Tracer(tracerName)
	}
	f := factory{o.registry}
	f.process()
	o.requests = newRequestMetrics(f)
	o.writes = newWriteMetrics(f)
	o.collects = newCollectionMetrics(f)
	o.storage = f.histogram("storage_operation_duration_seconds",
		"How long the operations on packs that are on S3 took; of reads, until the first byte.", fastBuckets, "operation", "outcome")
	return o
}

// Metrics answers Prometheus. A scrape waits for nothing but memory.
func (o *Observer) Metrics(log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(o.registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	})
}

// Register adds what has numbers of its own.
func (o *Observer) Register(cs ...prometheus.Collector) { o.registry.MustRegister(cs...) }

// Outcomes of an operation, as labels.
const (
	outcomeOK    = "ok"
	outcomeError = "error"
)

func outcomeOf(err error) string {
	if err != nil {
		return outcomeError
	}
	return outcomeOK
}
