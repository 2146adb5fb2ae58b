package reporter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
)

// flushTime bounds what a collector that does not answer costs at the end.
const flushTime = 5 * time.Second

// Spans makes a span of the run and, in it, of each step, derivation, fetched and
// pushed path. It is an observer.
type Spans struct {
	provider *trace.TracerProvider
	tracer   api.Tracer
	run      api.Span
	ctx      context.Context //nolint:containedctx // of the run's span, which is the parent of events that carry none

	mu   sync.Mutex
	step context.Context //nolint:containedctx // of the step's span
	open map[string]api.Span
}

// NewSpans begins the span of a run of this name, and sends to where the standard
// variables say (OTEL_EXPORTER_OTLP_ENDPOINT, …_TRACES_ENDPOINT, …_PROTOCOL,
// …_HEADERS, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER and
// so on); a TRACEPARENT is the run's parent. It returns nil where they name no
// collector, or OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER=none are set.
func NewSpans(ctx context.Context, name string, getenv func(string) string) (*Spans, error) {
	if !wanted(getenv) {
		return nil, nil
	}
	exporter, err := newExporter(ctx, getenv)
	if err != nil {
		return nil, fmt.Errorf("OpenTelemetry: %w", err)
	}
	// Attributes that cannot be read are told, and no reason to send none.
	described, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "flywheel")), resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil && described == nil {
		return nil, fmt.Errorf("OpenTelemetry: %w", err)
	}
	return startSpans(ctx, trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(described)), name, getenv), nil
}

func wanted(getenv func(string) string) bool {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return false
	}
	switch getenv("OTEL_TRACES_EXPORTER") {
	case "otlp":
		return true
	case "":
		return getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	}
	return false
}

func newExporter(ctx context.Context, getenv func(string) string) (trace.SpanExporter, error) {
	protocol := getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
	if protocol == "" {
		protocol = getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	switch protocol {
	case "grpc":
		return otlptracegrpc.New(ctx)
	case "", "http/protobuf":
		return otlptracehttp.New(ctx)
	}
	return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL=%q: want grpc or http/protobuf", protocol)
}

func startSpans(ctx context.Context, provider *trace.TracerProvider, name string, getenv func(string) string) *Spans {
	parent := propagation.TraceContext{}.Extract(context.WithoutCancel(ctx), propagation.MapCarrier{
		"traceparent": getenv("TRACEPARENT"), "tracestate": getenv("TRACESTATE"),
	})
	s := &Spans{provider: provider, tracer: provider.Tracer("gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/reporter"), open: map[string]api.Span{}}
	s.ctx, s.run = s.tracer.Start(parent, name)
	s.step = s.ctx
	return s
}

// Observe implements event.Observer.
func (s *Spans) Observe(e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e := e.(type) {
	case event.StepBegan:
		var span api.Span
		s.step, span = s.tracer.Start(s.ctx, e.Step)
		s.open["step "+e.Step] = span
	case event.StepEnded:
		s.end("step "+e.Step, failureText(e.Outcome == event.Failed, e.Text), attribute.String("flywheel.text", e.Text), attribute.String("flywheel.outcome", string(e.Outcome)))
		s.step = s.ctx
	case event.BuildBegan:
		s.begin("build "+e.Derivation, "build "+nameOf(e.Derivation), attribute.String("nix.derivation", e.Derivation))
	case event.BuildEnded:
		s.end("build "+e.Derivation, failureText(e.Failed, "the build failed"))
	case event.FetchBegan:
		s.begin("fetch "+e.Path, "fetch "+nameOf(e.Path), attribute.String("nix.path", e.Path), attribute.String("nix.substituter", e.From))
	case event.FetchEnded:
		s.end("fetch "+e.Path, "")
	case event.PathPushing:
		s.begin("push "+e.Path, "push "+nameOf(e.Path), attribute.String("nix.path", e.Path), attribute.Int64("nix.nar_size", e.NarSize))
	case event.PathPushed:
		text := ""
		if e.Err != nil {
			text = e.Err.Error()
		}
		s.end("push "+e.Path, text)
	case event.InstallableEnded:
		// Its beginning is not told.
		ended := time.Now()
		_, span := s.tracer.Start(s.ctx, "installable "+e.Installable, api.WithTimestamp(ended.Add(-e.Took)),
			api.WithAttributes(attribute.StringSlice("nix.results", e.Results), attribute.String("flywheel.outcome", string(e.Outcome))))
		if e.Outcome == event.Failed {
			span.SetStatus(codes.Error, e.Text)
		}
		span.End(api.WithTimestamp(ended))
	case event.CacheFault:
		s.run.AddEvent("cache fault", api.WithAttributes(attribute.String("flywheel.text", e.Text)))
	}
}

func failureText(failed bool, text string) string {
	if failed {
		return text
	}
	return ""
}

func (s *Spans) begin(key, name string, attributes ...attribute.KeyValue) {
	_, span := s.tracer.Start(s.step, name, api.WithAttributes(attributes...))
	s.open[key] = span
}

// end ends what began under a key; failed says why it failed, or is empty. A step
// that never began has no span.
func (s *Spans) end(key, failed string, attributes ...attribute.KeyValue) {
	span := s.open[key]
	if span == nil {
		return
	}
	delete(s.open, key)
	span.SetAttributes(attributes...)
	if failed != "" {
		span.SetStatus(codes.Error, failed)
	}
	span.End()
}

// End ends the run's span, and those that nothing ended, and sends what is left,
// for at most some seconds.
func (s *Spans) End(ctx context.Context, failed bool) error {
	s.mu.Lock()
	for _, span := range s.open {
		span.End()
	}
	clear(s.open)
	s.mu.Unlock()
	if failed {
		s.run.SetStatus(codes.Error, "the run failed")
	}
	s.run.End()
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	err := s.provider.ForceFlush(ctx)
	return errors.Join(err, s.provider.Shutdown(ctx))
}
