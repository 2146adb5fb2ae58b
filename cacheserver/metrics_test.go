package cacheserver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// serveOn is a server that does all that one does, collection among it.
func serveOn(t testing.TB, c cacheserver.Config) *running {
	t.Helper()
	c.Data = t.TempDir()
	s, err := cacheserver.Open(t.Context(), c)
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		must(t, errors.Join(<-ended, s.Close()))
	})
	return &running{Server: s, dir: c.Data, url: "http://" + l.Addr().String()}
}

func fetch(t testing.TB, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(t, err)
	return res.StatusCode, string(body)
}

// metrics returns the values of a scrape by name and labels as Prometheus writes
// them; of histograms, their counts.
func (s *running) metrics(t testing.TB) map[string]float64 {
	t.Helper()
	_, text := fetch(t, s.url+"/metrics")
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	must(t, err)
	values := map[string]float64{}
	for name, family := range families {
		for _, m := range family.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			key := name
			if labels != nil {
				key += "{" + strings.Join(labels, ",") + "}"
			}
			values[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}

func TestMetricsAreNamedAndDescribedAsPrometheusWants(t *testing.T) {
	t.Parallel()
	s := serveOn(t, cacheserver.Config{})
	s.push(t, file(t, "hello", noise(1000, 1)))
	_, _ = fetch(t, s.url+"/")
	_, text := fetch(t, s.url+"/metrics")
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	must(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestMetricsTellWhatTrafficThereWas(t *testing.T) {
	t.Parallel()
	s := serveOn(t, cacheserver.Config{CollectEvery: 20 * time.Millisecond})
	p := file(t, "hello", noise(300_000, 1))
	s.push(t, p)
	_, info := fetch(t, s.url+"/main/"+hash32("hello")+".narinfo")
	_, rest, _ := strings.Cut(info, "URL: ")
	nar, _, _ := strings.Cut(rest, "\n")
	_, sent := fetch(t, s.url+"/main/"+nar)
	for range 2 {
		_, _ = fetch(t, s.url+"/"+hash32("nothing")+".narinfo")
	}
	_, _ = fetch(t, s.url+"/ac/"+strings.Repeat("ab", 32))
	bazel(t, s)

	wanted := map[string]float64{
		`attic_cache_requests_total{code="200",door="nix",kind="narinfo"}`:             1,
		`attic_cache_requests_total{code="404",door="nix",kind="narinfo"}`:             2,
		`attic_cache_requests_total{code="200",door="nix",kind="nar"}`:                 1,
		`attic_cache_requests_total{code="200",door="push",kind="commit"}`:             1,
		`attic_cache_requests_total{code="404",door="bazel-http",kind="action"}`:       1,
		`attic_cache_requests_total{code="NotFound",door="bazel-grpc",kind="action"}`:  1,
		`attic_cache_requests_total{code="OK",door="bazel-grpc",kind="missing-blobs"}`: 1,
		`attic_cache_request_duration_seconds{door="nix",kind="narinfo"}`:              3,
		`attic_cache_lookups_total{door="nix",kind="narinfo",result="hit"}`:            1,
		`attic_cache_lookups_total{door="nix",kind="narinfo",result="miss"}`:           2,
		`attic_cache_lookups_total{door="nix",kind="nar",result="hit"}`:                1,
		`attic_cache_lookups_total{door="bazel-http",kind="action",result="miss"}`:     1,
		`attic_cache_lookups_total{door="bazel-grpc",kind="action",result="miss"}`:     1,
		`attic_cache_lookups_total{door="bazel-grpc",kind="upload",result="hit"}`:      1,
		`attic_cache_lookups_total{door="bazel-grpc",kind="upload",result="miss"}`:     2,
		`attic_cache_committed_paths_total`:                                            1,
		`attic_cache_committed_nar_bytes_total`:                                        float64(len(p.nar)),
		`attic_cache_store_paths`:                                                      1,
		`attic_cache_store_blob_bytes`:                                                 float64(len(p.nar)),
		`attic_cache_upload_memory_bytes`:                                              0,
		`attic_cache_requests_in_flight{door="nix"}`:                                   0,
	}
	// Paths are counted and collections made beside the requests, and these are counted
	// when their handlers have returned, for which no client waits.
	var got map[string]float64
	for began := time.Now(); time.Since(began) < 2*time.Minute; time.Sleep(10 * time.Millisecond) {
		got = s.metrics(t)
		counted := got[`attic_cache_collections_total{outcome="ok"}`] > 0 && got[`attic_cache_sent_bytes_total{door="nix"}`] >= float64(len(sent))
		for name, want := range wanted {
			counted = counted && got[name] == want
		}
		if counted {
			break
		}
	}
	if got[`attic_cache_collections_total{outcome="ok"}`] == 0 {
		t.Error("no collection was counted")
	}
	for name, want := range wanted {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if n := got[`attic_cache_sent_bytes_total{door="nix"}`]; n < float64(len(sent)) {
		t.Errorf("%v bytes were sent, but the NAR alone has %d", n, len(sent))
	}
	if n := got[`attic_cache_received_bytes_total{door="push"}`]; n < 300_000 {
		t.Errorf("%v bytes were received, but the NAR cannot be compressed", n)
	}
	if n, stored := got["attic_cache_written_pack_bytes_total"], got["attic_cache_store_pack_bytes"]; n < 300_000 || n != stored {
		t.Errorf("packs of %v bytes were written, and %v are stored", n, stored)
	}
	for name := range got {
		if strings.Contains(name, hash32("hello")) || strings.Contains(name, "abab") {
			t.Errorf("a client's string is a label: %s", name)
		}
	}
}

// bazel asks for what is not there, but for the NAR of which hello is made.
func bazel(t testing.TB, s *running) {
	t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(s.url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer func() { _ = conn.Close() }()
	missing := &repb.Digest{Hash: strings.Repeat("cd", 32), SizeBytes: 5}
	_, err = repb.NewActionCacheClient(conn).GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: missing})
	if status.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
	empty := digest.Of(nil)
	_, err = repb.NewContentAddressableStorageClient(conn).FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{
		BlobDigests: []*repb.Digest{missing, {Hash: strings.Repeat("ce", 32), SizeBytes: 5}, {Hash: empty.String(), SizeBytes: 0}},
	})
	must(t, err)
}

// Two servers in one process must not count together, nor fail to.
func TestServersInOneProcessCountApart(t *testing.T) {
	t.Parallel()
	a, b := start(t), start(t)
	_, _ = fetch(t, a.url+"/nix-cache-info")
	const asked = `attic_cache_requests_total{code="200",door="nix",kind="cache-info"}`
	if got := a.metrics(t)[asked]; got != 1 {
		t.Errorf("the first was asked once and counts %v", got)
	}
	if got := b.metrics(t)[asked]; got != 0 {
		t.Errorf("the second was not asked and counts %v", got)
	}
}
