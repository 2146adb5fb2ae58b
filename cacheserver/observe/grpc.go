package observe

import (
	"context"
	"strings"
	"sync/atomic"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// GRPC returns what makes a gRPC server count, time and trace its calls.
func (o *Observer) GRPC() grpc.ServerOption { return grpc.StatsHandler(&callStats{o}) }

// grpcKinds are what the methods that the server has are about.
var grpcKinds = map[string]string{
	"GetCapabilities":      "info",
	"GetActionResult":      kindAction,
	"UpdateActionResult":   "action-update",
	"FindMissingBlobs":     "missing-blobs",
	"BatchReadBlobs":       kindBlob,
	"BatchUpdateBlobs":     "blob-update",
	"GetTree":              "tree",
	"SplitBlob":            "split",
	"SpliceBlob":           "splice",
	"Read":                 "stream-read",
	"Write":                "stream-write",
	"QueryWriteStatus":     "stream-status",
	"Check":                "health",
	"Watch":                "health",
	"List":                 "health",
	"ServerReflectionInfo": "reflection",
}

type callStats struct{ o *Observer }

// call is what is known of one, by its context.
type call struct {
	kind           string
	asked          atomic.Int64 // digests of FindMissingBlobs
	received, sent atomic.Int64
	span           trace.Span // nil where nobody wants one
}

type callKey struct{}

// TagRPC implements stats.Handler.
func (s *callStats) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	method := info.FullMethodName[strings.LastIndexByte(info.FullMethodName, '/')+1:]
	c := &call{kind: kindOf(grpcKinds, method)}
	if s.o.tracer != nil && c.kind != "health" {
		headers, _ := metadata.FromIncomingContext(ctx)
		ctx, c.span = s.o.tracer.Start(propagator.Extract(ctx, carrier(headers)), doorBazelGRPC+" "+c.kind,
			trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
				attribute.String("rpc.system", "grpc"), attribute.String("rpc.method", info.FullMethodName), attribute.String("attic_cache.door", doorBazelGRPC)))
	}
	return context.WithValue(ctx, callKey{}, c)
}

// HandleRPC implements stats.Handler.
func (s *callStats) HandleRPC(ctx context.Context, event stats.RPCStats) {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return
	}
	m := &s.o.requests
	switch e := event.(type) {
	case *stats.Begin:
		m.inFlight.WithLabelValues(doorBazelGRPC).Inc()
	case *stats.InPayload:
		c.received.Add(int64(e.Length))
		if asked, ok := e.Payload.(*repb.FindMissingBlobsRequest); ok {
			c.asked.Store(int64(len(asked.BlobDigests)))
		}
	case *stats.OutPayload:
		c.sent.Add(int64(e.Length))
		c.answered(m, e.Payload)
	case *stats.End:
		m.inFlight.WithLabelValues(doorBazelGRPC).Dec()
		code := status.Code(e.Error)
		m.total.WithLabelValues(doorBazelGRPC, c.kind, code.String()).Inc()
		m.duration.WithLabelValues(doorBazelGRPC, c.kind).Observe(e.EndTime.Sub(e.BeginTime).Seconds())
		m.received.WithLabelValues(doorBazelGRPC).Add(float64(c.received.Load()))
		m.sent.WithLabelValues(doorBazelGRPC).Add(float64(c.sent.Load()))
		c.ended(m, code)
	}
}

// answered counts what an answer says is here or not.
func (c *call) answered(m *requestMetrics, answer any) {
	switch a := answer.(type) {
	case *repb.FindMissingBlobsResponse:
		missing := len(a.MissingBlobDigests)
		m.looked(doorBazelGRPC, "upload", max(int(c.asked.Load())-missing, 0), missing)
	case *repb.BatchReadBlobsResponse:
		var hits, misses int
		for _, r := range a.Responses {
			switch codes.Code(r.GetStatus().GetCode()) {
			case codes.OK:
				hits++
			case codes.NotFound:
				misses++
			}
		}
		m.looked(doorBazelGRPC, kindBlob, hits, misses)
	}
}

func (c *call) ended(m *requestMetrics, code codes.Code) {
	hit, miss := 0, 0
	switch code {
	case codes.OK:
		hit = 1
	case codes.NotFound:
		miss = 1
	}
	switch c.kind {
	case kindAction:
		m.looked(doorBazelGRPC, kindAction, hit, miss)
	case "stream-read":
		m.looked(doorBazelGRPC, kindBlob, hit, miss)
	}
	if c.span == nil {
		return
	}
	c.span.SetAttributes(attribute.Int("rpc.grpc.status_code", int(code)),
		attribute.Int64("rpc.request.size", c.received.Load()), attribute.Int64("rpc.response.size", c.sent.Load()))
	switch code {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		c.span.SetStatus(otelcodes.Error, code.String())
	}
	c.span.End()
}

// TagConn implements stats.Handler.
func (s *callStats) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (s *callStats) HandleConn(context.Context, stats.ConnStats) {}

// carrier reads the headers of a call.
type carrier metadata.MD

// Get implements propagation.TextMapCarrier.
func (c carrier) Get(key string) string {
	if values := metadata.MD(c).Get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set implements propagation.TextMapCarrier.
func (c carrier) Set(key, value string) { metadata.MD(c).Set(key, value) }

// Keys implements propagation.TextMapCarrier.
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}
