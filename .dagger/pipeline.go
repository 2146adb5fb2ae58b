package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"dagger/attic-cache/internal/dagger"
)

func hostPlatform() string { return "linux/" + runtime.GOARCH }

// The whole run in the pipeline's order: validate and build at once, then test, then verify.
//
// All that can run does, even when a stage fails; the error names the stages that did.
// (It is not named pipeline, which the v0.21 command line hides.)
// +cache="never"
func (m *AtticCache) Run(
	ctx context.Context,
	// What to build, as nix build takes it; the flake's default package when there is none.
	// +optional
	installables []string,
	// URL to verify at the end; nothing is verified without one, unless the bundled server is used.
	// +optional
	url string,
) (string, error) {
	var validated, tested *Checks
	var built *BuildResult
	var validateErr, buildErr error
	var g errgroup.Group
	g.Go(func() error { validated, validateErr = m.Validate(ctx, "", nil); return nil })
	g.Go(func() error {
		built, buildErr = m.Build(ctx, installables, "", false, "", false, false)
		return nil
	})
	_ = g.Wait() // each stage keeps its own error
	tested, testErr := m.Test(ctx)

	var summary strings.Builder
	var failed []error
	stage := func(name, text string, err error) {
		fmt.Fprintf(&summary, "## %s\n\n%s\n", name, text)
		if err != nil {
			fmt.Fprintf(&summary, "failed\n\n")
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
		}
	}
	checksStage := func(name string, c *Checks, err error) {
		if err == nil {
			stage(name, c.Summary, c.Check())
		} else {
			stage(name, "", err)
		}
	}
	checksStage("validate", validated, validateErr)
	if buildErr == nil {
		stage("build", built.Summary, built.Check())
	} else {
		stage("build", "", buildErr)
	}
	checksStage("test", tested, testErr)
	if len(failed) == 0 && (url != "" || m.Cache == "") {
		words, err := m.Verify(ctx, url, "", "", nil)
		stage("verify", words, err)
	}
	return summary.String(), errors.Join(failed...)
}

// Publish the cache server's image, or flywheel's, for amd64 and arm64, and return its reference with its digest.
// +cache="never"
func (m *AtticCache) PublishImage(
	ctx context.Context,
	// Where to, such as registry.example.org/group/attic-cache:1.2.3.
	address string,
	// User name at that registry.
	// +optional
	username string,
	// Password or token at that registry.
	// +optional
	password *dagger.Secret,
	// Publish flywheel's image instead of the server's.
	// +optional
	flywheel bool,
) (string, error) {
	image := m.Image
	if flywheel {
		image = m.FlywheelImage
	}
	c := dag.Container()
	if password != nil {
		host, _, _ := strings.Cut(address, "/")
		c = c.WithRegistryAuth(host, username, password)
	}
	return c.Publish(ctx, address, dagger.ContainerPublishOpts{
		PlatformVariants: []*dagger.Container{image("linux/amd64"), image("linux/arm64")},
	})
}
