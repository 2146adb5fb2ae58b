package validate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// bazelTag is what a workspace's rules that validate are tagged with.
const bazelTag = "flywheel-validate"

// hasBazelRules says whether dir is a workspace of Bazel with such a rule.
func hasBazelRules(dir string) bool {
	if !slices.ContainsFunc([]string{"MODULE.bazel", "WORKSPACE", "WORKSPACE.bazel"}, func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	}) {
		return false
	}
	found := false
	_ = filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil //nolint:nilerr // what cannot be read has no rules
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), "bazel-")):
			return fs.SkipDir
		case d.Name() != "BUILD" && d.Name() != "BUILD.bazel":
			return nil
		}
		text, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(text), bazelTag) {
			found = true
			return fs.SkipAll
		}
		return nil
	})
	return found
}

// bazelTests runs the workspace's rules that validate.
func bazelTests(ctx context.Context, dir string, out io.Writer) error {
	bazel, err := exec.LookPath("bazelisk")
	if err != nil {
		bazel, err = exec.LookPath("bazel")
	}
	if err != nil {
		return errors.New("the workspace has rules that validate, and neither bazelisk nor bazel is in PATH: install one")
	}
	// Its cache is that of the workspace's .bazelrc (flywheel bazelrc prints one).
	cmd := exec.CommandContext(ctx, bazel, "test", "--keep_going", "--test_tag_filters="+bazelTag, "--build_tests_only", "//...")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	var exit *exec.ExitError
	switch err := cmd.Run(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &exit):
		return fmt.Errorf("bazel test ended with %d: see above", exit.ExitCode())
	case err != nil:
		return fmt.Errorf("running %s: %w", bazel, err)
	}
	return nil
}
