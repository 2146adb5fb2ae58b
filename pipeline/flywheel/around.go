package flywheel

import (
	"context"
	"errors"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/queue"
)

// AroundOptions say how Around watches.
type AroundOptions struct {
	Options
	// State is the directory of the queues, or empty for none. The server in this
	// process has none either: nobody could go on with it.
	State string
}

// Around watches the store while something else runs, which is given the
// variables by which its own nix pulls from the caches and trusts them. What it
// returns is no error of Around: the caller keeps it. When it has ended, what
// became valid meanwhile is pushed, for as long as ctx lasts and DrainTime after
// that.
//
// What does not get to the cache, also since this process was killed, is in the
// queue, with which the next Around or Watch goes on.
func Around(ctx context.Context, o AroundOptions, something func(env []string)) (*Report, error) {
	began := time.Now()
	r := newRunOf(o.Options)
	if err := r.prepare(ctx); err != nil {
		something(nil)
		return nil, err
	}
	defer r.close()
	r.substituters(ctx, r.startCache(ctx))
	pushing, cancel := lingering(ctx, o.DrainTime)
	defer cancel()
	stopPushing := r.startPushing(pushing)
	stopKeeping := func() {}
	stopWatching := r.watch(pushing, func() *queue.Queue {
		q := r.queueAround(ctx, o.State)
		if q != nil {
			stopKeeping = r.remember(pushing, q)
		}
		return q
	})
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
	stopKeeping()
	if err := r.closeQueueAround(); err != nil {
		r.fault("%v", err)
	}
	r.account(context.WithoutCancel(ctx), report)
	report.Seconds = time.Since(began).Seconds()
	r.summary(report, began)
	return report, nil
}

// queueAround opens the queue that remembers what a killed run leaves, or returns
// nil where there is none: the command runs all the same.
func (r *run) queueAround(ctx context.Context, state string) *queue.Queue {
	if state == "" || r.embedded != nil || r.target == nil {
		return nil
	}
	store := r.store.Dir
	if r.db != nil {
		store = r.db.Dir()
	}
	q, err := queue.Open(state, store, r.target.URL())
	if errors.Is(err, queue.ErrLocked) {
		return nil // who has it pushes the same paths
	}
	if err != nil {
		r.console.note("%v: what is not pushed if this process is killed is not remembered", err)
		return nil
	}
	if q.Fresh {
		q.Keep(false)
	}
	if left := len(q.Unfinished()); left > 0 {
		r.console.note("an earlier run left %s unpushed: they follow now", count(left, "path"))
	}
	if r.db != nil {
		last, err := r.db.Sequence(ctx)
		switch {
		case err != nil:
			r.fault("%v", err)
		case q.Fresh:
			q.Reset(last)
		case q.Cursor() > last:
			q.Reset(0) // it is of another store that was here
		}
	}
	return q
}

// closeQueueAround leaves a queue only where a watcher made it, or where something is
// left: what becomes valid between two commands is nobody's to push.
func (r *run) closeQueueAround() error {
	if r.queue == nil {
		return nil
	}
	if r.queue.Temporary() && len(r.queue.Unfinished()) == 0 {
		return r.queue.Remove()
	}
	return r.queue.Close()
}
