package bazelcache

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// unreachable matches what go says when it is modules that it cannot get.
var unreachable = regexp.MustCompile(`(?m)(Get|reading) "?https?://|module lookup disabled|dial tcp`)

// remotetool builds the client of remote-apis-sdks, at the version that
// testdata/remotetool/go.mod says.
func remotetool(t *testing.T) string {
	t.Helper()
	endToEnd(t)
	binary := filepath.Join(t.TempDir(), "remotetool")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, "github.com/bazelbuild/remote-apis-sdks/go/cmd/remotetool")
	cmd.Dir = "testdata/remotetool"
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil && unreachable.Match(out) {
		t.Skipf("remotetool is not to be had: %v\n%s", err, out)
	} else if err != nil {
		t.Fatalf("building remotetool: %v\n%s", err, out)
	}
	return binary
}

// files are the contents of a tree by path, and whether they are executable.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		out[rel] = fmt.Sprintf("%s %t", digest.Of(b), info.Mode()&0o100 != 0)
		return err
	}))
	return out
}

// The client of another author: trees with small files, which it sends in batches,
// and large ones, which it streams.
func TestRemotetoolMovesTrees(t *testing.T) {
	t.Parallel()
	tool := remotetool(t)
	h := open(t, Config{})
	address := h.conn.Target()[len("passthrough:///"):]
	run := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), tool, append([]string{"--service=" + address, "--instance=team", "--service_no_security", "--alsologtostderr", "--log_dir=" + t.TempDir()}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	tree := t.TempDir()
	for i := range 300 {
		dir := filepath.Join(tree, fmt.Sprintf("d%d", i%7), "sub")
		must(t, os.MkdirAll(dir, 0o700))
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint("small", i)), noise(uint64(i), i*50), 0o600|os.FileMode(i%2)*0o100))
	}
	must(t, os.WriteFile(filepath.Join(tree, "large"), noise(1, 9<<20), 0o600))
	must(t, os.WriteFile(filepath.Join(tree, "compresses"), make([]byte, 9<<20), 0o600))
	want := files(t, tree)
	for range 2 { // the second finds all of it
		stats := filepath.Join(t.TempDir(), "stats.json")
		run("--operation=upload_dir", "--path="+tree, "--json="+stats)
		text, err := os.ReadFile(stats)
		must(t, err)
		var said struct {
			RootDigest struct {
				Hash string
				Size int64
			}
		}
		must(t, json.Unmarshal(text, &said))
		root := fmt.Sprintf("%s/%d", said.RootDigest.Hash, said.RootDigest.Size)
		got := filepath.Join(t.TempDir(), "tree")
		run("--operation=download_dir", "--digest="+root, "--path="+got)
		have := files(t, got)
		for path, f := range want {
			if have[path] != f {
				t.Errorf("%s is %q, not %q", path, have[path], f)
			}
		}
		if len(have) != len(want) {
			t.Errorf("%d files, want %d", len(have), len(want))
		}
	}
}
