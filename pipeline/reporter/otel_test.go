package reporter

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

func TestSpansOfARunAreWithinOneAnother(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	env := map[string]string{"TRACEPARENT": parent}
	recorder := tracetest.NewSpanRecorder()
	s := startSpans(t.Context(), trace.NewTracerProvider(trace.WithSpanProcessor(recorder)), "flywheel build", func(n string) string { return env[n] })
	for _, e := range recorded() {
		s.Observe(e.e)
	}
	if err := s.End(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	got := map[string]trace.ReadOnlySpan{}
	for _, span := range recorder.Ended() {
		got[span.Name()] = span
		if !strings.Contains(parent, span.SpanContext().TraceID().String()) {
			t.Errorf("%s is in another trace than the job's", span.Name())
		}
	}
	for name, in := range map[string]string{
		"build": "flywheel build", "substituters": "flywheel build", "build docs-2.1": "build", "fetch cc-13": "build",
		"push lib-1.0": "build", "installable .#docs": "flywheel build",
	} {
		if got[name] == nil || got[in] == nil || got[name].Parent().SpanID() != got[in].SpanContext().SpanID() {
			t.Errorf("%s is not in %s", name, in)
		}
	}
	for _, name := range []string{"flywheel build", "build docs-2.1", "push app-2.1", "build"} {
		if got[name] == nil || got[name].Status().Code != codes.Error {
			t.Errorf("%s is not marked as failed", name)
		}
	}
	if len(recorder.Started()) != len(recorder.Ended()) {
		t.Error("some spans have no end")
	}
}

func TestSpansAreSentToTheCollectorOfTheEnvironment(t *testing.T) {
	var got atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); err == nil && r.URL.Path == "/v1/traces" {
			got.Add(n)
		}
	}))
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL) // the library reads it itself
	env := func(n string) string { return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL}[n] }
	s, err := NewSpans(t.Context(), "flywheel build", env)
	if err != nil || s == nil {
		t.Fatal(s, err)
	}
	for _, e := range recorded() {
		s.Observe(e.e)
	}
	if err := s.End(t.Context(), false); err != nil || got.Load() == 0 {
		t.Errorf("%d bytes, %v", got.Load(), err)
	}
}

func TestWithoutACollectorThereAreNoSpans(t *testing.T) {
	t.Parallel()
	for _, env := range []map[string]string{
		{},
		{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"},
	} {
		if s, err := NewSpans(t.Context(), "x", func(n string) string { return env[n] }); s != nil || err != nil {
			t.Errorf("%v: %v, %v", env, s, err)
		}
	}
}
