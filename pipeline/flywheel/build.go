package flywheel

import (
	"context"
	"errors"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

// build runs nix, whose output goes through as it comes.
func (r *run) build(ctx context.Context, report *Report) error {
	began := time.Now()
	if err := ctx.Err(); err != nil {
		return err
	}
	results, err := r.nix.Build(ctx, nix.Request{
		Installables: r.Installables, File: r.File, OutLink: r.OutLink, Args: r.NixArgs,
	}, r.console)
	var failed *nix.BuildError
	switch {
	case err == nil:
		report.Outcome, report.Results = Built, results
		r.console.step("build", began, "%s", count(len(results), "result"))
	case errors.As(err, &failed):
		report.Message = failed.Message
		r.console.step("build", began, "failed: what was built before is pushed all the same")
	case ctx.Err() != nil:
		r.console.step("build", began, "interrupted: what was built before is pushed, for at most %v", r.DrainTime)
	default:
		report.Message = err.Error()
		r.console.step("build", began, "failed: %v", err)
	}
	return err
}

// summary prints what the run did.
func (r *run) summary(report *Report, began time.Time) {
	c := r.console
	c.step("summary", began, "%s: %d built, %d substituted, %d already there",
		report.Outcome, report.Built, report.Substituted, report.AlreadyThere)
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
}
