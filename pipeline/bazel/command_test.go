package bazel

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestWhatStartsBazel(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]bool{
		"bazel build //...": true, "/usr/local/bin/bazelisk test": true, "bazel": true, "./bazel": true,
		"": false, "make": false, "bazel-out/app": false, "sh -c bazel": false,
	} {
		if got := Runs(strings.Fields(command)); got != want {
			t.Errorf("%q: %t", command, got)
		}
	}
}

// A token in a file that others can read, in the command line, or that outlives the
// build is one that is told.
func TestTheTokenIsInAFileOfTheCaller(t *testing.T) {
	t.Parallel()
	args := []string{"bazel", "--output_base", "/x", "build", "//..."}
	before := slices.Clone(args)
	got, remove, err := Supply(args, Settings{Token: "secret", Download: Minimal}.Flags())
	if err != nil {
		t.Fatal(err)
	}
	file, found := strings.CutPrefix(got[1], "--bazelrc=")
	if !found || !slices.Equal(slices.Delete(slices.Clone(got), 1, 2), before) || !slices.Equal(args, before) {
		t.Errorf("%q became %q", args, got)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("it is %s", info.Mode())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "Bearer secret") {
		t.Errorf("it says %q", text)
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestACommandThatReadsNoFileIsToldOf(t *testing.T) {
	t.Parallel()
	if _, _, err := Supply([]string{"bazel", "--ignore_all_rc_files", "build"}, Off()); !errors.Is(err, ErrNoRC) {
		t.Errorf("%v", err)
	}
	_, remove, err := Supply([]string{"bazel", "run", "//x", "--", "--ignore_all_rc_files"}, Off())
	if err != nil {
		t.Fatal(err)
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
}
