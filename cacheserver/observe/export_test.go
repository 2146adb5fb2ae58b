package observe_test

import (
	"compress/gzip"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/observe"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
)

// receiver takes spans by OTLP over HTTP.
type receiver struct {
	mu       sync.Mutex
	spans    map[string]*tracepb.Span // by name, the last
	resource map[string]string
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var body io.Reader = req.Body
	if req.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(req.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	text, err := io.ReadAll(body)
	var got collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(text, &got)
	}
	if err != nil || req.URL.Path != "/v1/traces" {
		http.Error(w, "not what was expected", http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range got.ResourceSpans {
		for _, a := range of.Resource.Attributes {
			r.resource[a.Key] = a.Value.GetStringValue()
		}
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				r.spans[s.Name] = s
			}
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var quiet = slog.New(slog.DiscardHandler)

// It sets the environment of the process, so that it runs beside no other.
func TestTracesReachTheReceiverThatTheEnvironmentNames(t *testing.T) {
	r := &receiver{spans: map[string]*tracepb.Span{}, resource: map[string]string{}}
	to := httptest.NewServer(r)
	defer to.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.URL)
	t.Setenv("OTEL_SERVICE_NAME", "a-cache")
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off") // only what a client traces
	provider, end, err := observe.Traces(t.Context(), quiet)
	must(t, err)
	s, err := cacheserver.Open(t.Context(), cacheserver.Config{Data: t.TempDir(), Traces: provider})
	must(t, err)
	hs := httptest.NewServer(traced{s.Handler()})
	c, err := push.NewClient(hs.URL + "/main")
	must(t, err)
	_, err = c.Upload(t.Context(), 3, 128<<10, func(w io.Writer) error {
		_, err := w.Write([]byte("abc"))
		return err
	})
	must(t, err)
	c.Close()
	hs.Close()
	must(t, s.Close())
	end()

	if r.resource["service.name"] != "a-cache" {
		t.Errorf("spans are from %q", r.resource["service.name"])
	}
	request := r.spans["POST push chunks"]
	if request == nil {
		t.Fatalf("the request has no span; there are %v", r.spans)
	}
	if got := string(request.TraceId) + string(request.ParentSpanId); got != "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10"+"\x11\x12\x13\x14\x15\x16\x17\x18" {
		t.Errorf("the request is not a part of what the client said it is: %x", got)
	}
	pack := r.spans["write pack"]
	if pack == nil || string(pack.ParentSpanId) != string(request.SpanId) {
		t.Fatalf("what was written is not a part of the request: %v", pack)
	}
	update := r.spans["index update"]
	if update == nil || string(update.ParentSpanId) != string(pack.SpanId) {
		t.Errorf("the transaction is not a part of what was written: %v", update)
	}
	if _, ok := r.spans["GET probe probe"]; ok {
		t.Error("probes are traced")
	}
}

// traced makes all requests parts of one trace, as a client that traces does.
type traced struct{ http.Handler }

func (h traced) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Header.Set("Traceparent", "00-0102030405060708090a0b0c0d0e0f10-1112131415161718-01")
	h.Handler.ServeHTTP(w, r)
}

func TestTracesAreMadeOnlyWhereTheEnvironmentAsks(t *testing.T) {
	for _, c := range []struct {
		name  string
		env   map[string]string
		made  bool
		fault string
	}{
		{name: "nothing", env: nil},
		{name: "endpoint", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, made: true},
		{name: "endpoint for traces", env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, made: true},
		{name: "grpc", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, made: true},
		{name: "exporter", env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, made: true},
		{name: "none", env: map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}},
		{name: "disabled", env: map[string]string{"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}},
		{name: "unknown exporter", env: map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, fault: "otlp and none"},
		{name: "unknown protocol", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, fault: "http/protobuf and grpc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"} {
				t.Setenv(name, c.env[name])
			}
			provider, end, err := observe.Traces(t.Context(), quiet)
			switch {
			case c.fault != "":
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Errorf("%v", err)
				}
			case err != nil:
				t.Fatal(err)
			case (provider != nil) != c.made:
				t.Errorf("there is a provider: %v", provider != nil)
			}
			end()
		})
	}
}
