package observe

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// tracerName is who makes the spans.
const tracerName = "gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"

// propagator reads whose request of another service this one is a part of: the
// header traceparent of W3C's Trace Context.
var propagator = propagation.TraceContext{}

// startRequest begins the span of a request, nil where nobody wants one.
func (o *Observer) startRequest(r *http.Request, c class) (*http.Request, trace.Span) {
	if o.tracer == nil || c == classProbe {
		return r, nil
	}
	ctx := propagator.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := o.tracer.Start(ctx, r.Method+" "+c.door+" "+c.kind, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", r.Method),
		attribute.String("url.path", r.URL.Path),
		attribute.String("network.protocol.version", r.Proto),
		attribute.String("client.address", r.RemoteAddr),
		attribute.String("user_agent.original", r.UserAgent()),
		attribute.String("attic_cache.door", c.door),
	))
	return r.WithContext(ctx), span
}

func endRequest(span trace.Span, status int, whole bool) {
	span.SetAttributes(attribute.Int("http.response.status_code", status))
	switch {
	case !whole:
		span.SetStatus(codes.Error, "the answer was broken off")
	case status >= http.StatusInternalServerError:
		span.SetStatus(codes.Error, http.StatusText(status))
	}
	span.End()
}

// Span begins a span of what ctx belongs to, where that is traced; elsewhere it
// costs next to nothing. end ends it with how it went.
func Span(ctx context.Context, name string, attributes ...attribute.KeyValue) (_ context.Context, end func(error)) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, func(error) {}
	}
	ctx, span := parent.TracerProvider().Tracer(tracerName).Start(ctx, name, trace.WithAttributes(attributes...))
	return ctx, func(err error) { endSpan(span, err) }
}

func endSpan(span trace.Span, err error) {
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// Shared begins a span of work that is done for several requests at once: it is
// a part of the first one that is traced, and linked to the others.
func Shared(ctx context.Context, name string, requests []trace.Span) (_ context.Context, end func(error)) {
	var first trace.Span
	var others []trace.Link
	for _, s := range requests {
		switch {
		case !s.IsRecording():
		case first == nil:
			first = s
		default:
			others = append(others, trace.Link{SpanContext: s.SpanContext()})
		}
	}
	if first == nil {
		return ctx, func(error) {}
	}
	ctx, span := first.TracerProvider().Tracer(tracerName).Start(trace.ContextWithSpan(ctx, first), name, trace.WithLinks(others...))
	return ctx, func(err error) { endSpan(span, err) }
}
