// Package scan is the stage test: static analysis and secret detection by
// well-kept tools, which are Go programs at pinned versions and so need nothing
// but Go and its module proxy.
package scan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/atomicfile"
)

// tool is a program that exits with a failure when it finds something.
type tool struct {
	name    string
	module  string
	version string
	command string // the package's place in the module
	env     string // that its build needs
	args    []string
	inGit   []string // instead of args, in a repository with its history
	// needs is a file without which there is nothing to look at.
	needs string
}

var tools = []tool{
	{
		name: "gosec", needs: "go.mod",
		module: "github.com/securego/gosec/v2", version: "v2.22.10", command: "/cmd/gosec",
		// G115 is about conversions of integers: nearly all that it finds stand
		// behind a check that it does not see.
		args: []string{"-quiet", "-exclude-generated", "-exclude", "G115", "-severity", "high", "-confidence", "medium", "./..."},
	},
	{
		name:   "gitleaks",
		module: "github.com/zricethezav/gitleaks/v8", version: "v8.29.0",
		args: []string{"dir", "--no-banner", "--redact", "."},
		// What was committed once is no secret any more, wherever it is now.
		inGit: []string{"git", "--no-banner", "--redact", "."},
	},
	{
		name:   "trivy",
		module: "github.com/aquasecurity/trivy", version: "v0.67.2", command: "/cmd/trivy", env: "GOEXPERIMENT=jsonv2",
		args: []string{
			"config", "--quiet", "--exit-code", "1", "--severity", "HIGH,CRITICAL",
			// The rules that come with the program: no download, and the same
			// answer today and tomorrow.
			"--skip-check-update", "--skip-version-check", ".",
		},
	},
}

// Checks returns a check for each tool, of the source in dir.
func Checks(dir string) []check.Check {
	var checks []check.Check
	for _, t := range tools {
		checks = append(checks, check.Check{
			Name: t.name,
			Run:  func(ctx context.Context, out io.Writer) error { return t.run(ctx, dir, out) },
		})
	}
	return checks
}

func (t tool) run(ctx context.Context, dir string, out io.Writer) error {
	if t.needs != "" {
		if _, err := os.Stat(filepath.Join(dir, t.needs)); errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w: there is no %s", check.ErrSkip, t.needs)
		}
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("running %s needs Go, which is not in PATH: %w", t.name, err)
	}
	bin, err := t.install(ctx, goTool, out)
	if err != nil {
		return err
	}
	args := t.args
	if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil && t.inGit != nil {
		args = t.inGit
	}
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	var exit *exec.ExitError
	switch err := cmd.Run(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &exit):
		return fmt.Errorf("%s found something, or could not look (exit status %d): see above", t.name, exit.ExitCode())
	case err != nil:
		return fmt.Errorf("running %s: %w", t.name, err)
	}
	return nil
}

// install builds the tool once for each version and keeps it in the user's
// cache: `go run` would link it at every call. It builds in a module of its own,
// since `go install` also asks the proxy for lists of versions, which not every
// proxy gives.
func (t tool) install(ctx context.Context, goTool string, out io.Writer) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("installing %s: %w", t.name, err)
	}
	bin := filepath.Join(cache, "attic-cache-tools", t.name+"-"+t.version)
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	dir, err := os.MkdirTemp("", "flywheel-tool-")
	if err != nil {
		return "", fmt.Errorf("installing %s: %w", t.name, err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left, the system clears
	mod := fmt.Sprintf("module tool\n\ngo 1.24\n\nrequire %s %s\n", t.module, t.version)
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o600); err != nil {
		return "", fmt.Errorf("installing %s: %w", t.name, err)
	}
	_, _ = fmt.Fprintf(out, "building %s@%s\n", t.module, t.version)
	// Renamed into place: a broken build, or a second one, leaves no half a tool.
	built := filepath.Join(dir, t.name)
	cmd := exec.CommandContext(ctx, goTool, "build", "-mod=mod", "-buildvcs=false", "-trimpath", "-o", built, t.module+t.command)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.Env = append(os.Environ(), t.env)
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("building %s@%s: %w", t.module, t.version, err)
	}
	if err := keep(built, bin); err != nil {
		return "", fmt.Errorf("installing %s: %w", t.name, err)
	}
	return bin, nil
}

// keep moves a program into the cache, which may be another file system.
func keep(built, bin string) error {
	if err := os.MkdirAll(filepath.Dir(bin), 0o755); err != nil {
		return err
	}
	in, err := os.Open(built)
	if err != nil {
		return err
	}
	defer in.Close()
	return atomicfile.Replace(bin, 0o755, func(f *os.File) error {
		_, err := io.Copy(f, in)
		return err
	})
}
