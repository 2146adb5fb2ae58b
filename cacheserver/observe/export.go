package observe

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// DefaultService is what traces are from unless OTEL_SERVICE_NAME says otherwise.
const DefaultService = "cacheserver"

const endTime = 5 * time.Second

// Traces makes a provider that exports spans as the environment variables of
// OpenTelemetry's specification say: OTEL_TRACES_EXPORTER (otlp or none),
// OTEL_EXPORTER_OTLP_ENDPOINT and _PROTOCOL (http/protobuf or grpc) with their
// variants for traces, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
// OTEL_TRACES_SAMPLER, OTEL_BSP_*, OTEL_SDK_DISABLED. It is nil where neither an
// exporter nor an endpoint is named. end sends what is left, and takes 5 s at
// most; what could not be sent is logged, and costs nothing else.
func Traces(ctx context.Context, log *slog.Logger) (_ trace.TracerProvider, end func(), err error) {
	nothing := func() {}
	wanted, err := tracesWanted()
	if err != nil || !wanted {
		return nil, nothing, err
	}
	exporter, err := newExporter(ctx)
	if err != nil {
		return nil, nothing, fmt.Errorf("exporting traces: %w", err)
	}
	version, _ := Build()
	// What stands later counts: the environment's name for the service.
	from, err := resource.New(ctx,
		resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", DefaultService), attribute.String("service.version", version)),
		resource.WithFromEnv())
	if err != nil {
		return nil, nothing, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(&loggingExporter{exporter, log}), sdktrace.WithResource(from))
	return provider, func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		if err := provider.Shutdown(last); err != nil {
			log.Warn("the last traces were not exported", "error", err)
		}
	}, nil
}

func tracesWanted() (bool, error) {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return false, nil
	}
	switch exporter := os.Getenv("OTEL_TRACES_EXPORTER"); exporter {
	case "none":
		return false, nil
	case "otlp":
		return true, nil
	case "":
		return firstOf("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT") != "", nil
	default:
		return false, fmt.Errorf("OTEL_TRACES_EXPORTER=%q: there are otlp and none", exporter)
	}
}

func newExporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	switch protocol := firstOf("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); protocol {
	case "", "http/protobuf":
		return otlptracehttp.New(ctx)
	case "grpc":
		return otlptracegrpc.New(ctx)
	default:
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL=%q: there are http/protobuf and grpc", protocol)
	}
}

func firstOf(variables ...string) string {
	for _, name := range variables {
		if value := os.Getenv(name); value != "" {
			return value
		}
	}
	return ""
}

// loggingExporter logs what goes wrong, which the SDK would tell a handler that
// all of a process shares.
type loggingExporter struct {
	sdktrace.SpanExporter
	log *slog.Logger
}

// ExportSpans implements sdktrace.SpanExporter.
func (e *loggingExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.log.Warn("traces were not exported, and are lost", "spans", len(spans), "error", err)
	}
	return nil
}
