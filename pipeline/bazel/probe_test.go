package bazel

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
)

// serve starts a cache server and returns its address.
func serve(t *testing.T, c cacheserver.Config) string {
	t.Helper()
	c.Data = t.TempDir()
	srv, err := cacheserver.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, srv.Close()); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func TestTheSchemeIsWhatTheCacheSpeaks(t *testing.T) {
	t.Parallel()
	server := serve(t, cacheserver.Config{})
	// What only speaks HTTP/1.1: a plain server that has no blob, and one with a
	// proxy before it.
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/team/cas/"+emptySHA256 {
			http.Error(w, "which?", http.StatusBadGateway)
		}
	}))
	t.Cleanup(proxy.Close)
	bare := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }
	for url, want := range map[string]Cache{
		"http://" + server:                {Remote: "grpc://" + server, Writable: true, Zstd: true},
		"http://" + server + "/a/b/":      {Remote: "grpc://" + server, Instance: "a/b", Writable: true, Zstd: true},
		"grpc://" + server + "/team":      {Remote: "grpc://" + server, Instance: "team", Writable: true, Zstd: true},
		"http://" + bare(plain) + "/":     {Remote: plain.URL, Writable: true},
		"http://" + bare(proxy) + "/team": {Remote: proxy.URL + "/team", Writable: true},
	} {
		got, err := Probe(t.Context(), url, "")
		if err != nil || got != want {
			t.Errorf("%s: %+v, want %+v: %v", url, got, want, err)
		}
	}
}

func TestWhatIsNoCache(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	const gone = "127.0.0.1:1"
	web := answer(http.StatusOK, "It works!")
	for url, want := range map[string]string{
		"http://" + gone:                         "does not answer: dial tcp",
		"grpc://" + gone:                         "does not answer: ",
		web:                                      "is no cache for Bazel",
		answer(http.StatusBadGateway, ""):        "answers HTTP 502",
		"grpc" + strings.TrimPrefix(web, "http"): "does not answer: ",
		"https" + strings.TrimPrefix(web, "http"): "does not answer: ",
		"cache.example.org":                       "want http://HOST",
		"ftp://cache":                             "want http://HOST",
		"http://user:secret@cache.example.org":    "a host, a port and an instance's name only",
		"grpc://cache.example.org/x?token=y":      "a host, a port and an instance's name only",
	} {
		_, err := Probe(t.Context(), url, "")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
}
