package tofu

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Changed returns the files below dir that differ from where this branch left
// base, or are not committed; relative to dir, with slashes.
func Changed(ctx context.Context, dir, base string) ([]string, error) {
	if strings.HasPrefix(base, "-") {
		return nil, fmt.Errorf("%q is no git revision", base)
	}
	fork, err := git(ctx, dir, "merge-base", base, "HEAD")
	if err != nil {
		return nil, fmt.Errorf("finding where this branch left %s: %w; where the clone is shallow, fetch it: git fetch --unshallow origin %s", base, err, base)
	}
	// Renamed files are told as gone and come: both directories changed.
	differ, err := git(ctx, dir, "diff", "--name-only", "--no-renames", "--relative", "-z", strings.TrimSpace(fork))
	if err != nil {
		return nil, fmt.Errorf("comparing with %s: %w", base, err)
	}
	fresh, err := git(ctx, dir, "ls-files", "--others", "--exclude-standard", "-z")
	if err != nil {
		return nil, fmt.Errorf("looking for new files: %w", err)
	}
	var files []string
	for _, f := range strings.Split(differ+fresh, "\x00") {
		if f != "" {
			files = append(files, filepath.ToSlash(f))
		}
	}
	return files, nil
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return "", fmt.Errorf("git %s: %s", args[0], strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return string(out), nil
}
