package flywheel

import (
	"context"
	"fmt"
	"time"
)

// Push sends store paths with all that they refer to, without a build. Its
// report has no outcome; Missing is what the cache does not hold afterwards.
func Push(ctx context.Context, o Options, paths []string) (*Report, error) {
	began := time.Now()
	r := &run{Options: o, console: &console{out: o.Out}}
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	defer r.close()
	r.substituters(ctx, r.startCache(ctx))
	report := &Report{Schema: 1, Results: paths}
	pushing, cancel := lingering(ctx, o.DrainTime)
	defer cancel()
	if err := r.openDatabase(ctx); err != nil {
		r.console.note("Nix is asked for the closure: %v", err)
	}
	stopPushing := r.startPushing(pushing)
	if err := r.known(ctx, paths); err != nil {
		stopPushing()
		return nil, err
	}
	r.closurePush(pushing, report)
	stopPushing()
	r.account(context.WithoutCancel(ctx), report)
	report.Seconds = time.Since(began).Seconds()
	r.pushSummary(report)
	return report, ctx.Err()
}

// known returns an error for a path that is not valid in this store.
func (r *run) known(ctx context.Context, paths []string) error {
	if r.db == nil {
		return nil // nix says so itself
	}
	for _, p := range paths {
		infos, err := r.db.Closure(ctx, []string{p})
		if err != nil {
			return err
		}
		if len(infos) == 0 {
			return fmt.Errorf("%s is not a valid path of the store %s", p, r.store.Dir)
		}
	}
	return nil
}
