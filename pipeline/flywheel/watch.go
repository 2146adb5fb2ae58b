package flywheel

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/pusher"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/queue"
)

const (
	// saveEach is how often the queue is written where it changes.
	saveEach = 200 * time.Millisecond
	// retryEach is how often paths are tried again that failed while the cache
	// was there.
	retryEach = 30 * time.Second
	// askCache is how often caches are asked again of which none answers.
	askCache = 5 * time.Second
)

// WatchOptions say how Watch watches.
type WatchOptions struct {
	Options
	State string // directory of the queues
}

// Watch pushes what becomes valid in the store until ctx ends, and then, for at
// most DrainTime, what is left. What it does not get done is in its queue, from
// which the next one goes on, also after this one was killed. At the very first
// time it begins with what becomes valid from then on.
func Watch(ctx context.Context, o WatchOptions) (*Report, error) {
	began := time.Now()
	r := newRunOf(o.Options)
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	defer r.close()
	q, err := r.openQueue(ctx, o)
	if err != nil {
		return nil, err
	}
	r.queue = q
	pushing, cancel := lingering(ctx, o.DrainTime)
	defer cancel()
	err = r.watchWith(ctx, pushing)
	report := &Report{Schema: 1, Missing: q.Unfinished()}
	if e := q.Close(); e != nil {
		err = errors.Join(err, e)
	}
	if err != nil {
		return nil, err
	}
	r.account(context.WithoutCancel(ctx), report)
	report.Seconds = time.Since(began).Seconds()
	r.pushSummary(report)
	return report, nil
}

// openQueue opens the queue and sees that it is of this database.
func (r *run) openQueue(ctx context.Context, o WatchOptions) (*queue.Queue, error) {
	began := r.console.begin("queue")
	store := r.store.Dir
	if err := r.openDatabase(ctx); err != nil {
		r.console.note("%v: the store's locks are watched, and what comes while no watcher runs is not seen", err)
	} else {
		store = r.db.Dir()
	}
	q, err := queue.Open(o.State, store, strings.TrimSuffix(o.Caches[0], "/"))
	if err != nil {
		return nil, err
	}
	if r.db == nil {
		r.console.step("queue", began, "%s unfinished", count(len(q.Unfinished()), "path"))
		return q, nil
	}
	last, err := r.db.Sequence(ctx)
	if err != nil {
		return nil, errors.Join(err, q.Close())
	}
	switch {
	case q.Fresh:
		q.Reset(last)
		r.console.step("queue", began, "new: it begins with what becomes valid from now on")
	case q.Cursor() > last:
		// The store was made anew, and all that is in it is new.
		q.Reset(0)
		r.console.step("queue", began, "of another store that was here: it begins with all that is valid")
	default:
		r.console.step("queue", began, "it goes on: %s unfinished, %d ids to look through",
			count(len(q.Unfinished()), "path"), last-q.Cursor())
	}
	q.Keep(true) // also what a command left
	r.cursor = q.Cursor()
	if err := q.Save(); err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return q, nil
}

// awaitCache asks the caches until one takes pushes.
func (r *run) awaitCache(ctx context.Context) error {
	for first := true; r.target == nil; first = false {
		sources := r.probe(ctx, r.Caches)
		for i := range sources {
			s := &sources[i]
			switch {
			case s.err != nil && first:
				r.fault("cache %s: %v", s.url, s.err)
				r.console.note("cache %s: %v; it is asked again every %v", s.url, s.err, askCache)
			case s.err == nil && (s.Target == nil || (s.StoreDir != "" && s.StoreDir != r.store.Dir)):
				r.choose(s)
				return fmt.Errorf("cache %s cannot be pushed to from this store: %w", s.url, errors.Join(s.ReadOnly, errNoTarget))
			case s.err == nil:
				r.choose(s)
			}
		}
		if r.target != nil {
			break
		}
		select {
		case <-time.After(askCache):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

var errNoTarget = errors.New("name another with --cache")

// watchWith watches until ctx ends, and pushes until pushing does.
func (r *run) watchWith(ctx, pushing context.Context) error {
	began := r.console.begin("watch")
	if err := r.awaitCache(ctx); err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // nothing is lost: the queue is as it was
		}
		return err
	}
	if err := r.useToken([]string{r.target.URL()}); err != nil {
		r.fault("%v", err)
	}
	stopPushing := r.startPushing(pushing)
	stopKeeping := r.remember(pushing, r.queue)
	// These two take a moment, and no time from pushing: what they find is in the queue
	// also where there is none left.
	whole := context.WithoutCancel(ctx)
	if err := r.requeue(whole); err != nil {
		stopKeeping()
		stopPushing()
		return err
	}
	source, closeSource, err := r.source(r.queue.Cursor(), func(p nix.PathInfo) { r.saw(ctx, p) })
	if err != nil {
		stopKeeping()
		stopPushing()
		return err
	}
	r.console.step("watch", began, "each path goes to %s as soon as it is valid", r.target.URL())
	err = source.Run(ctx)
	if err == nil {
		err = source.Sweep(whole)
	}
	r.pusher.Retry() // what failed a moment ago waits for the next look after it
	r.drain(pushing)
	stopPushing()
	stopKeeping()
	return errors.Join(err, closeSource())
}

// remember keeps the queue, and looks after what failed, until the function that it
// returns is called. It comes behind startPushing.
func (r *run) remember(ctx context.Context, q *queue.Queue) (stop func()) {
	keeping, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.keep(keeping, q)
	}()
	return func() {
		cancel()
		<-done
	}
}

// finished takes out of the queue what the cache holds now.
func (r *run) finished(e event.Event) {
	var path string
	switch e := e.(type) {
	case event.PathHeld:
		path = e.Path
	case event.PathPushed:
		if e.Err == nil {
			path = e.Path
		}
	}
	if path != "" && r.queue != nil {
		r.queue.Done(path)
	}
}

// requeue queues what the last watcher left. What is not valid any more was
// deleted.
func (r *run) requeue(ctx context.Context) error {
	q := r.queue
	paths := q.Unfinished()
	infos, err := r.pathInfos(ctx, paths)
	if err != nil {
		return err
	}
	valid := map[string]bool{}
	for _, p := range infos {
		valid[p.Path] = true
		r.pusher.Add(p)
	}
	for _, p := range paths {
		if !valid[p] {
			q.Done(p)
		}
	}
	return nil
}

// pathInfos returns those of the paths that are valid.
func (r *run) pathInfos(ctx context.Context, paths []string) ([]nix.PathInfo, error) {
	if r.db != nil {
		return r.db.Paths(ctx, paths)
	}
	return r.nix.Paths(ctx, paths)
}

// keep saves the queue, and looks after what failed, until ctx ends.
func (r *run) keep(ctx context.Context, q *queue.Queue) {
	save, retry := time.NewTicker(saveEach), time.NewTicker(retryEach)
	defer save.Stop()
	defer retry.Stop()
	told := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-save.C:
			if err := q.Save(); err != nil && !told {
				told = true
				r.console.note("%v: a watcher that is killed would begin where it was saved last", err)
			}
		case <-retry.C:
			r.lookAfter(ctx, q, r.pusher)
		}
	}
}

// lookAfter tries again what failed, gives up what was deleted meanwhile, and
// forgets what is done.
func (r *run) lookAfter(ctx context.Context, q *queue.Queue, p *pusher.Pusher) {
	p.Forget()
	failed := p.Failed()
	if len(failed) == 0 {
		return
	}
	infos, err := r.pathInfos(ctx, failed)
	if err != nil {
		return // the next time
	}
	valid := map[string]bool{}
	for _, i := range infos {
		valid[i.Path] = true
	}
	var gone []string
	for _, path := range failed {
		if !valid[path] {
			gone = append(gone, path)
			q.Done(path)
		}
	}
	p.Drop(gone)
	p.Retry()
}
