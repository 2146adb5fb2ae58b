package flywheel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/setup"
)

// The command's scripts (pipeline/cmd/flywheel/testdata) try all of this on real
// builds. What they cannot see, or cannot wait for, is here.

func newRun(out *bytes.Buffer) *run {
	return &run{console: newConsole(nil, out), nix: &nix.Nix{}, store: nix.Store{Dir: "/nix/store"}, tokens: map[string]string{}}
}

// An interrupted run pushes for a while, and no longer.
func TestLingering(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		longer, cancel := lingering(ctx, DefaultDrainTime)
		defer cancel()
		time.Sleep(time.Hour)
		if longer.Err() != nil {
			t.Fatal("it ended before it was interrupted")
		}
		interrupt()
		time.Sleep(DefaultDrainTime - time.Nanosecond)
		synctest.Wait()
		if longer.Err() != nil {
			t.Error("it ended too early")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if longer.Err() == nil {
			t.Error("it goes on")
		}
	})
	synctest.Test(t, func(t *testing.T) { // in a bubble, what is left running is a failure
		ctx, interrupt := context.WithCancel(t.Context())
		longer, cancel := lingering(ctx, DefaultDrainTime)
		cancel()
		if longer.Err() == nil {
			t.Error("it goes on after cancel")
		}
		interrupt()
		_, cancel = lingering(ctx, DefaultDrainTime)
		synctest.Wait()
		cancel()
	})
}

func TestCompose(t *testing.T) {
	t.Parallel()
	r := newRun(&bytes.Buffer{})
	safe := []string{"fallback = true", "connect-timeout = 5", "download-attempts = 2", "stalled-download-timeout = 20", "narinfo-cache-negative-ttl = 0"}
	for name, tt := range map[string]struct {
		urls, keys, configured []string
		first, last            []string // besides safe
	}{
		"no cache": {},
		"two caches": {
			urls: []string{"http://a", "http://b/main"}, keys: []string{"a:A", "b:B"},
			last: []string{"extra-substituters = http://a http://b/main", "extra-trusted-public-keys = a:A b:B"},
		},
		"one without a key":          {urls: []string{"http://a"}, last: []string{"extra-substituters = http://a"}},
		"configured ones that are":   {configured: []string{"http://c", "http://d"}, first: []string{"substituters = http://c http://d"}},
		"none that is configured is": {configured: []string{}, first: []string{"substituters = "}},
	} {
		want := slices.Concat(tt.first, safe, tt.last)
		if got := r.compose(tt.urls, tt.keys, tt.configured); !slices.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}

	// A sandbox without a shell is given one, where there is one to give, and
	// where nobody else decides on sandboxes.
	r.settings.Sandbox = true
	hasShell := func() bool {
		return slices.ContainsFunc(r.compose(nil, nil, nil), func(l string) bool { return strings.HasPrefix(l, "extra-sandbox-paths = /bin/sh=") })
	}
	if got := hasShell(); got != (setup.SandboxShell() != "") {
		t.Errorf("a sandbox without a shell is given one: %t", got)
	}
	r.store.Daemon = true
	if hasShell() {
		t.Error("the daemon's sandbox is given a shell")
	}
	r.store.Daemon, r.settings.SandboxPaths = false, []string{"/bin/sh=/bin/busybox"}
	if hasShell() {
		t.Error("a sandbox with a shell is given another")
	}
}

func TestWithout(t *testing.T) {
	t.Parallel()
	down := errors.New("connection refused")
	for name, tt := range map[string]struct {
		configured []string
		probed     []source
		want       []string
	}{
		"none":        {nil, nil, nil},
		"all answer":  {[]string{"http://a", "file:///b"}, []source{{url: "http://a"}}, nil},
		"one is down": {[]string{"http://a", "file:///b"}, []source{{url: "http://a", err: down}}, []string{"file:///b"}},
		"all are":     {[]string{"http://a"}, []source{{url: "http://a", err: down}}, []string{}},
		"one, twice":  {[]string{"http://a", "http://a", "http://b"}, []source{{url: "http://a", err: down}, {url: "http://b"}}, []string{"http://b"}},
	} {
		got := without(tt.configured, tt.probed)
		if !slices.Equal(got, tt.want) || (got == nil) != (tt.want == nil) {
			t.Errorf("%s: got %#v, want %#v", name, got, tt.want)
		}
	}
}

func TestPullLess(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := newRun(&out)
	r.nix.Config = []string{"extra-substituters = http://own"}
	r.pulls, r.configured = []string{"http://own"}, []string{"https://cache.nixos.org/"}
	for i, want := range []bool{true, true, false} {
		if got := r.pullLess("nix crashed"); got != want {
			t.Errorf("call %d: %t, want the named caches left out, then nix.conf's, then no more", i, got)
		}
	}
	want := []string{"extra-substituters = http://own", "substituters = https://cache.nixos.org/", "substituters = "}
	if !slices.Equal(r.nix.Config, want) {
		t.Errorf("settings %q", r.nix.Config)
	}
	if len(r.faults) != 2 || !strings.Contains(r.faults[0], "http://own") || !strings.Contains(r.faults[1], "https://cache.nixos.org/") {
		t.Errorf("faults %q", r.faults)
	}
	if n := strings.Count(out.String(), "nix crashed"); n != 2 {
		t.Errorf("it was told %d times:\n%s", n, out.String())
	}
}

func TestWanted(t *testing.T) {
	t.Parallel()
	r := newRun(&bytes.Buffer{})
	r.UpstreamKeys = []string{DefaultUpstreamKey, "ours"}
	for name, tt := range map[string]struct {
		info nix.PathInfo
		want bool
	}{
		"built":                      {nix.PathInfo{Path: "/s/a", Deriver: "/s/a.drv", Ultimate: true}, true},
		"substituted from elsewhere": {nix.PathInfo{Path: "/s/a", Signatures: []string{"main-1:AA=="}}, true},
		"upstream":                   {nix.PathInfo{Path: "/s/a", Signatures: []string{"main-1:AA==", "cache.nixos.org-1:BB=="}}, false},
		"another upstream":           {nix.PathInfo{Path: "/s/a", Signatures: []string{"ours:BB=="}}, false},
		"a name that begins so":      {nix.PathInfo{Path: "/s/a", Signatures: []string{"ours-2:BB=="}}, true},
		"a derivation":               {nix.PathInfo{Path: "/s/a.drv", CA: "text:x"}, false},
		"a source":                   {nix.PathInfo{Path: "/s/a", CA: "fixed:r:x"}, false},
		"a download":                 {nix.PathInfo{Path: "/s/a", CA: "fixed:r:x", Deriver: "/s/a.drv", Ultimate: true}, true},
	} {
		if got := r.wanted(tt.info); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestConsole(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := newConsole(nil, &out)
	c.step("closure push", time.Now(), "%s", count(1, "path"))
	c.note("%s", count(2, "path"))
	if want := regexp.MustCompile(`^closure push +0\.\ds  1 path\n {23}2 paths\n$`); !want.MatchString(out.String()) {
		t.Errorf("got %q", out.String())
	}
}

func TestReportWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "report.json")
	if err := os.WriteFile(file, []byte("an older one, much longer than that"+strings.Repeat(" ", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &Report{Schema: 1, Outcome: Built, Seconds: 1.5, Results: []string{"/nix/store/x"}, Message: "no", AlreadyThere: 3}
	if err := r.Write(file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var flat bytes.Buffer
	if err := json.Compact(&flat, text); err != nil {
		t.Fatal(err)
	}
	const want = `{"schema":1,"outcome":"built","seconds":1.5,"built":0,"substituted":0,"results":["/nix/store/x"],` +
		`"pushed":{"paths":0,"narBytes":0,"sentBytes":0},"missing":[],"cacheErrors":[],"cache":"","timeSaved":0}`
	if flat.String() != want {
		t.Errorf("got %s\nwant %s", flat.String(), want)
	}
	if r.Missing != nil {
		t.Error("the report itself was changed")
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%d files are left, %v", len(left), err)
	}

	if err := r.Write(dir); err == nil || !strings.HasPrefix(err.Error(), "writing the report: ") {
		t.Errorf("over a directory: %v", err)
	}
	if err := r.Write(filepath.Join(dir, "absent", "report.json")); err == nil {
		t.Error("into a directory that is not there")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%d files are left by reports that failed, %v", len(left), err)
	}
}

// serve starts a cache for the store.
func serve(t *testing.T, storeDir string) (url string) {
	t.Helper()
	s, err := cacheserver.Open(t.Context(), cacheserver.Config{Data: t.TempDir(), StoreDir: storeDir})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		h.Close()
		_ = s.Close()
	})
	return h.URL
}

func answering(t *testing.T, f http.HandlerFunc) (url string) {
	t.Helper()
	h := httptest.NewServer(f)
	t.Cleanup(h.Close)
	return h.URL
}

func TestSubstituters(t *testing.T) {
	t.Parallel()
	good, other := serve(t, "/nix/store"), serve(t, "/gnu/store")
	plain := answering(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/nix-cache-info" {
			http.NotFound(w, r)
		}
	})
	nothing := answering(t, http.NotFound)
	failing := answering(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) })
	page := answering(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>please log in")) })
	future := answering(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"protocol":2}`)) })
	const gone = "http://127.0.0.1:1"

	for name, tt := range map[string]struct {
		caches []string
		pulls  []string
		target string
		faults []string // what each says
		says   string
	}{
		"one":                      {caches: []string{good + "/"}, pulls: []string{good}, target: good, says: "pushing to " + good},
		"none":                     {says: "no cache answers"},
		"one that is gone, first":  {caches: []string{gone, good}, pulls: []string{good}, target: good, faults: []string{"connection refused"}},
		"one of another store":     {caches: []string{other, good}, pulls: []string{other, good}, target: good, faults: []string{"it is for the store /gnu/store, this one is /nix/store"}},
		"one that is only read":    {caches: []string{plain}, pulls: []string{plain}, says: "pushing to none"},
		"one only read, and one":   {caches: []string{plain, good}, pulls: []string{plain, good}, target: good, says: plain + " is only pulled from"},
		"no cache at all":          {caches: []string{nothing}, faults: []string{"nix-cache-info: HTTP 404"}, says: "no cache answers"},
		"one that fails":           {caches: []string{failing}, faults: []string{"HTTP 502"}},
		"a page of something else": {caches: []string{page}, faults: []string{"there is no binary cache"}, says: "no cache answers"},
		"one of the future":        {caches: []string{future}, faults: []string{"version 2 of the push protocol"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			r := newRun(&out)
			r.substituters(t.Context(), tt.caches)
			if !slices.Equal(r.pulls, tt.pulls) {
				t.Errorf("pulled from are %q, want %q", r.pulls, tt.pulls)
			}
			target := ""
			if r.target != nil {
				target = r.target.URL()
				r.target.Close()
			}
			if target != tt.target {
				t.Errorf("pushed to is %q, want %q", target, tt.target)
			}
			if len(r.faults) != len(tt.faults) {
				t.Fatalf("faults %q, want %q", r.faults, tt.faults)
			}
			for i, f := range r.faults {
				if !strings.HasPrefix(f, "cache http://") || !strings.Contains(f, tt.faults[i]) || strings.Contains(f, "\n") {
					t.Errorf("fault %q, want one line with %q", f, tt.faults[i])
				}
				if !strings.Contains(out.String(), f) {
					t.Errorf("it is not told:\n%s", out.String())
				}
			}
			if !strings.Contains(out.String(), tt.says) {
				t.Errorf("got\n%s\nwant %q", out.String(), tt.says)
			}
		})
	}
}

// What nix.conf names and does not answer would cost seconds at every start.
func TestConfiguredSubstitutersThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	good := serve(t, "/nix/store")
	const gone = "http://127.0.0.1:1"
	var out bytes.Buffer
	r := newRun(&out)
	r.settings.Substituters = []string{gone + "/", good + "/?priority=30", "daemon", "file:///mnt"}
	r.substituters(t.Context(), nil)
	want := "substituters = " + good + "/?priority=30 daemon file:///mnt"
	if r.nix.Config[0] != want {
		t.Errorf("got %q, want %q", r.nix.Config[0], want)
	}
	if !strings.Contains(out.String(), "left out for this run: "+gone) {
		t.Errorf("it is not told:\n%s", out.String())
	}
	if len(r.faults) != 0 {
		t.Errorf("faults %q of caches that were not asked for", r.faults)
	}
}
