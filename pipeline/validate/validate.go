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
)

// Checks returns what is to be checked of the source in dir. options are those
// of the builds that checks make.
func Checks(dir string, options flywheel.Options) []check.Check {
	return []check.Check{
		{Name: "flake", Run: func(ctx context.Context, out io.Writer) error { return flake(ctx, dir, options, out) }},
	}
}

// flake is `nix flake check`, with the cache as for any other build: what it
// builds is pushed.
func flake(ctx context.Context, dir string, o flywheel.Options, out io.Writer) error {
	if _, err := os.Stat(filepath.Join(dir, "flake.nix")); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: there is no flake.nix", check.ErrSkip)
	}
	o.FlakeCheck, o.Out = dir, out
	report, err := flywheel.Build(ctx, o)
	var failed *nix.BuildError
	if errors.As(err, &failed) {
		return errors.New(report.Message)
	}
	return err
}
