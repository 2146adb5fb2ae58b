package target

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/nixtest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/pusher"
)

// files serves a directory as a plain binary cache that takes uploads.
func files(t *testing.T, dir string, hide func(http.ResponseWriter, *http.Request) bool) *httptest.Server {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "nix-cache-info"), []byte("WantMassQuery: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hide != nil && hide(w, r) {
			return
		}
		if r.Method != http.MethodPut {
			http.FileServer(http.Dir(dir)).ServeHTTP(w, r)
			return
		}
		file := filepath.Join(dir, filepath.FromSlash(path.Clean(r.URL.Path)))
		text, err := io.ReadAll(r.Body)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(file), 0o750)
		}
		if err == nil {
			err = os.WriteFile(file, text, 0o600)
		}
		if err != nil {
			t.Error(err)
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(h.Close)
	return h
}

// nixStore is a real store with a few paths, none of which refers to another.
func nixStore(t *testing.T, attrs ...string) (*nix.Nix, []pusher.Path) {
	t.Helper()
	s := nixtest.New(t)
	var expression strings.Builder
	for _, a := range attrs {
		expression.WriteString(a + ` = step "` + a + `" [ ] "echo ` + a + ` > $out";` + "\n")
	}
	built := s.Build(t, expression.String(), attrs...)
	n := &nix.Nix{Path: s.Nix}
	n.Configure("download-attempts = 1") // or nix waits for seconds between its attempts
	infos, err := n.Paths(t.Context(), built)
	if err != nil || len(infos) != len(attrs) {
		t.Fatalf("%d paths, %v", len(infos), err)
	}
	paths := make([]pusher.Path, len(infos))
	for i, p := range infos {
		paths[i] = storePath("unused", "")
		paths[i].StorePath, paths[i].NarSize = p.Path, p.NarSize
	}
	return n, paths
}

// answers are what a server can do instead of what it should. Each ends what it was
// asked.
var answers = map[string]struct {
	answer http.HandlerFunc
	says   string // by every kind of target
	slow   bool
}{
	"answers 500": {
		answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, says: "500",
	},
	"answers a page": {
		answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html><h1>Sign in</h1>")
		}, says: "look for a proxy or a login page",
	},
	"answers half of its JSON": {
		answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, `{"missing_paths":[`)
		}, says: "look for a proxy or a login page",
	},
	"answers another's JSON": {
		answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, `{"status":"ok"}`)
		}, says: "look for a proxy or a login page",
	},
	"dies in the middle": {
		answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, 10)
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = conn.Close()
			}
		},
	},
	"trickles": {
		answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // before it, a server does not see that its client left
			_, _ = io.WriteString(w, "{")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, slow: true,
	},
}

// What a server does that is none of a cache's is an error that says so, for every
// question and every path; and never a success.
func TestAFaultyServerIsToldAsOne(t *testing.T) {
	t.Parallel()
	n, paths := nixStore(t, "p")
	for name, fault := range answers {
		var faulty atomic.Bool
		hide := func(w http.ResponseWriter, r *http.Request) bool {
			if faulty.Load() {
				fault.answer(w, r)
			}
			return faulty.Load()
		}
		plain := files(t, t.TempDir(), hide)
		kinds := map[Kind]Target{}
		for _, url := range []string{
			plain.URL,
			serve(t, func(w http.ResponseWriter, r *http.Request) bool { return hide(w, r) || noPush(w, r) }) + "/main",
		} {
			a, err := Ask(t.Context(), url, "", n)
			if err != nil || a.Target == nil {
				t.Fatalf("%s: %v, %v", url, a.ReadOnly, err)
			}
			kinds[a.Target.Kind()] = a.Target
		}
		kinds[Attic].(*attic).backoff = time.Millisecond
		if fault.slow {
			const patience = 300 * time.Millisecond
			kinds[Attic].(*attic).patience, kinds[Copy].(*copyTarget).patience = patience, patience
		}
		sent := map[Kind]pusher.Path{Attic: storePath("path", strings.Repeat("x", 60_000)), Copy: paths[0]}
		faulty.Store(true)
		for kind, target := range kinds {
			t.Run(name+", "+string(kind), func(t *testing.T) {
				t.Parallel()
				check := func(what string, err error) {
					t.Helper()
					switch {
					case err == nil:
						t.Errorf("%s: taken for a success", what)
					case fault.slow != errors.Is(err, push.ErrTooSlow):
						t.Errorf("%s: %v; is it too slow: want %v", what, err, fault.slow)
					case !strings.Contains(err.Error(), fault.says):
						t.Errorf("%s: %v; want %q in it", what, err, fault.says)
					case strings.Contains(err.Error(), "\n"):
						t.Errorf("%s: more than a line: %v", what, err)
					}
				}
				_, err := target.MissingPaths(t.Context(), []string{hashOf(sent[kind])})
				check("which are missing", err)
				if err = target.Send(t.Context(), sent[kind]); kind == Attic || fault.slow {
					check("sending", err)
				} else if err == nil || strings.Contains(err.Error(), "\n") {
					t.Errorf("sending: %v; want nix's own words, in a line", err)
				}
				if !fault.slow { // a probe has its own patience
					if err := target.Probe(t.Context()); err == nil {
						t.Error("a probe finds it back")
					}
				}
			})
		}
	}
}

// A store that answers again after a path was lost there gets it once more: nix
// remembers for a month what it saw.
func TestCopySendsAgainWhatTheStoreLost(t *testing.T) {
	t.Parallel()
	n, paths := nixStore(t, "p")
	dir := t.TempDir()
	a, err := Ask(t.Context(), files(t, dir, nil).URL, "", n)
	if err != nil {
		t.Fatal(err)
	}
	narinfo := filepath.Join(dir, hashOf(paths[0])+".narinfo")
	for range 2 {
		if err := a.Target.Send(t.Context(), paths[0]); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(narinfo); err != nil {
			t.Fatalf("it was sent: %v", err)
		}
	}
}

// A proxy that says yes to every upload stores nothing.
func TestCopySeesThatTheStoreKeepsNothing(t *testing.T) {
	t.Parallel()
	n, paths := nixStore(t, "a", "b", "c", "d", "e")
	var asked atomic.Bool
	h := files(t, t.TempDir(), func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !asked.Load() {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "<html>thank you")
		return true
	})
	a, err := Ask(t.Context(), h.URL, "", n)
	if err != nil {
		t.Fatal(err)
	}
	asked.Store(true)
	target := a.Target.(*copyTarget)
	batch := make([]*copyRequest, len(paths))
	for i, p := range paths {
		batch[i] = &copyRequest{path: p.StorePath, size: p.NarSize, done: make(chan error, 1)}
	}
	if err := target.copyAll(t.Context(), batch); !errors.Is(err, errNotKept) {
		t.Errorf("the last error is %v, want errNotKept", err)
	}
	for _, r := range batch {
		if err := <-r.done; !errors.Is(err, errNotKept) {
			t.Errorf("%s: %v, want errNotKept", r.path, err)
		}
	}
	if a, err := Ask(t.Context(), h.URL, "", n); err != nil || a.Target != nil || a.ReadOnly == nil {
		t.Errorf("asked while it does so: %+v, %v; want it to be read only", a, err)
	}
}

// A store that takes a path and never answers costs its time once, not once for each
// path that waits.
func TestCopyLeavesASlowStoreAlone(t *testing.T) {
	t.Parallel()
	n, paths := nixStore(t, "a", "b")
	n.Configure("stalled-download-timeout = 5") // a busy machine lets it wait for seconds before the upload, too
	var uploads atomic.Int32
	var asked atomic.Pointer[copyTarget] // nil while it is asked what it is
	second := &copyRequest{path: paths[1].StorePath, size: paths[1].NarSize, done: make(chan error, 1)}
	h := files(t, t.TempDir(), func(_ http.ResponseWriter, r *http.Request) bool {
		target := asked.Load()
		if r.Method != http.MethodPut || target == nil {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body)
		if uploads.Add(1) == 1 {
			target.mu.Lock()
			target.waiting = append(target.waiting, second)
			target.mu.Unlock()
		}
		<-r.Context().Done()
		return true
	})
	a, err := Ask(t.Context(), h.URL, "", n)
	if err != nil {
		t.Fatal(err)
	}
	target := a.Target.(*copyTarget)
	asked.Store(target)
	err = target.Send(t.Context(), paths[0])
	if n := uploads.Load(); n != 1 {
		t.Fatalf("%d uploads, want 1: %v", n, err)
	}
	for which, err := range []error{err, <-second.done} {
		if !errors.Is(err, push.ErrTooSlow) {
			t.Errorf("path %d: %v, want ErrTooSlow", which, err)
		}
	}
}
