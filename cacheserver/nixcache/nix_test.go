package nixcache_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// machine has the real Nix with a store and a home of its own, and a server with a
// cache for that store.
type machine struct {
	t     testing.TB
	rig   *rig
	dir   string
	store string
	url   string
	key   string // the cache's public one

	mu    sync.Mutex
	asked []string // requests and what was answered
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	return newMachineOf(t, func(string) nixcache.Config { return nixcache.Config{} })
}

// newMachineOf makes one whose server is configured for that directory.
func newMachineOf(t testing.TB, config func(dir string) nixcache.Config) *machine {
	t.Helper()
	if _, err := exec.LookPath("nix"); err != nil {
		t.Skip("nix is not installed: the check with the real client needs it")
	}
	m := &machine{t: t, dir: t.TempDir()}
	m.rig = openRigWith(t, config(m.dir), func(p packstore.Store) packstore.Store { return p })
	m.store = filepath.Join(m.dir, "store")
	t.Cleanup(m.thaw)
	key, err := narinfo.GenerateKey("machine-1")
	must(t, err)
	m.key = key.Public()
	must(t, m.rig.sqlite.Update(t.Context(), func(tx index.Tx) error {
		_, err := tx.AddCache(index.Cache{Name: "machine", StoreDir: m.store, SecretKeys: []string{key.Reveal()}, Retention: index.GlobalRetention})
		return err
	}))
	handler := m.rig.Handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Noted with the status: a long answer has reached the client before its
		// handler returns.
		note := func(code int) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.asked = append(m.asked, fmt.Sprint(r.Method, " ", r.URL.Path, " ", code))
		}
		rec := &status{ResponseWriter: w, note: note}
		handler.ServeHTTP(rec, r)
		if !rec.noted {
			note(http.StatusOK)
		}
	}))
	t.Cleanup(server.Close)
	m.url = server.URL + "/machine"
	return m
}

type status struct {
	http.ResponseWriter
	note  func(code int)
	noted bool
}

func (s *status) WriteHeader(code int) {
	if !s.noted {
		s.noted = true
		s.note(code)
	}
	s.ResponseWriter.WriteHeader(code)
}

func (s *status) Write(b []byte) (int, error) {
	if !s.noted {
		s.noted = true
		s.note(http.StatusOK)
	}
	return s.ResponseWriter.Write(b)
}

func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// requests returns those so far that begin so, and forgets them.
func (m *machine) requests(prefix string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []string
	for _, a := range m.asked {
		if strings.HasPrefix(a, prefix) {
			found = append(found, a)
		}
	}
	m.asked = nil
	return found
}

// thaw makes writable what Nix made read-only, to be removed.
func (m *machine) thaw() {
	_ = filepath.WalkDir(m.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o755)
		}
		return nil
	})
}

// wipe makes the machine forget all paths, and, with its home, all that it was told
// of caches.
func (m *machine) wipe(home bool) {
	m.t.Helper()
	m.thaw()
	for _, dir := range []string{"store", "state", "log"} {
		must(m.t, os.RemoveAll(filepath.Join(m.dir, dir)))
	}
	if home {
		must(m.t, os.RemoveAll(filepath.Join(m.dir, "home")))
	}
}

func (m *machine) try(program string, args ...string) (string, error) {
	m.t.Helper()
	out, err := m.command(program, args...).CombinedOutput()
	return string(out), err
}

func (m *machine) command(program string, args ...string) *exec.Cmd {
	m.t.Helper()
	conf := filepath.Join(m.dir, "conf")
	must(m.t, os.MkdirAll(conf, 0o755))
	must(m.t, os.MkdirAll(filepath.Join(m.dir, "home"), 0o755))
	must(m.t, os.WriteFile(filepath.Join(conf, "nix.conf"), []byte("sandbox = false\nbuild-users-group =\nsubstituters =\nexperimental-features = nix-command ca-derivations\n"), 0o644))
	cmd := exec.CommandContext(m.t.Context(), program, args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "NIX_STORE_DIR=" + m.store, "NIX_STATE_DIR=" + filepath.Join(m.dir, "state"),
		"NIX_LOG_DIR=" + filepath.Join(m.dir, "log"), "NIX_CONF_DIR=" + conf, "HOME=" + filepath.Join(m.dir, "home"),
	}
	cmd.Dir = m.dir
	return cmd
}

func (m *machine) run(program string, args ...string) string {
	m.t.Helper()
	out, err := m.try(program, args...)
	if err != nil {
		m.t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	return out
}

// chain is two derivations of which the second refers to the first's output.
const chain = `
let
  system = builtins.currentSystem;
  mk = name: script: derivation { inherit name system; builder = "/bin/sh"; args = [ "-c" script ]; PATH = "/usr/bin:/bin"; };
  dep = mk "dep" "echo building dep; mkdir -p $out/lib; head -c 300000 /dev/zero > $out/lib/zeros; echo words > $out/lib/words; ln -s words $out/lib/link";
in mk "top" "echo building top; mkdir -p $out/bin; echo '#!/bin/sh' > $out/bin/run; echo ${dep} >> $out/bin/run; chmod +x $out/bin/run"
`

// build builds an expression and returns the path of its output.
func (m *machine) build(expr string, options ...string) string {
	m.t.Helper()
	return m.said("nix-build", append([]string{"--no-out-link", "-E", expr}, options...)...)
}

func (m *machine) tryBuild(expr string, options ...string) (string, error) {
	return m.try("nix-build", append([]string{"--no-out-link", "-E", expr}, options...)...)
}

// said returns the path that a program names on standard output: what it warns of
// while the machine is busy, such as a database that is locked, is on the other.
func (m *machine) said(program string, args ...string) string {
	m.t.Helper()
	cmd := m.command(program, args...)
	var warned strings.Builder
	cmd.Stderr = &warned
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%s %q: %v\n%s", program, args, err, warned.String())
	}
	return strings.TrimSpace(string(out))
}

// trust are the options by which the machine takes what the cache signed.
func (m *machine) trust() []string {
	return []string{"--option", "trusted-public-keys", m.key}
}

func (m *machine) wantChain(top string) {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(top, "bin", "run"))
	must(m.t, err)
	_, dep, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	words, err := os.ReadFile(filepath.Join(dep, "lib", "link"))
	if err != nil || string(words) != "words\n" {
		m.t.Errorf("%s: %q, %v", dep, words, err)
	}
	m.run("nix", "store", "verify", "--no-trust", "--recursive", top)
}

func TestNixCopiesWithEveryCompression(t *testing.T) {
	t.Parallel()
	for _, compression := range []string{"none", "xz", "zstd", "bzip2", "br", "gzip", "lz4", "lzip"} {
		t.Run(compression, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			top := m.build(chain)
			to := m.url + "?compression=" + compression + "&write-nar-listing=true&index-debug-info=true"
			m.run("nix", "copy", "--to", to, top)
			put := m.requests("PUT /machine/nar/")
			if len(put) != 2 {
				t.Errorf("uploaded: %q", put)
			}
			// The same again uploads nothing, also when only the narinfo is gone.
			m.run("nix", "copy", "--to", to, top)
			if again := m.requests("PUT"); len(again) != 0 {
				t.Errorf("uploaded again: %q", again)
			}
			// This client remembers the narinfos that it uploaded: without the cache's
			// signature, and with the names of those files.
			if compression != "bzip2" {
				m.wipe(false)
				m.run("nix", "copy", "--no-check-sigs", "--from", m.url, top)
				m.wantChain(top)
				if got := m.requests("GET /machine/nar/"); len(got) != 2 || !strings.Contains(strings.Join(put, "\n"), strings.Fields(got[0])[1]) {
					t.Errorf("downloaded %q of what was uploaded, %q", got, put)
				}
			}
			// Another one does not.
			m.wipe(true)
			m.run("nix", append([]string{"copy", "--from", m.url, top}, m.trust()...)...)
			m.wantChain(top)
			for _, a := range m.requests("GET /machine/nar/") {
				if !strings.HasSuffix(a, ".nar.zst 200") {
					t.Errorf("downloaded %s", a)
				}
			}
		})
	}
}

func TestNixBuildsFromTheCacheWhatItTrusts(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	top := m.build(chain)
	m.run("nix", "copy", "--to", m.url, top)
	// Nothing can be built, so all of it must come from the cache.
	from := func(key string) []string {
		return []string{"--max-jobs", "0", "--option", "substituters", m.url, "--option", "require-sigs", "true", "--option", "trusted-public-keys", key}
	}
	other, err := narinfo.GenerateKey("machine-1")
	must(t, err)
	m.wipe(true)
	if out, err := m.tryBuild(chain, from(other.Public())...); err == nil {
		t.Errorf("taken with another key:\n%s", out)
	}
	m.wipe(true)
	if got := m.build(chain, from(m.key)...); got != top {
		t.Errorf("built %s, not %s", got, top)
	}
	m.wantChain(top)
	// After a change of keys, clients that know only the old one go on.
	c, err := m.rig.sqlite.Cache(t.Context(), "machine")
	must(t, err)
	newer, err := narinfo.GenerateKey("machine-2")
	must(t, err)
	c.SecretKeys = append([]string{newer.Reveal()}, c.SecretKeys...)
	must(t, m.rig.sqlite.Update(t.Context(), func(tx index.Tx) error {
		return tx.UpdateCache(c.ID, func(there *index.Cache) error { *there = c; return nil })
	}))
	again := httptest.NewServer(m.rig.again().Handler())
	defer again.Close()
	m.url = again.URL + "/machine"
	for _, key := range []string{m.key, newer.Public()} {
		m.wipe(true)
		if got := m.build(chain, from(key)...); got != top {
			t.Errorf("built %s, not %s", got, top)
		}
	}
}

func TestNixBefore24SubstitutesUncompressed(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	top := m.build(chain)
	m.run("nix", "copy", "--to", m.url, top)
	m.requests("")
	m.wipe(true)
	m.run("nix", append([]string{"copy", "--from", m.url + "/compression=none", top}, m.trust()...)...)
	m.wantChain(top)
	for _, a := range m.requests("GET /machine/compression=none/nar/") {
		if !strings.HasSuffix(a, ".nar 200") {
			t.Errorf("downloaded %s", a)
		}
	}
}

func TestNixCopiesLogs(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	top := m.build(chain)
	drv := strings.TrimSpace(m.run("nix-store", "--query", "--deriver", top))
	m.run("nix", "copy", "--to", m.url, top)
	m.run("nix", "store", "copy-log", "--to", m.url, drv)
	must(t, os.RemoveAll(filepath.Join(m.dir, "log")))
	for _, of := range []string{drv, top} {
		if out := m.run("nix", "log", "--option", "substituters", m.url, of); !strings.HasSuffix(out, "building top\n") {
			t.Errorf("the log of %s is %q", of, out)
		}
	}
	if w := m.rig.get("/machine/log/" + filepath.Base(drv)); w.Body.String() != "building top\n" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}

// A listing that is made here is what Nix would have uploaded.
func TestNixReadsListings(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	top := m.build(chain)
	m.run("nix", "copy", "--to", m.url, top)
	beside := filepath.Join(m.dir, "beside")
	m.run("nix", "copy", "--to", "file://"+beside+"?write-nar-listing=true", top)
	files, err := filepath.Glob(filepath.Join(beside, "*.ls"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		var want, got any
		must(t, json.Unmarshal(text, &want))
		if err := json.Unmarshal(m.rig.get("/machine/"+filepath.Base(file)).Body.Bytes(), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, %v\nwant %v", got, err, want)
		}
	}
	m.wipe(true)
	if out := m.run("nix", "store", "cat", "--store", m.url, top+"/bin/run"); !strings.HasPrefix(out, "#!/bin/sh\n") {
		t.Errorf("nix store cat: %q", out)
	}
	if out := m.run("nix", "store", "ls", "--store", m.url, "--recursive", top); !strings.Contains(out, "./bin/run") {
		t.Errorf("nix store ls: %q", out)
	}
}

func TestNixCopiesRealisations(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	const expr = `derivation { name = "ca"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo hello > $out" ];
		__contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; }`
	top := m.build(expr)
	m.run("nix", "copy", "--to", m.url, m.said("nix-instantiate", "-E", expr))
	if put := m.requests("PUT /machine/realisations/"); len(put) == 0 {
		t.Errorf("no realisation was uploaded")
	}
	m.wipe(true)
	got := m.build(expr, append([]string{"--max-jobs", "0", "--option", "substituters", m.url}, m.trust()...)...)
	if got != top {
		t.Errorf("%s, not %s", got, top)
	}
	if b, err := os.ReadFile(top); err != nil || string(b) != "hello\n" {
		t.Errorf("%q, %v", b, err)
	}
}
