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
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/bazel"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
)

// bazelTag is what a workspace's rules that validate are tagged with.
const bazelTag = "flywheel-validate"

// hasBazelRules says whether dir is a workspace of Bazel with such a rule, or with a
// macro that makes some.
func hasBazelRules(dir string) bool {
	if !slices.ContainsFunc([]string{"MODULE.bazel", "WORKSPACE", "WORKSPACE.bazel"}, func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	}) {
		return false
	}
	found := false
	_ = filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		switch name := filepath.Base(file); {
		case err != nil:
			return nil //nolint:nilerr // what cannot be read has no rules
		case d.IsDir() && file != dir && (name == ".git" || name == "node_modules" || strings.HasPrefix(name, "bazel-")):
			return fs.SkipDir
		case name != "BUILD" && name != "BUILD.bazel" && filepath.Ext(name) != ".bzl", d.IsDir():
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

// bazelStop is how long Bazel may take to end once it was told to.
const bazelStop = 30 * time.Second

// Exit statuses of `bazel test`, see https://bazel.build/run/scripts#exit-codes.
const (
	bazelTestFailed = 3
	bazelNoTests    = 4 // all that was asked for is built
)

// bazelRules builds the workspace's rules that validate, and runs those that are
// tests, with the remote cache that the run has.
func bazelRules(ctx context.Context, dir, program string, o flywheel.Options, out io.Writer) error {
	path, err := bazelPath(program)
	if err != nil {
		return err
	}
	around := bazel.Around{Caches: o.Caches, Data: o.Data, Credentials: o.Credentials, Dir: dir, Log: o.Log}
	args, end := around.Supply(ctx, []string{
		path, "test", "--keep_going", "--test_output=errors",
		"--build_tag_filters=" + bazelTag, "--test_tag_filters=" + bazelTag, "//...",
	}, func(err error) { _, _ = fmt.Fprintf(out, "%v\n", err) })
	defer end()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	// Killed, Bazel would leave its server at work.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = bazelStop
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	var exit *exec.ExitError
	switch err := cmd.Run(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		return nil
	case !errors.As(err, &exit):
		return fmt.Errorf("running %s: %w", path, err)
	case exit.ExitCode() == bazelNoTests:
		return nil
	case exit.ExitCode() == bazelTestFailed:
		return errors.New("a rule's test failed: see above")
	}
	return fmt.Errorf("a rule cannot be built (bazel test ended with %d): see above", exit.ExitCode())
}

// bazelPath finds the program; empty stands for bazelisk or bazel in PATH.
func bazelPath(program string) (string, error) {
	names := []string{"bazelisk", "bazel"}
	if program != "" {
		names = []string{program}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			// The command runs in another directory.
			return filepath.Abs(path)
		}
	}
	return "", fmt.Errorf("the workspace has rules that validate, and there is no %s: install Bazelisk (https://bazel.build/install/bazelisk), or name a Bazel with --bazel", strings.Join(names, " or "))
}
