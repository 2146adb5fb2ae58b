package verify

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
)

// realCache is a cache server behind a handler that may spoil answers.
func realCache(t *testing.T, spoil func(http.Handler) http.Handler) (url, key string) {
	t.Helper()
	s, err := cacheserver.Open(t.Context(), cacheserver.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	h := s.Handler()
	if spoil != nil {
		h = spoil(h)
	}
	web := httptest.NewUnstartedServer(h)
	web.Config.Protocols = new(http.Protocols)
	web.Config.Protocols.SetHTTP1(true)
	web.Config.Protocols.SetUnencryptedHTTP2(true)
	web.Start()
	t.Cleanup(func() {
		web.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return web.URL, s.PublicKey()
}

// outcomes runs all checks, each attempt once.
func outcomes(ctx context.Context, t *testing.T, o Options) (string, check.Results) {
	t.Helper()
	o.StoreDir, o.Timeout = "/nix/store", 0
	checks, err := Checks(o)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	results := check.Run(ctx, &out, checks)
	return out.String(), results
}

func resultOf(t *testing.T, results check.Results, name string) check.Result {
	t.Helper()
	for _, r := range results {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("no check %s: %v", name, results)
	return check.Result{}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	url, key := realCache(t, nil)
	nix, _ := exec.LookPath("nix")
	for _, keys := range [][]string{nil, {key}} {
		out, results := outcomes(t.Context(), t, Options{URL: url, PublicKeys: keys, Nix: nix, GRPC: strings.Replace(url, "http", "grpc", 1)})
		for _, r := range results {
			want := check.Passed
			if r.Name == "certificate" || r.Name == "nix" && nix == "" {
				want = check.Skipped
			}
			if r.Outcome != want {
				t.Errorf("%s %s: %s\n%s", r.Name, r.Outcome, r.Message, out)
			}
		}
		pushed := regexp.MustCompile(`/nix/store/([a-z0-9]{32})-` + tripName).FindStringSubmatch(out)
		if pushed == nil {
			t.Fatalf("nothing was pushed:\n%s", out)
		}
		resp, err := http.Get(url + "/" + pushed[1] + ".narinfo")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("it is left behind: %s", resp.Status)
		}
	}
}

// Whoever may push, but not delete, has a healthy cache all the same.
func TestWhatMayNotBeDeletedIsLeftToRetention(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]check.Outcome{
		http.StatusUnauthorized: check.Skipped, http.StatusForbidden: check.Skipped, http.StatusMethodNotAllowed: check.Skipped,
		http.StatusInternalServerError: check.Failed, http.StatusNotFound: check.Failed, http.StatusOK: check.Failed,
	} {
		url, _ := realCache(t, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodDelete {
					w.WriteHeader(status)
					return
				}
				h.ServeHTTP(w, r)
			})
		})
		out, results := outcomes(t.Context(), t, Options{URL: url})
		if r := resultOf(t, results, "delete"); r.Outcome != want {
			t.Errorf("%d: %s %s\n%s", status, r.Outcome, r.Message, out)
		}
	}
}

// spoiled lets f change the body of answers whose path matches.
func spoiled(pattern string, f func([]byte) []byte) func(http.Handler) http.Handler {
	match := regexp.MustCompile(pattern)
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodDelete || !match.MatchString(r.URL.Path) {
				h.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			body := f(rec.Body.Bytes())
			w.WriteHeader(rec.Code)
			_, _ = w.Write(body)
		})
	}
}

func signedAnew(t *testing.T, key narinfo.SecretKey) func([]byte) []byte {
	return func(text []byte) []byte {
		n, err := narinfo.Parse(text)
		if err != nil {
			t.Error(err)
			return text
		}
		n.Signatures = []string{key.Sign(n)}
		return n.Text()
	}
}

func TestCachesThatSpoilWhatTheyHold(t *testing.T) {
	t.Parallel()
	_, another := realCache(t, nil)
	stranger, err := narinfo.GenerateKey("main")
	if err != nil {
		t.Fatal(err)
	}
	nix, _ := exec.LookPath("nix")
	flip := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 0x40
		return b
	}
	for _, tt := range []struct {
		name    string
		options Options
		spoil   func(http.Handler) http.Handler
		failed  string // the first check that fails
		message string
	}{
		{"another key is expected", Options{PublicKeys: []string{another}}, nil, "signature", "no signature is by main-"},
		{"a key that nobody knows signs", Options{}, spoiled(`\.narinfo$`, signedAnew(t, stranger)), "signature", "; signed by main, perhaps"},
		{"nobody signs", Options{}, spoiled(`\.narinfo$`, func(b []byte) []byte { return regexp.MustCompile(`Sig: .*\n`).ReplaceAll(b, nil) }), "signature", "signed by nobody"},
		{"a narinfo of something else", Options{}, spoiled(`\.narinfo$`, func(b []byte) []byte {
			return regexp.MustCompile(`NarSize: \d+`).ReplaceAll(b, []byte("NarSize: 7"))
		}), "signature", "not of what was pushed"},
		{"a page instead of a narinfo", Options{}, spoiled(`\.narinfo$`, func([]byte) []byte { return []byte("<html>") }), "signature", "malformed narinfo"},
		{"a bit of a NAR is turned", Options{}, spoiled(`^/nar/`, flip), "substitution", "the NAR "},
		{"half a NAR", Options{}, spoiled(`^/nar/`, func(b []byte) []byte { return b[:len(b)/2] }), "substitution", "the NAR "},
		{"no NAR", Options{}, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/nar/") {
					http.NotFound(w, r)
					return
				}
				h.ServeHTTP(w, r)
			})
		}, "substitution", "HTTP 404"},
		{"it takes no more", Options{}, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					w.WriteHeader(http.StatusInsufficientStorage)
					_, _ = io.WriteString(w, `{"code":"no-space","message":"no space"}`)
					return
				}
				h.ServeHTTP(w, r)
			})
		}, "push", "pushing: HTTP 507"},
		{"it wants a token", Options{}, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/_push/") {
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				h.ServeHTTP(w, r)
			})
		}, "push", "look at the token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := tt.options
			o.Nix = nix
			o.URL, _ = realCache(t, tt.spoil)
			_, results := outcomes(t.Context(), t, o)
			first := check.Result{}
			for _, r := range results {
				if r.Outcome == check.Failed {
					first = r
					break
				}
			}
			if first.Name != tt.failed || !strings.Contains(first.Message, tt.message) || !strings.Contains(first.Message, "\nlook at ") {
				t.Errorf("first failed %q: %s", first.Name, first.Message)
			}
			// Nix must not take what was found to be spoiled.
			if tt.failed != "push" && nix != "" {
				if r := resultOf(t, results, "nix"); r.Outcome != check.Failed {
					t.Errorf("Nix %s: %s", r.Outcome, r.Message)
				}
			}
		})
	}
}

func TestADeadCacheIsAskedNothingMore(t *testing.T) {
	t.Parallel()
	_, results := outcomes(t.Context(), t, Options{URL: "http://127.0.0.1:1"})
	for _, r := range results {
		want := check.Skipped
		if r.Name == "nix-cache-info" {
			want = check.Failed
		}
		if r.Outcome != want {
			t.Errorf("%s %s: %s", r.Name, r.Outcome, r.Message)
		}
	}
}

func TestAMissingRightIsNoMissingGRPC(t *testing.T) {
	t.Parallel()
	for grpcStatus, want := range map[string]string{
		"16": "gRPC answers, and nothing was found out for want of rights: ",
		"7":  "gRPC answers, and nothing was found out for want of rights: ",
		"12": "no gRPC at the URL's host",
	} {
		url, _ := realCache(t, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor == 1 {
					h.ServeHTTP(w, r)
					return
				}
				w.Header().Set("Content-Type", "application/grpc")
				w.Header().Set("Grpc-Status", grpcStatus)
				w.Header().Set("Grpc-Message", "no token was sent")
			})
		})
		_, results := outcomes(t.Context(), t, Options{URL: url, ReadOnly: true})
		if r := resultOf(t, results, "bazel"); r.Outcome != check.Skipped || !strings.HasPrefix(r.Message, want) {
			t.Errorf("status %s: %+v", grpcStatus, r)
		}
	}
}

func TestReadOnlyPushesNothing(t *testing.T) {
	t.Parallel()
	url, _ := realCache(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost && r.ProtoMajor == 1 || r.Method == http.MethodPut || r.Method == http.MethodDelete {
				t.Errorf("%s %s", r.Method, r.URL.Path)
			}
			h.ServeHTTP(w, r)
		})
	})
	_, results := outcomes(t.Context(), t, Options{URL: url, ReadOnly: true})
	if !results.OK() {
		t.Error(results)
	}
}

// The end of the test server's certificate is known: a clock is set before it.
func TestCertificatesThatEnd(t *testing.T) {
	t.Parallel()
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, healthy) }))
	t.Cleanup(web.Close)
	for _, tt := range []struct {
		left time.Duration
		want string
		ok   bool
	}{
		{90 * 24 * time.Hour, "in 90 days", true},
		{20 * 24 * time.Hour, "in 20 days; its renewal is late", true},
		{6 * 24 * time.Hour, "in 6 days", false},
		{-24 * time.Hour, "in -1 days", false},
	} {
		c, err := newCache(Options{URL: web.URL, StoreDir: "/nix/store"})
		if err != nil {
			t.Fatal(err)
		}
		c.client = web.Client()
		c.wait.clock = &fakeClock{now: web.Certificate().NotAfter.Add(-tt.left)}
		found, err := c.certificate(t.Context())
		if (err == nil) != tt.ok {
			t.Errorf("%v left: %q, %v", tt.left, found, err)
		}
		if err != nil {
			found = err.Error()
		}
		if !strings.HasSuffix(found, tt.want) {
			t.Errorf("%v left: %q", tt.left, found)
		}
	}
}

func TestSlowCaches(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, healthy) })
	c, err := newCache(Options{URL: url, StoreDir: "/nix/store", MaxLatency: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.latency(t.Context()); err == nil || !strings.Contains(err.Error(), "p50 is above 1ns") {
		t.Error(err)
	}
}

func TestGRPCAddresses(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]string{
		"": "cache.example.org:443", "grpcs://g.example.org": "g.example.org:443", "grpc://g:9092": "g:9092", "grpc://[::1]": "[::1]:80",
		"https://g": "", "g:9092": "", "grpcs://": "",
	} {
		c, err := newCache(Options{URL: "https://cache.example.org/main", StoreDir: "/nix/store", GRPC: said})
		if (err == nil) != (want != "") {
			t.Errorf("%q: %v", said, err)
		}
		if err != nil {
			continue
		}
		if got, _, err := grpcTarget(c.grpc, c.base); err != nil || got != want {
			t.Errorf("%q: %s, %v", said, got, err)
		}
	}
}
