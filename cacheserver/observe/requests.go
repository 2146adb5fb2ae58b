package observe

import (
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
)

type requestMetrics struct {
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	received *prometheus.CounterVec
	sent     *prometheus.CounterVec
	lookups  *prometheus.CounterVec
	tally    tally
}

func newRequestMetrics(f factory) requestMetrics {
	return requestMetrics{
		total: f.counter("requests_total",
			"Requests that were answered, by door, what they were about, and HTTP status or gRPC code; the code is aborted where the answer was broken off.", "door", "kind", "code"),
		duration: f.histogram("request_duration_seconds",
			"How long requests took, to the end of the answer.", fastBuckets, "door", "kind"),
		inFlight: f.gauge("requests_in_flight", "Requests that are being answered.", "door"),
		received: f.counter("received_bytes_total", "Bytes of the bodies of requests that were read.", "door"),
		sent:     f.counter("sent_bytes_total", "Bytes of the bodies of answers that were sent.", "door"),
		lookups: f.counter("lookups_total",
			"Questions for something that may be here (hit) or not (miss).", "door", "kind", "result"),
	}
}

// Handler counts, times and traces the requests that next answers, and keeps the
// response writer able to do what it can.
func (o *Observer) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := classify(r)
		if c == classGRPC { // GRPC sees the calls themselves
			next.ServeHTTP(w, r)
			return
		}
		start := time.Now()
		rec := NewRecorder(w)
		rec.http1 = r.ProtoMajor == 1
		body := &countedBody{ReadCloser: r.Body}
		if r.Body != nil && r.Body != http.NoBody {
			// net/http reads on from its own body; this request is a copy.
			r = r.WithContext(r.Context())
			r.Body = body
		}
		r, span := o.startRequest(r, c)
		inFlight := o.requests.inFlight.WithLabelValues(c.door)
		inFlight.Inc()
		whole := false
		defer func() {
			inFlight.Dec()
			code := strconv.Itoa(rec.Status())
			if !whole { // a panic, http.ErrAbortHandler as a rule, is on its way
				code = "aborted"
			}
			o.requests.total.WithLabelValues(c.door, c.kind, code).Inc()
			o.requests.duration.WithLabelValues(c.door, c.kind).Observe(time.Since(start).Seconds())
			o.requests.received.WithLabelValues(c.door).Add(float64(body.n))
			o.requests.sent.WithLabelValues(c.door).Add(float64(rec.Bytes()))
			if c.lookup && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
				o.requests.lookUp(c.door, c.kind, rec.Status())
			}
			if span != nil {
				span.SetAttributes(attribute.Int64("http.response.body.size", rec.Bytes()), attribute.Int64("http.request.body.size", body.n))
				endRequest(span, rec.Status(), whole)
			}
		}()
		next.ServeHTTP(rec, r)
		whole = true
	})
}

func (m *requestMetrics) lookUp(door, kind string, status int) {
	switch {
	case status == http.StatusNotFound:
		m.looked(door, kind, 0, 1)
	case status < http.StatusBadRequest: // redirected and not modified among them
		m.looked(door, kind, 1, 0)
	}
}

// countedBody counts what is read of a request.
type countedBody struct {
	io.ReadCloser
	n int64
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	return n, err
}
