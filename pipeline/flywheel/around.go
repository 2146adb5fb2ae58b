package flywheel

import (
	"context"
	"time"
)

// Around watches the store while something else runs, which is given the
// variables by which its own nix pulls from the caches and trusts them. What it
// returns is no error of Around: the caller keeps it. When it has ended, what
// became valid meanwhile is pushed, for as long as ctx lasts and DrainTime after
// that.
func Around(ctx context.Context, o Options, something func(env []string)) (*Report, error) {
	began := time.Now()
	r := newRunOf(o)
	if err := r.prepare(ctx); err != nil {
		something(nil)
		return nil, err
	}
	defer r.close()
	r.substituters(ctx, r.startCache(ctx))
	pushing, cancel := lingering(ctx, o.DrainTime)
	defer cancel()
	stopPushing := r.startPushing(pushing)
	stopWatching := r.watch(pushing)
	something(r.nix.Environ())
	stopWatching()
	r.drain(pushing)
	report := &Report{Schema: 1}
	if r.db != nil {
		r.closurePush(pushing, report)
	} else if r.pusher != nil {
		report.Missing = r.pusher.Missing()
	}
	stopPushing()
	r.account(context.WithoutCancel(ctx), report)
	report.Seconds = time.Since(began).Seconds()
	r.summary(report, began)
	return report, nil
}
