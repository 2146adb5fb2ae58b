package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const healthy = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 41\n"

// fakeClock is a clock on which time passes only while someone sleeps.
type fakeClock struct {
	now    time.Time
	sleeps []time.Duration
	onWake func() // called instead of sleeping, when set
}

func (c *fakeClock) Now() time.Time { return c.now }

func (c *fakeClock) Sleep(ctx context.Context, d time.Duration) error {
	if c.onWake != nil {
		c.onWake()
	}
	c.now = c.now.Add(d)
	c.sleeps = append(c.sleeps, d)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// look asks url for its nix-cache-info with a clock of its own, and returns what
// was printed and the error.
func look(ctx context.Context, t *testing.T, url string, change func(*cache)) (string, *fakeClock, error) {
	t.Helper()
	c, err := newCache(Options{URL: url, StoreDir: "/nix/store", Timeout: DefaultTimeout})
	if err != nil {
		t.Fatal(err)
	}
	clock := &fakeClock{now: time.Unix(0, 0)}
	c.wait.clock = clock
	if change != nil {
		change(c)
	}
	var out bytes.Buffer
	err = c.checks()[0].Run(ctx, &out)
	return out.String(), clock, err
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestHealthy(t *testing.T) {
	t.Parallel()
	var asked []string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.Path)
		fmt.Fprint(w, healthy)
	})
	for _, suffix := range []string{"", "/", "?priority=10", "/nix-cache-info", "/main", "/main/", "/main/nix-cache-info"} {
		asked = nil
		out, _, err := look(t.Context(), t, url+suffix, nil)
		want := "GET /nix-cache-info"
		if strings.HasPrefix(suffix, "/main") {
			want = "GET /main/nix-cache-info"
		}
		if err != nil || len(asked) != 1 || asked[0] != want {
			t.Errorf("%q: asked %q: %v", suffix, asked, err)
		}
		if !strings.Contains(out, "attempt 1: store /nix/store, priority 41, mass queries wanted\n") {
			t.Errorf("%q: printed %q", suffix, out)
		}
	}
}

func TestUnhealthyThenHealthy(t *testing.T) {
	t.Parallel()
	n := 0
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if n++; n <= 3 {
			http.Error(w, "no healthy upstream", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, healthy)
	})
	out, clock, err := look(t.Context(), t, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := `    0.0s  attempt 1: HTTP 503 Service Unavailable: no healthy upstream; again in 500ms
    0.5s  attempt 2: HTTP 503 Service Unavailable: no healthy upstream; again in 1s
    1.5s  attempt 3: HTTP 503 Service Unavailable: no healthy upstream; again in 2s
    3.5s  attempt 4: store /nix/store, priority 41, mass queries wanted
`
	if out != want {
		t.Errorf("printed\n%swant\n%s", out, want)
	}
	if len(clock.sleeps) != 3 {
		t.Errorf("slept %v", clock.sleeps)
	}
}

// The whole time is used, the last attempt is at its end, and there are few.
func TestDeadline(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	out, clock, err := look(t.Context(), t, url, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "HTTP 502 Bad Gateway (after 13 attempts in 2m0s)\nlook at the pods") {
		t.Errorf("got %v", err)
	}
	var sum time.Duration
	for _, d := range clock.sleeps {
		sum += d
	}
	if sum != DefaultTimeout {
		t.Errorf("slept for %v: %v", sum, clock.sleeps)
	}
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if len(lines) != 14 || !strings.HasPrefix(lines[12], "  120.0s  attempt 13: HTTP 502") || !strings.HasPrefix(lines[13], "          look at ") {
		t.Errorf("%d lines:\n%s", len(lines), out)
	}
}

func TestNoTimeIsOneAttempt(t *testing.T) {
	t.Parallel()
	n := 0
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		n++
		w.WriteHeader(http.StatusInternalServerError)
	})
	_, clock, err := look(t.Context(), t, url, func(c *cache) { c.wait.timeout = 0 })
	if err == nil || n != 1 || len(clock.sleeps) != 0 || !strings.Contains(err.Error(), "(at the first attempt)") {
		t.Errorf("%d attempts, slept %v: %v", n, clock.sleeps, err)
	}
}

func TestAnswersThatAreWrong(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		status int
		body   string
		reason string
		look   string
	}{
		{"a page", 200, "<!DOCTYPE html>\n<html>Welcome to nginx!</html>\n", `the answer is no nix-cache-info: "<!DOCTYPE html>" is no line`, "what answers there instead of the cache"},
		{"nothing", 200, "", "the answer is no nix-cache-info: there is no StoreDir", "what answers there instead"},
		{"JSON", 200, `{"StoreDir": "/nix/store"}`, "the answer is no nix-cache-info: there is no StoreDir", "what answers there instead"},
		{"no store", 200, "WantMassQuery: 1\n", "the answer is no nix-cache-info: there is no StoreDir", "what answers there instead"},
		{"a key twice", 200, healthy + "Priority: x\n", "the answer is no nix-cache-info: Priority stands there twice", "what answers there instead"},
		{"a flood", 200, healthy + strings.Repeat("X: y\n", 4<<10), "the answer is longer than 4096 bytes", "what answers there instead"},
		{"an empty answer", 204, "", "HTTP 204 No Content", "the URL: "},
		{"not found", 404, "404 page not found\n", "HTTP 404 Not Found: 404 page not found", "the route, if the server just started"},
		{"login", 401, "", "HTTP 401 Unauthorized", "what stands before the cache and wants a login"},
		{"forbidden", 403, "", "HTTP 403 Forbidden", "what stands before the cache"},
		{"a page with a status", 503, "<html>\n<h1>503</h1>", "HTTP 503 Service Unavailable", "the pods and their events"},
		{"a made-up status", 599, "", "HTTP 599", "the pods"},
		{"terminal codes", 500, "\x1b[2J\x9b\xff\u009bbad", "HTTP 500 Internal Server Error: [2J\uFFFDbad", "the pods"},
		{"a long line", 500, strings.Repeat("x", 1000), "HTTP 500 Internal Server Error: " + strings.Repeat("x", 120) + "…", "the pods"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			})
			out, clock, err := look(t.Context(), t, url, nil)
			if err == nil || len(clock.sleeps) == 0 {
				t.Fatalf("slept %v: %v", clock.sleeps, err)
			}
			reason, advice, _ := strings.Cut(err.Error(), "\n")
			if !strings.HasPrefix(reason, tt.reason) {
				t.Errorf("got %q, want %q", reason, tt.reason)
			}
			if !strings.HasPrefix(advice, "look at "+tt.look) || strings.Contains(advice, "\n") {
				t.Errorf("got %q, want %q", advice, tt.look)
			}
			if got := strings.Count(out, "\n"); got != len(clock.sleeps)+2 {
				t.Errorf("%d lines for %d attempts:\n%s", got, len(clock.sleeps)+1, out)
			}
		})
	}
}

// Waiting does not change what store a cache is for.
func TestAnotherStoreIsFinal(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "StoreDir: /gnu/store\n") })
	out, clock, err := look(t.Context(), t, url, nil)
	if err == nil || len(clock.sleeps) > 0 || !strings.HasPrefix(err.Error(), "the cache is for the store /gnu/store, not /nix/store (at the first attempt)\nlook at the server's --store-dir") {
		t.Errorf("slept %v: %v\n%s", clock.sleeps, err, out)
	}
	_, _, err = look(t.Context(), t, url, func(c *cache) { c.storeDir = "/gnu/store" })
	if err != nil {
		t.Error(err)
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	login := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>Sign in") })
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, login, http.StatusFound) })
	_, _, err := look(t.Context(), t, url, nil)
	if err == nil || !strings.Contains(err.Error(), "(redirected to "+strings.TrimPrefix(login, "http://")+")") {
		t.Errorf("got %v", err)
	}
}

// A server that takes the request and says nothing, or begins and never ends.
func TestHangingServers(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]string{"no answer": "", "half an answer": "StoreDir: /nix/store\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1) > 1 {
					fmt.Fprint(w, healthy)
					return
				}
				if first != "" {
					fmt.Fprint(w, first)
					_ = http.NewResponseController(w).Flush()
				}
				<-r.Context().Done()
			})
			out, _, err := look(t.Context(), t, url, func(c *cache) { c.wait.attempt = 500 * time.Millisecond })
			if err != nil || !strings.Contains(out, "attempt 1: no answer in time; again in 500ms\n") {
				t.Errorf("%v:\n%s", err, out)
			}
		})
	}
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	_, _, err := look(t.Context(), t, "http://127.0.0.1:1", nil)
	if err == nil || !strings.HasPrefix(err.Error(), "connection refused (after 13 attempts in 2m0s)\nlook at whether anything listens there") {
		t.Errorf("got %v", err)
	}
}

func TestConnectionsThatBreak(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			err = conn.Close()
		}
		if err != nil {
			t.Error(err)
		}
	})
	_, _, err := look(t.Context(), t, url, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "EOF (after 13 attempts") {
		t.Errorf("got %v", err)
	}
}

func TestNamesThatCannotBeResolved(t *testing.T) {
	t.Parallel()
	_, _, err := look(t.Context(), t, "http://cache.invalid", func(c *cache) {
		c.client.Transport.(*http.Transport).Proxy = nil
		c.client.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.DNSError{Err: "no such host", Name: "cache.invalid", IsNotFound: true}
		}
	})
	if err == nil || !strings.HasPrefix(err.Error(), "the name cache.invalid cannot be resolved (after") || !strings.Contains(err.Error(), "\nlook at the DNS record") {
		t.Errorf("got %v", err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, healthy) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	_, _, err := look(t.Context(), t, s.URL, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "the certificate is not trusted: ") || !strings.Contains(err.Error(), "\nlook at the certificate") {
		t.Errorf("unknown authority: got %v", err)
	}
	_, _, err = look(t.Context(), t, strings.Replace(s.URL, "https", "http", 1), nil)
	if err == nil || !strings.HasPrefix(err.Error(), "HTTP 400 Bad Request: Client sent an HTTP request to an HTTPS server.") {
		t.Errorf("http to an https port: got %v", err)
	}
	plain := serve(t, func(http.ResponseWriter, *http.Request) {})
	_, _, err = look(t.Context(), t, strings.Replace(plain, "http", "https", 1), nil)
	if err == nil || !strings.HasPrefix(err.Error(), "the server does not speak TLS (") {
		t.Errorf("https to an http port: got %v", err)
	}
}

// Every attempt makes a connection of its own.
func TestConnectionsAreNotUsedAgain(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	_, clock, err := look(t.Context(), t, s.URL, nil)
	if err == nil || int(connections.Load()) != len(clock.sleeps)+1 {
		t.Errorf("%d connections for %d attempts: %v", connections.Load(), len(clock.sleeps)+1, err)
	}
}

var errCtrlC = errors.New("interrupted")

func TestInterruptedWhileWaiting(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	out, clock, err := look(ctx, t, url, func(c *cache) {
		c.wait.clock.(*fakeClock).onWake = func() { cancel(errCtrlC) }
	})
	if !errors.Is(err, errCtrlC) || len(clock.sleeps) != 1 || strings.Count(out, "\n") != 1 {
		t.Errorf("slept %v: %v\n%s", clock.sleeps, err, out)
	}
}

func TestInterruptedWhileAsking(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel(errCtrlC)
		<-r.Context().Done()
	})
	out, clock, err := look(ctx, t, url, nil)
	if !errors.Is(err, errCtrlC) || len(clock.sleeps) > 0 || out != "" {
		t.Errorf("slept %v: %v\n%s", clock.sleeps, err, out)
	}
}

func TestRealClock(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	if err := (realClock{}).Sleep(ctx, time.Nanosecond); err != nil {
		t.Error(err)
	}
	cancel(errCtrlC)
	began := time.Now()
	if err := (realClock{}).Sleep(ctx, time.Hour); !errors.Is(err, errCtrlC) || time.Since(began) > time.Minute {
		t.Error(err)
	}
}

func TestPasswordsAreNotPrinted(t *testing.T) {
	t.Parallel()
	sent := ""
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, sent, _ = r.BasicAuth()
		w.WriteHeader(http.StatusForbidden)
	})
	out, _, err := look(t.Context(), t, strings.Replace(url, "http://", "http://me:hunter2@", 1), nil)
	if err == nil || sent != "hunter2" || strings.Contains(out+err.Error(), "hunter2") {
		t.Errorf("sent %q: %v\n%s", sent, err, out)
	}
	if _, err := Checks(Options{URL: "ftp://me:hunter2@host", StoreDir: "/nix/store"}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	good := Options{URL: "https://cache.example.org", StoreDir: "/nix/store", Timeout: time.Second}
	for want, change := range map[string]func(*Options){
		`cache URL "": want https://HOST`:                  func(o *Options) { o.URL = "" },
		`cache URL "cache.example.org": want https://HOST`: func(o *Options) { o.URL = "cache.example.org" },
		`cache URL "https:///main": want https://HOST`:     func(o *Options) { o.URL = "https:///main" },
		`cache URL: parse "http://[::1"`:                   func(o *Options) { o.URL = "http://[::1" },
		`store directory "": want an absolute path`:        func(o *Options) { o.StoreDir = "" },
		`store directory "nix": want an absolute path`:     func(o *Options) { o.StoreDir = "nix" },
		`timeout -1s: is negative`:                         func(o *Options) { o.Timeout = -time.Second },
	} {
		o := good
		change(&o)
		if _, err := Checks(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	checks, err := Checks(good)
	if err != nil || len(checks) == 0 {
		t.Errorf("%v, %v", checks, err)
	}
	for _, c := range checks {
		if !regexp.MustCompile(`^[a-z-]+$`).MatchString(c.Name) {
			t.Errorf("check %q", c.Name)
		}
	}
}
