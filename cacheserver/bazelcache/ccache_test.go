package bazelcache

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// A compiler cache keeps under /ac what is no ActionResult.
func TestRealCcache(t *testing.T) {
	t.Parallel()
	ccache, err := exec.LookPath("ccache")
	if err != nil {
		t.Skip("ccache is not installed")
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("gcc, for ccache to compile with, is not installed")
	}
	h := open(t, Config{})
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "x.c"), []byte("int main(void) { return 0; }\n"), 0o600))
	var first []byte
	for i, want := range []string{"miss", "hit"} {
		home := t.TempDir() // another machine
		run := func(args ...string) []byte {
			cmd := exec.CommandContext(t.Context(), ccache, args...)
			cmd.Dir = dir
			cmd.Env = []string{
				"HOME=" + home, "PATH=" + os.Getenv("PATH"), "CCACHE_DIR=" + filepath.Join(home, "ccache"),
				"CCACHE_REMOTE_STORAGE=" + h.url + "/ccache|layout=bazel",
			}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("ccache %q: %v\n%s", args, err, out)
			}
			return out
		}
		run("gcc", "-c", "x.c", "-o", "x.o")
		object, err := os.ReadFile(filepath.Join(dir, "x.o"))
		must(t, err)
		stats := run("--print-stats")
		n := regexp.MustCompile(`(?m)^remote_storage_` + want + `\s+(\d+)$`).FindSubmatch(stats)
		if n == nil || string(n[1]) == "0" {
			t.Errorf("compilation %d: no remote %s\n%s", i, want, stats)
		}
		if i == 0 {
			first = object
		} else if string(object) != string(first) {
			t.Error("the object is another")
		}
	}
}
