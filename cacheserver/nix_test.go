package cacheserver_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// nix runs the real Nix with a home and a store of its own.
func nix(t *testing.T, root string, args ...string) (string, error) {
	t.Helper()
	tool, err := exec.LookPath("nix")
	if err != nil {
		t.Skip("nix is not installed: the check with the real client needs it")
	}
	cmd := exec.CommandContext(t.Context(), tool, append([]string{"--extra-experimental-features", "nix-command"}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+root, "XDG_CACHE_HOME="+filepath.Join(root, "cache"), "NIX_CONFIG=", "NIX_REMOTE=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestNixPullsAPathAndItsReferences(t *testing.T) {
	t.Parallel()
	s := start(t)
	dep := file(t, "dep", noise(3<<20, 1))
	p := file(t, "hello", append(noise(500_000, 2), bytes.Repeat([]byte("words "), 100_000)...), base("dep"), base("hello"))
	s.push(t, dep)
	s.scatter(t, p, 30_000)

	for _, url := range []string{s.url, s.url + "/main"} {
		root := t.TempDir()
		out, err := nix(t, root, "copy", "--from", url, "--to", root+"/root", "--option", "trusted-public-keys", s.PublicKey(), p.info.StorePath)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, want := range []path{dep, p} {
			b, err := os.ReadFile(root + "/root" + want.info.StorePath)
			must(t, err)
			if !bytes.Contains(want.nar, b) || int64(len(b)) < want.info.NarSize-200 {
				t.Errorf("%s has other contents", want.info.StorePath)
			}
		}
		if out, err := nix(t, root, "store", "verify", "--store", root+"/root", "--option", "trusted-public-keys", s.PublicKey(), "-r", p.info.StorePath); err != nil {
			t.Errorf("nix store verify: %v\n%s", err, out)
		}
	}
}

// cutter lets n bytes of an answer through and then breaks the connection.
type cutter struct {
	http.ResponseWriter
	n int
}

func (c *cutter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b[:min(len(b), c.n)])
	c.n -= n
	if c.n == 0 {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func TestNixResumesABrokenDownload(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := file(t, "hello", noise(3<<20, 1))
	s.scatter(t, p, 50_000)
	var mu sync.Mutex
	var ranges []string
	handler := s.Handler()
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".nar.zst") && r.Method == http.MethodGet {
			mu.Lock()
			ranges = append(ranges, r.Header.Get("Range"))
			first := len(ranges) == 1
			mu.Unlock()
			if first {
				w = &cutter{w, 1_000_000}
			}
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(bad.Close)
	root := t.TempDir()
	out, err := nix(t, root, "copy", "--from", bad.URL, "--to", root+"/root", "--option", "trusted-public-keys", s.PublicKey(), p.info.StorePath)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ranges) < 2 || ranges[0] != "" || !strings.HasPrefix(ranges[1], "bytes=") || ranges[1] == "bytes=0-" {
		t.Errorf("ranges asked for: %q; want all of it, then the rest", ranges)
	}
}

func TestNixTrustsTheKeyOnly(t *testing.T) {
	t.Parallel()
	s, other := start(t), start(t)
	p := file(t, "hello", []byte("hello"))
	s.push(t, p)
	root := t.TempDir()
	out, err := nix(t, root, "copy", "--from", s.url, "--to", root+"/root", "--option", "trusted-public-keys", other.PublicKey(), p.info.StorePath)
	if err == nil || !strings.Contains(out, "signature") {
		t.Errorf("a path that is not signed by a trusted key: %v\n%s", err, out)
	}
}

func TestNixIsToldOfADamagedPack(t *testing.T) {
	t.Parallel()
	s := start(t)
	p, files := scattered(t, s)
	b, err := os.ReadFile(files[1])
	must(t, err)
	b[len(b)/2] ^= 1
	must(t, os.WriteFile(files[1], b, 0o600))
	root := t.TempDir()
	out, err := nix(t, root, "copy", "--from", s.url, "--to", root+"/root", "--option", "download-attempts", "1", "--option", "trusted-public-keys", s.PublicKey(), p.info.StorePath)
	if err == nil {
		t.Errorf("damaged contents were taken:\n%s", out)
	}
	if _, err := os.Stat(root + "/root" + p.info.StorePath); err == nil {
		if out, err := nix(t, root, "path-info", "--store", root+"/root", p.info.StorePath); err == nil {
			t.Errorf("a damaged path is valid:\n%s", out)
		}
	}
}
