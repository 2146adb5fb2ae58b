package flywheel

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

// build runs nix, whose output goes through as it comes.
func (r *run) build(ctx context.Context, report *Report) error {
	began := r.console.begin("build")
	if err := ctx.Err(); err != nil {
		return err
	}
	var results []string
	var err error
	if r.eachByItself() {
		results, err = r.buildEach(ctx, report)
	} else {
		results, err = r.buildOne(ctx, nix.Request{
			Installables: r.Installables, File: r.File, OutLink: r.OutLink, Args: r.NixArgs, FlakeCheck: r.FlakeCheck,
			Observer: r.console, Made: r.made(ctx),
		})
	}
	var failed *nix.BuildError
	switch {
	case err == nil:
		report.Outcome, report.Results = Built, results
		r.console.step("build", began, "%s", count(len(results), "result"))
	case errors.As(err, &failed):
		report.Message, report.Results = failed.Message, results
		r.console.fail("build", began, "failed: what was built before is pushed all the same")
	case ctx.Err() != nil:
		r.console.fail("build", began, "interrupted: what was built before is pushed, for at most %v", r.DrainTime)
	default:
		report.Message = err.Error()
		r.console.fail("build", began, "failed: %v", err)
	}
	return err
}

// made tells nix's reader which builds have ended; nil where the database cannot
// be read.
func (r *run) made(ctx context.Context) func(derivation string) bool {
	if r.db == nil {
		return nil
	}
	return func(derivation string) bool {
		made, err := r.db.Made(ctx, derivation)
		return err == nil && made // else it is told when nix tells it
	}
}

// summary prints what the run did.
func (r *run) summary(report *Report, began time.Time) {
	outcome := ""
	if report.Outcome != "" {
		outcome = report.Outcome + ": "
	}
	r.console.step("summary", began, "%s%d built, %d substituted, %d already there",
		outcome, report.Built, report.Substituted, report.AlreadyThere)
	if report.TimeSaved >= 1 {
		longest := report.Saved[0]
		r.console.note("time saved: %s, what building the substituted paths took last time (%s: %s)",
			duration(report.TimeSaved), path.Base(longest.Path), duration(longest.Seconds))
	}
	r.pushSummary(report)
}

// pushSummary prints what was pushed, what was not, and why.
func (r *run) pushSummary(report *Report) {
	c := r.console
	c.note("pushed %s of %s, %s sent", count(report.Pushed.Paths, "path"), size(report.Pushed.NarBytes), size(report.Pushed.SentBytes))
	if n := len(report.Missing); n > 0 {
		c.note("%s missing in the cache:", count(n, "path"))
		const shown = 10
		for i, p := range report.Missing {
			if i == shown {
				c.note("  … and %d more", n-shown)
				break
			}
			c.note("  %s", p)
		}
	}
	for _, e := range report.CacheErrors {
		c.note("cache fault: %s", e)
	}
	if len(report.Missing) > 0 {
		c.note("to do: %s", r.advice(report))
	}
}

// advice is what to do about paths that are missing in the cache.
func (r *run) advice(report *Report) string {
	switch {
	case len(r.Caches) > 0:
	case len(report.CacheErrors) == 0: // it was interrupted
		return "the next run pushes what is missing"
	default:
		return "mend what the fault names, or give another directory with --data, or a cache with --cache; the next run pushes what is missing"
	}
	cache := strings.TrimSuffix(r.Caches[0], "/")
	switch {
	case r.target != nil:
		cache = r.target.URL()
	case len(r.readOnly) > 0:
		return "name a cache that takes pushes, or see why this one does not"
	}
	if _, err := push.NewClient(cache); err != nil { // a store that only nix copy knows
		return fmt.Sprintf("`nix copy --to '%s' PATH` shows what is wrong there; once that is mended, the next run pushes what is missing", cache)
	}
	return fmt.Sprintf("`flywheel doctor %s` finds what is wrong there; once that is mended, the next run pushes what is missing", cache)
}
