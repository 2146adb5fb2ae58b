package main

import (
	"context"

	"dagger/attic-cache/internal/dagger"
)

// Say which environment a ref is deployed to, and where that is, as a file.
//
// Give one of branch, merge-request and tag. A ref that is deployed nowhere is an error.
func (m *AtticCache) Environment(
	ctx context.Context,
	// Name of a branch.
	// +optional
	branch string,
	// Source branch of a merge request.
	// +optional
	mergeRequest string,
	// Name of a tag.
	// +optional
	tag string,
	// Name of the default branch.
	// +optional
	defaultBranch string,
	// TOML file with the names, clusters and domains of another organisation.
	// +optional
	config *dagger.File,
	// text, json, or dotenv for GitLab.
	// +optional
	format string,
) (*dagger.File, error) {
	const file = "/out/environment"
	c := dag.Container().From(m.GoImage).
		WithFile("/usr/local/bin/flywheel", m.Flywheel("")).
		WithDirectory("/out", dag.Directory())
	args := []string{"flywheel", "environment", "--output", file}
	for _, a := range []struct{ flag, value string }{
		{"--branch", branch},
		{"--merge-request", mergeRequest},
		{"--tag", tag},
		{"--default-branch", defaultBranch},
		{"--format", format},
	} {
		if a.value != "" {
			args = append(args, a.flag, a.value)
		}
	}
	if config != nil {
		c = c.WithMountedFile("/etc/environments.toml", config)
		args = append(args, "--config", "/etc/environments.toml")
	}
	done := c.WithExec(args, anyExit)
	status, err := done.ExitCode(ctx)
	if err != nil {
		return nil, err
	}
	if status != exitOK {
		return nil, said(ctx, done, "flywheel environment", status)
	}
	return done.File(file), nil
}
