package flywheel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

const (
	// DefaultParallel is how many installables are built at a time where each is
	// built by itself. Each nix has its own max-jobs.
	DefaultParallel = 2
	// evaluators is how many are evaluated at a time: evaluation costs memory.
	evaluators = 2
	// buildRetries is how many times a build is tried again that blamed a cache or
	// the network; the last time it pulls from fewer caches.
	buildRetries = 2
	buildBackoff = 2 * time.Second
)

// eachByItself says whether every installable has a nix of its own, and an
// outcome.
func (r *run) eachByItself() bool {
	return r.FlakeCheck == "" && (r.All || r.SkipCached || r.KeepGoing || r.Parallel > 1)
}

// buildOne builds, and tries again what a cache or the network is to blame for.
func (r *run) buildOne(ctx context.Context, request nix.Request) ([]string, error) {
	for attempt := 0; ; attempt++ {
		results, err := r.nix.Build(ctx, request, r.console)
		var failed *nix.BuildError
		if !errors.As(err, &failed) || ctx.Err() != nil {
			return results, err
		}
		switch {
		case failed.Crashed:
			if !r.pullLess("nix crashed") {
				return results, err
			}
			attempt-- // there are only so many caches to leave out
			continue
		case !failed.TemporaryFault() || attempt == buildRetries:
			return results, err
		case attempt == buildRetries-1:
			r.pullLess("builds failed")
		}
		wait := buildBackoff << attempt
		r.console.note("the build blames a cache or the network: trying again in %v", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// buildEach builds every installable by itself, some at a time, while further
// ones are evaluated. Without KeepGoing, the first failure ends the others. The
// error is that of the first that failed, in the order in which they were given.
func (r *run) buildEach(ctx context.Context, report *Report) ([]string, error) {
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parallel := r.Parallel
	if parallel < 1 {
		parallel = DefaultParallel
	}
	builders := semaphore.NewWeighted(int64(parallel))
	var units []*unit
	var evaluating errgroup.Group
	evaluating.SetLimit(evaluators)
	var building sync.WaitGroup
	listed := r.candidates(ctx, func(c candidate) {
		u := &unit{run: r, candidate: c, began: time.Now()}
		units = append(units, u)
		end := func(err error) {
			u.end(outer, err)
			if err != nil && !r.KeepGoing {
				cancel()
			}
		}
		evaluating.Go(func() error {
			skip, err := u.evaluate(ctx)
			if err != nil || skip {
				end(err)
				return nil
			}
			building.Go(func() { end(u.build(ctx, builders)) })
			return nil
		})
	})
	_ = evaluating.Wait() // none returns an error
	building.Wait()
	if r.All { // they come in any order
		slices.SortStableFunc(units, func(a, b *unit) int { return strings.Compare(a.installable, b.installable) })
	}
	var results []string
	var failures []error
	for _, u := range units {
		report.Outputs = append(report.Outputs, u.output)
		failures = append(failures, u.failure)
		for _, p := range u.results {
			if !slices.Contains(results, p) {
				results = append(results, p)
			}
		}
	}
	if outer.Err() != nil {
		return results, outer.Err()
	}
	if err := firstFailure(failures); err != nil {
		return results, err
	}
	return results, listed
}

// firstFailure is the first error that is not another's consequence.
func firstFailure(failures []error) error {
	for _, err := range failures {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(failures...)
}

// unit is one installable on its way.
type unit struct {
	*run
	candidate
	began   time.Time
	results []string
	skipped string // why
	output  Output
	failure error
}

// evaluate finds the derivation, and whether there is anything to do.
func (u *unit) evaluate(ctx context.Context) (skip bool, err error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if u.err != nil {
		return false, u.err
	}
	if filepath.IsAbs(u.installable) && u.File == "" && !strings.HasSuffix(u.installable, ".drv") {
		return false, nil // a store path: there is nothing to evaluate
	}
	if u.derivation.Path == "" {
		u.derivation, err = u.nix.Evaluate(ctx, u.File, u.installable, u.store.Dir, u.NixArgs)
		switch {
		case errors.Is(err, nix.ErrSeveral):
			return false, nil // nix builds them together
		case err != nil:
			return false, err
		}
	}
	// What is to be copied or linked has to be here.
	wanted := u.CopyOut != "" || u.OutLink != "" || u.GCRoot != ""
	if !u.SkipCached || wanted || u.target == nil || len(u.derivation.Outputs) == 0 {
		return false, nil
	}
	hashes := make([]string, len(u.derivation.Outputs))
	for i, p := range u.derivation.Outputs {
		hashes[i] = storepath.Hash(p)
	}
	missing, err := u.target.MissingPaths(ctx, hashes)
	if err != nil {
		u.fault("--skip-cached: %v; %s is built", err, u.installable)
		return false, nil
	}
	if len(missing) > 0 {
		return false, nil
	}
	u.skipped = "is in the cache"
	return true, nil
}

func (u *unit) build(ctx context.Context, builders *semaphore.Weighted) error {
	if err := builders.Acquire(ctx, 1); err != nil {
		return err
	}
	defer builders.Release(1)
	u.began = time.Now()
	request := nix.Request{Installables: []string{u.derivation.Path}, Args: nix.ElsewhereArgs(u.NixArgs), Observer: u.console, Made: u.made(ctx)}
	if u.derivation.Path == "" {
		request.Installables, request.File, request.Args = []string{u.installable}, u.File, u.NixArgs
	}
	if u.KeepGoing {
		request.Args = append([]string{"--keep-going"}, request.Args...)
	}
	var err error
	u.results, err = u.buildOne(ctx, request)
	return err
}

// end tells how it went.
func (u *unit) end(outer context.Context, err error) {
	o := Output{Installable: u.installable, Outcome: string(event.Done), Seconds: time.Since(u.began).Seconds(), Results: u.results}
	var failed *nix.BuildError
	switch {
	case errors.As(err, &failed):
		o.Outcome, o.Message = string(event.Failed), failed.Message
	case errors.Is(err, context.Canceled) && outer.Err() == nil:
		o.Outcome, o.Message = string(event.Skipped), "was not built: another failed"
	case err != nil:
		o.Outcome, o.Message = string(event.Failed), err.Error()
	case u.skipped != "":
		o.Outcome, o.Message = string(event.Skipped), u.skipped
	}
	if o.Results == nil {
		o.Results = []string{} // [] in JSON, not null
	}
	u.console.Observe(event.InstallableEnded{
		Installable: o.Installable, Outcome: event.Outcome(o.Outcome), Took: time.Since(u.began), Results: o.Results, Text: o.Message,
	})
	u.output, u.failure = o, err
}

// link makes the symlinks that keep the results from being collected.
func (r *run) link(ctx context.Context, results []string) error {
	if len(results) == 0 {
		return nil
	}
	if r.OutLink != "" && r.eachByItself() {
		if err := r.nix.Link(ctx, r.OutLink, results); err != nil {
			return err
		}
	}
	if r.GCRoot == "" {
		return nil
	}
	if err := os.MkdirAll(r.GCRoot, 0o755); err != nil {
		return fmt.Errorf("making the directory of roots: %w", err)
	}
	for _, p := range results {
		// With its hash: a name may stand for several results.
		if err := r.nix.Link(ctx, filepath.Join(r.GCRoot, filepath.Base(p)), []string{p}); err != nil {
			return err
		}
	}
	return nil
}
