package scan

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
)

// archiver is a small tool that is built as the large ones are. It packs the
// files of its arguments, and fails where there are none of that name.
func archiver(args ...string) tool {
	return tool{
		name: "txtar-c", needs: "go.mod",
		module: "github.com/rogpeppe/go-internal", version: "v1.14.1", command: "/cmd/txtar-c",
		args: args, inGit: []string{"-quote", "."},
	}
}

func source(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("words of "+f+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAToolIsBuiltOnceAndItsExitStatusCounts(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("go is not in PATH: tools are built with it")
	}
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	var out strings.Builder
	if err := archiver(".").run(t.Context(), source(t, "go.mod"), &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "words of go.mod") {
		t.Errorf("the tool did not look at the source:\n%s", out.String())
	}
	if err := archiver("nothing").run(t.Context(), source(t, "go.mod"), io.Discard); err == nil || !strings.Contains(err.Error(), "found something") {
		t.Errorf("a tool that fails: %v", err)
	}
	again := archiver(".")
	again.module = "example.org/nowhere" // it would have to be fetched
	if err := again.run(t.Context(), source(t, "go.mod"), io.Discard); err != nil {
		t.Errorf("it was built a second time: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(cache, "attic-cache-tools", "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("the cache holds %v, %v", left, err)
	}
}

func TestAToolWithNothingToLookAtIsSkipped(t *testing.T) {
	t.Parallel()
	if err := archiver(".").run(t.Context(), source(t, "main.tf"), io.Discard); !errors.Is(err, check.ErrSkip) {
		t.Errorf("got %v, want ErrSkip", err)
	}
}

func TestWithoutGoTheErrorSaysSo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := archiver(".").run(t.Context(), source(t, "go.mod"), io.Discard); err == nil || !strings.Contains(err.Error(), "needs Go") {
		t.Errorf("got %v", err)
	}
}
