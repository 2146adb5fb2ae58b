package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"dagger/attic-cache/internal/dagger"
)

// bundled is where the bundled server answers in the containers it is bound to.
const bundled = "http://cache:8080/main"

// withCache lets a container reach the cache.
func (m *AtticCache) withCache(c *dagger.Container) *dagger.Container {
	if m.Token != nil {
		c = c.WithSecretVariable("ATTIC_TOKEN", m.Token)
	}
	if m.Cache == "" {
		c = c.WithServiceBinding("cache", m.Cacheserver())
	}
	return c
}

func (m *AtticCache) cacheURL() string { return or(m.Cache, bundled) }

// nix is a container with Nix, flywheel and the cache. /nix is a cache volume
// of its base image, seeded with what the image has there; one container drives
// it at a time, for two Nix processes of different containers would share one
// database without seeing each other's locks.
func (m *AtticCache) nix() *dagger.Container {
	base := dag.Container().From(m.NixImage)
	seed := base.WithExec([]string{"mkdir", "-p", "/nix"}).Directory("/nix")
	return m.withCache(base).
		WithMountedCache("/nix", dag.CacheVolume("attic-cache-nix-"+m.NixImage), dagger.ContainerWithMountedCacheOpts{
			Source: seed, Sharing: dagger.CacheSharingModeLocked,
		}).
		WithFile("/usr/local/bin/flywheel", m.Flywheel("")).
		// A container is no place to make another sandbox in.
		WithEnvVariable("NIX_CONFIG", "sandbox = false").
		WithMountedDirectory("/src", m.Source).
		WithWorkdir("/src").
		WithExec([]string{"mkdir", "-p", "/out/files", "/out/reports"})
}

// everyTime makes what follows run at each call, whatever was answered before.
func everyTime(c *dagger.Container) *dagger.Container {
	return c.WithEnvVariable("FLYWHEEL_RUN", time.Now().Format(time.RFC3339Nano))
}

// freshFailure is how old a failure may be to be answered with again: a job asks
// for the report, the summary and the check of one build, in calls of their own.
const freshFailure = time.Minute

// attempt runs a command that may fail. To the engine, a failure that is let
// through is an answer like any other, kept for days: an old one is tried again,
// for its cause may be gone.
func attempt(ctx context.Context, c *dagger.Container, args []string) (done *dagger.Container, status int, err error) {
	fresh := time.Now().Add(-freshFailure)
	const ended = "/out/ended"
	for _, c := range []*dagger.Container{c, everyTime(c)} {
		done = c.WithExec(args, anyExit)
		if status, err = done.ExitCode(ctx); err != nil {
			return nil, 0, err
		}
		if status == exitOK {
			break
		}
		when, err := done.WithExec([]string{"sh", "-c", "date +%s > " + ended}).File(ended).Contents(ctx)
		if err != nil {
			return nil, 0, err
		}
		seconds, err := strconv.ParseInt(strings.TrimSpace(when), 10, 64)
		if err != nil {
			return nil, 0, fmt.Errorf("reading when the command ended: %w", err)
		}
		if time.Unix(seconds, 0).After(fresh) {
			break
		}
	}
	return done, status, nil
}

// BuildResult is what a build made, or left behind.
type BuildResult struct {
	// The results as files that need no Nix, each under its name.
	Out *dagger.Directory
	// What happened, as JSON.
	Report *dagger.File
	// What happened, for a job's reports in GitLab: junit.xml, build.env, annotations.json and metrics.txt.
	Reports *dagger.Directory
	// What happened, as Markdown.
	Summary string
	// Whether it built.
	Ok bool

	// +private
	Message string
}

// Fail if the build failed.
func (r *BuildResult) Check() error {
	if !r.Ok {
		return errors.New(r.Message)
	}
	return nil
}

// Build with Nix, pulling from the cache and pushing every store path to it while the build runs.
//
// A build that fails still has a report, and has pushed what it built: check makes it an error.
// +cache="session"
func (m *AtticCache) Build(
	ctx context.Context,
	// What to build, as nix build takes it; the flake's default package when there is none.
	// +optional
	installables []string,
	// Nix file whose attributes the installables are.
	// +optional
	file string,
	// Build all packages, checks, development shells and NixOS configurations of the flakes, each by itself.
	// +optional
	all bool,
	// Installable to fetch from the cache first; it is never built.
	// +optional
	bootstrap string,
	// Fail when the build fails, instead of returning its report.
	// +optional
	strict bool,
	// Fail when the cache has a fault.
	// +optional
	requireCache bool,
) (*BuildResult, error) {
	args := []string{
		"flywheel", "build", "--cache", m.cacheURL(),
		"--report", "/out/report.json", "--summary", "/out/summary.md", "--out", "/out/files", "--artifacts", "/out/reports",
	}
	if file != "" {
		args = append(args, "--file", file)
	}
	if bootstrap != "" {
		args = append(args, "--bootstrap", bootstrap)
	}
	if all {
		args = append(args, "--all")
	}
	if requireCache {
		args = append(args, "--require-cache")
	}
	done, status, err := attempt(ctx, m.nix(), append(args, installables...))
	if err != nil {
		return nil, err
	}
	if status != exitOK && status != exitFailed && status != exitNoCache {
		return nil, said(ctx, done, "flywheel build", status)
	}
	r := &BuildResult{
		Out: done.Directory("/out/files"), Report: done.File("/out/report.json"), Reports: done.Directory("/out/reports"), Ok: status == exitOK,
	}
	if r.Summary, err = done.File("/out/summary.md").Contents(ctx); err != nil {
		return nil, err
	}
	if !r.Ok {
		r.Message = said(ctx, done, "flywheel build", status).Error()
	}
	if strict {
		return r, r.Check()
	}
	return r, nil
}

// Exit statuses of flywheel (flywheel build --help).
const (
	exitOK      = 0
	exitChecks  = 10
	exitFailed  = 20
	exitNoCache = 21
)

var anyExit = dagger.ContainerWithExecOpts{Expect: dagger.ReturnTypeAny}

// said makes an error of the last lines that a command printed.
func said(ctx context.Context, c *dagger.Container, command string, status int) error {
	words, err := c.Stderr(ctx)
	if err != nil {
		return err
	}
	const kept = 4000
	if len(words) > kept {
		words = "…" + words[len(words)-kept:]
	}
	return fmt.Errorf("%s ended with %d:\n%s", command, status, words)
}

// Checks are the results of named checks, all of which ran.
type Checks struct {
	// Each check's outcome, as JSON.
	Report *dagger.File
	// Each check's outcome, as JUnit's XML.
	Junit *dagger.File
	// Each check's outcome, as Markdown.
	Summary string
	// Whether none failed.
	Ok bool

	// +private
	Message string
}

// Fail if one of them failed.
func (c *Checks) Check() error {
	if !c.Ok {
		return errors.New(c.Message)
	}
	return nil
}

func checks(ctx context.Context, c *dagger.Container, args ...string) (*Checks, error) {
	done, status, err := attempt(ctx, c, append(args, "--report", "/out/checks.json", "--summary", "/out/checks.md", "--junit", "/out/checks.xml"))
	if err != nil {
		return nil, err
	}
	if status != exitOK && status != exitChecks {
		return nil, said(ctx, done, args[0]+" "+args[1], status)
	}
	r := &Checks{Report: done.File("/out/checks.json"), Junit: done.File("/out/checks.xml"), Ok: status == exitOK}
	if r.Summary, err = done.File("/out/checks.md").Contents(ctx); err != nil {
		return nil, err
	}
	if !r.Ok {
		r.Message = said(ctx, done, args[0]+" "+args[1], status).Error()
	}
	return r, nil
}

// Check the sources before anything is deployed from them: a flake.nix gets nix flake check, built through the cache, and OpenTofu's modules are checked each by itself.
// +cache="session"
func (m *AtticCache) Validate(
	ctx context.Context,
	// Git revision; of OpenTofu's modules only those are checked that changed since, and those that use them. It needs the history.
	// +optional
	affected string,
	// Folder .git of the sources.
	// +optional
	history *dagger.Directory,
) (*Checks, error) {
	c := m.nix()
	for _, pattern := range []string{"**/*.tf", "**/*.tofu"} {
		found, err := m.Source.Glob(ctx, pattern)
		if err != nil {
			return nil, fmt.Errorf("looking for OpenTofu's modules: %w", err)
		}
		if len(found) > 0 {
			c = c.WithFile("/usr/local/bin/tofu", dag.Container().From(m.TofuImage).File("/usr/local/bin/tofu"))
			break
		}
	}
	args := []string{"flywheel", "validate", "--cache", m.cacheURL()}
	if affected != "" {
		if history == nil {
			return nil, errors.New("affected is found out from the sources' history: give the folder .git as history")
		}
		c = c.WithMountedDirectory("/src/.git", history)
		args = append(args, "--affected", affected)
	}
	return checks(ctx, c, args...)
}

// Look for security faults and secrets in the sources, with gosec, gitleaks and trivy.
// +cache="session"
func (m *AtticCache) Test(ctx context.Context) (*Checks, error) {
	c := dag.Container().From(m.GoImage).
		WithMountedCache("/go/pkg/mod", dag.CacheVolume("attic-cache-gomod")).
		WithMountedCache("/gocache", dag.CacheVolume("attic-cache-gobuild")).
		WithMountedCache("/cache", dag.CacheVolume("attic-cache-tools")).
		WithEnvVariable("GOMODCACHE", "/go/pkg/mod").
		WithEnvVariable("GOCACHE", "/gocache").
		WithEnvVariable("XDG_CACHE_HOME", "/cache").
		WithFile("/usr/local/bin/flywheel", m.Flywheel("")).
		WithMountedDirectory("/src", m.Source).
		WithWorkdir("/src").
		WithExec([]string{"mkdir", "-p", "/out"})
	return checks(ctx, c, "flywheel", "test")
}

// The sources are valid.
// +check
func (m *AtticCache) SourcesValid(ctx context.Context) error {
	c, err := m.Validate(ctx, "", nil)
	if err != nil {
		return err
	}
	return c.Check()
}

// The sources hold no secrets and no known security faults.
// +check
func (m *AtticCache) SourcesSecure(ctx context.Context) error {
	c, err := m.Test(ctx)
	if err != nil {
		return err
	}
	return c.Check()
}

// Push store paths of the build volume, with all that they refer to, to the cache.
// +cache="never"
func (m *AtticCache) Push(
	ctx context.Context,
	// Store paths, as a build's report names them.
	paths []string,
) (string, error) {
	return everyTime(m.nix()).
		WithExec(append([]string{"flywheel", "push", "--cache", m.cacheURL()}, paths...)).
		Stderr(ctx)
}

// Wait until a cache is healthy, and see that it takes, signs, gives and forgets a path.
// +cache="never"
func (m *AtticCache) Verify(
	ctx context.Context,
	// URL of the cache; the module's own when there is none.
	// +optional
	url string,
	// Environment whose cache it is, in place of a URL: staging, production, or review/BRANCH.
	// +optional
	environment string,
	// How long to wait, such as 2m.
	// +optional
	timeout string,
	// A server to verify as http://cache:8080 instead of the bundled one.
	// +optional
	server *dagger.Service,
) (string, error) {
	if url != "" && environment != "" {
		return "", errors.New("give a URL or an environment, not both")
	}
	c := dag.Container().From(m.GoImage).WithFile("/usr/local/bin/flywheel", m.Flywheel(""))
	if m.Token != nil {
		c = c.WithSecretVariable("ATTIC_TOKEN", m.Token)
	}
	args := []string{"flywheel", "verify"}
	switch {
	case environment != "":
		args = append(args, "--environment", environment)
	case url != "":
		args = append(args, url)
	case m.Cache != "" && server == nil:
		args = append(args, m.Cache)
	default:
		args = append(args, "http://cache:8080")
		if server == nil {
			server = m.Cacheserver()
		}
	}
	if server != nil {
		c = c.WithServiceBinding("cache", server)
	}
	if timeout != "" {
		args = append(args, "--timeout", timeout)
	}
	return everyTime(c).WithExec(args).Stdout(ctx)
}
