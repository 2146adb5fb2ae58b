// Package validate is the stage that looks at sources before anything is
// deployed from them. What the source holds decides what is checked.
package validate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/scan"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/tofu"
)

// Options say what to look at.
type Options struct {
	Dir   string
	Build flywheel.Options // of the builds that checks make
	Base  string           // git revision; of OpenTofu's modules, only what changed since; empty for all
	Tofu  string           // the program; empty for tofu in PATH
	Bazel string           // the program; empty for bazelisk or bazel in PATH
	Scan  bool             // look for secrets and security faults, too
}

// Checks returns what is to be checked. Where a workspace of Bazel has rules that
// validate, they do; its cache knows what did not change.
func Checks(ctx context.Context, o Options) []check.Check {
	checks := []check.Check{
		{Name: "flake", Run: func(ctx context.Context, out io.Writer) error { return flake(ctx, o.Dir, o.Build, out) }},
	}
	if hasBazelRules(o.Dir) {
		checks = append(checks, check.Check{Name: "bazel", Run: func(ctx context.Context, out io.Writer) error {
			return bazelRules(ctx, o.Dir, o.Bazel, o.Build, out)
		}})
	} else {
		checks = append(checks, tofu.Checks(ctx, tofu.Options{Dir: o.Dir, Base: o.Base, Tofu: o.Tofu})...)
	}
	if o.Scan {
		checks = append(checks, scan.Checks(o.Dir)...)
	}
	return checks
}

// flake is `nix flake check`, with the cache as for any other build: what it
// builds is pushed.
func flake(ctx context.Context, dir string, o flywheel.Options, out io.Writer) error {
	if _, err := os.Stat(filepath.Join(dir, "flake.nix")); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: there is no flake.nix", check.ErrSkip)
	}
	// To nix, a name without a slash is one of its registry's.
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("checking the flake: %w", err)
	}
	o.FlakeCheck, o.Out = dir, out
	report, err := flywheel.Build(ctx, o)
	var failed *nix.BuildError
	if errors.As(err, &failed) {
		return errors.New(report.Message)
	}
	return err
}
