package main

import (
	"context"
	"errors"
	"strconv"

	"dagger/attic-cache/internal/dagger"
)

// WarmResult is what was found in the cache, or built into it.
type WarmResult struct {
	// What became of each installable, as JSON.
	Report *dagger.File
	// What happened, for a job's reports in GitLab: junit.xml, build.env, annotations.json and metrics.txt.
	Reports *dagger.Directory
	// What became of each installable, as a table.
	Summary string
	// Whether the cache holds all.
	Ok bool

	// +private
	Message string
}

// Fail if the cache lacks something.
func (r *WarmResult) Check() error {
	if !r.Ok {
		return errors.New(r.Message)
	}
	return nil
}

// Keep installables in the cache: what it lacks is built and pushed. It is for schedules.
// +cache="session"
func (m *AtticCache) Warm(
	ctx context.Context,
	// What to keep, as nix build takes it.
	// +optional
	installables []string,
	// File that lists it, an installable a line.
	// +optional
	list *dagger.File,
	// Prefix of names under which the results are pinned.
	// +optional
	pin string,
	// How many revisions of each pin stay.
	// +optional
	// +default=1
	keep int,
	// Name of this run: what was found is told again to calls with the same name. Without one, each call looks anew.
	// +optional
	run string,
) (*WarmResult, error) {
	c := everyTime(m.nix())
	if run != "" {
		c = m.nix().WithEnvVariable("FLYWHEEL_RUN", run)
	}
	args := []string{"flywheel", "warm", "--cache", m.cacheURL(), "--report", "/out/warm.json", "--artifacts", "/out/reports"}
	if pin != "" {
		args = append(args, "--pin", pin, "--keep", strconv.Itoa(keep))
	}
	switch {
	case list != nil && len(installables) > 0:
		return nil, errors.New("give installables or a list of them, not both")
	case list != nil:
		c = c.WithMountedFile("/etc/warm.txt", list)
		args = append(args, "/etc/warm.txt")
	case len(installables) > 0:
		args = append(args, installables...)
	default:
		return nil, errors.New("what is to be kept warm? Give installables, or a list of them")
	}
	done, status, err := attempt(ctx, c, args)
	if err != nil {
		return nil, err
	}
	if status != exitOK && status != exitFailed && status != exitNoCache {
		return nil, said(ctx, done, "flywheel warm", status)
	}
	r := &WarmResult{Report: done.File("/out/warm.json"), Reports: done.Directory("/out/reports"), Ok: status == exitOK}
	if r.Summary, err = done.Stdout(ctx); err != nil {
		return nil, err
	}
	if !r.Ok {
		r.Message = said(ctx, done, "flywheel warm", status).Error()
	}
	return r, nil
}
