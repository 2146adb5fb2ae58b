package bazelcache

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// workspace is one of real Bazel, on which one output base after the other works.
type workspace struct {
	dir, home string
	bazel     string
}

// endToEnd skips a test that takes minutes unless it is asked for.
func endToEnd(t *testing.T) {
	t.Helper()
	if os.Getenv("BAZELTEST_E2E") == "" {
		t.Skip("it takes minutes: BAZELTEST_E2E=1 or .ci/bazel runs it")
	}
}

func newWorkspace(t *testing.T) *workspace {
	t.Helper()
	endToEnd(t)
	bazel, err := exec.LookPath("bazel")
	if err != nil {
		t.Skip("bazel is not installed; Debian's package is bazel-bootstrap")
	}
	w := &workspace{dir: t.TempDir(), home: t.TempDir(), bazel: bazel}
	must(t, os.CopyFS(w.dir, os.DirFS("testdata/bazel")))
	w.seed(t, "first")
	return w
}

// seed changes what all actions begin with.
func (w *workspace) seed(t *testing.T, s string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(w.dir, "seed.txt"), []byte(s), 0o600))
}

// base starts Bazel on an output base of its own.
func (w *workspace) base(t *testing.T) *base {
	t.Helper()
	b := &base{w, filepath.Join(w.home, strconv.FormatInt(time.Now().UnixNano(), 36))}
	t.Cleanup(func() {
		if out, err := b.command(context.Background(), "shutdown").CombinedOutput(); err != nil {
			t.Errorf("shutdown: %v\n%s", err, out)
		}
		// Bazel makes what it keeps read-only.
		_ = filepath.WalkDir(w.home, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_ = os.Chmod(path, 0o700)
			}
			return nil
		})
	})
	return b
}

type base struct {
	*workspace
	root string
}

// command runs Bazel with the system's settings, in which Debian's has the place
// of its own parts, but with nobody's else.
func (b *base) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.bazel, append([]string{"--nohome_rc", "--output_base=" + b.root, "--output_user_root=" + b.home}, args...)...)
	cmd.Dir = b.dir
	cmd.Env = []string{"HOME=" + b.home, "USER=builder", "PATH=" + os.Getenv("PATH")}
	return cmd
}

// build builds and tests with a remote cache, everything or the targets that stand
// behind -- at the end of the flags, and returns what Bazel says.
func (b *base) build(t *testing.T, remote string, flags ...string) string {
	t.Helper()
	out, err := b.start(t, remote, flags...)()
	if err != nil {
		t.Fatalf("bazel test: %v\n%s", err, out)
	}
	return out
}

func (b *base) start(t *testing.T, remote string, flags ...string) (wait func() (string, error)) {
	t.Helper()
	if !slices.Contains(flags, "--") {
		flags = append(flags, "//...")
	}
	cmd := b.command(t.Context(), append([]string{
		"test", "--override_repository=remote_coverage_tools=" + filepath.Join(b.dir, "coverage"), "--noshow_progress", "--color=no", "--curses=no", "--spawn_strategy=local", "--symlink_prefix=/",
		"--remote_cache=" + remote, "--remote_upload_local_results=true", "--remote_timeout=60", "--remote_local_fallback",
	}, flags...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	return func() (string, error) {
		err := cmd.Wait()
		return out.String(), err
	}
}

func (b *base) clean(t *testing.T) {
	t.Helper()
	if out, err := b.command(t.Context(), "clean").CombinedOutput(); err != nil {
		t.Fatalf("bazel clean: %v\n%s", err, out)
	}
}

// outputs returns the hashes of what was built, by path, but for lists of runfiles:
// they name the output base.
func (b *base) outputs(t *testing.T) map[string]digest.Hash {
	t.Helper()
	bin, err := filepath.Glob(filepath.Join(b.root, "execroot/*/bazel-out/*/bin"))
	must(t, err)
	out := map[string]digest.Hash{}
	for _, dir := range bin {
		must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.Contains(path, ".runfiles") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(dir, path)
			out[rel] = digest.Of(text)
			return err
		}))
	}
	return out
}

// actions is how many the workspace has. Bazel makes of a test one or two.
const actions = 204

// ran returns how many actions Bazel says that it ran in that way.
func ran(t *testing.T, out, way string) int {
	t.Helper()
	m := regexp.MustCompile(`(\d+) ` + way).FindStringSubmatch(out)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	must(t, err)
	return n
}

func TestRealBazel(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	h := open(t, Config{})
	address := h.conn.Target()[len("passthrough:///"):]
	first, second := w.base(t), w.base(t)
	var built map[string]digest.Hash
	same := func(t *testing.T, b *base) {
		t.Helper()
		got := b.outputs(t)
		if len(built) < actions {
			t.Fatalf("%d outputs, want %d at least", len(built), actions)
		}
		for path, h := range built {
			if got[path] != h {
				t.Errorf("%s is another", path)
			}
		}
		if len(got) != len(built) {
			t.Errorf("%d files, built were %d", len(got), len(built))
		}
	}
	cold := func(t *testing.T, out string) {
		t.Helper()
		if hits := ran(t, out, "remote cache hit"); hits > 0 {
			t.Errorf("%d remote cache hits\n%s", hits, out)
		}
	}
	allHits := func(t *testing.T, out string) {
		t.Helper()
		if hits, local := ran(t, out, "remote cache hit"), ran(t, out, "local"); hits < actions || local > 0 {
			t.Errorf("%d remote cache hits of %d, %d actions ran here\n%s", hits, actions, local, out)
		}
	}
	grpc, http := "grpc://"+address, "http://"+address+"/an/instance"
	t.Run("gRPC, cold", func(t *testing.T) {
		cold(t, first.build(t, grpc))
		built = first.outputs(t)
	})
	t.Run("gRPC, another machine", func(t *testing.T) {
		allHits(t, second.build(t, grpc))
		same(t, second)
	})
	t.Run("gRPC, minimal", func(t *testing.T) {
		second.clean(t)
		allHits(t, second.build(t, grpc, "--remote_download_minimal"))
		if got := second.outputs(t); len(got) > actions/2 {
			t.Errorf("%d outputs were downloaded", len(got))
		}
		// What was left out is fetched when a build needs it.
		second.build(t, grpc)
	})
	t.Run("HTTP, another instance", func(t *testing.T) {
		second.clean(t)
		cold(t, second.build(t, http))
		same(t, second)
	})
	t.Run("HTTP, another machine", func(t *testing.T) {
		first.clean(t)
		allHits(t, first.build(t, http))
		same(t, first)
	})
	for _, remote := range []string{grpc, http} {
		t.Run("the cache dies, "+remote[:4], func(t *testing.T) {
			w.seed(t, remote)
			dying := open(t, Config{})
			at := dying.conn.Target()[len("passthrough:///"):]
			wait := first.start(t, remote[:7]+at, "--remote_retries=0", "--remote_timeout=5")
			eventually(t, "some actions are stored", func() bool { return dying.idx.updates.Load() > 30 })
			dying.kill()
			out, err := wait()
			if err != nil {
				t.Fatalf("the build fails: %v\n%s", err, out)
			}
			if n := len(first.outputs(t)); n != len(built) {
				t.Errorf("%d outputs, want %d", n, len(built))
			}
		})
	}
}
