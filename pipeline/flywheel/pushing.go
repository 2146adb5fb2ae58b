package flywheel

import (
	"context"
	"errors"
	"slices"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/pusher"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/queue"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/watch"
)

// heartbeat is how often a step that takes long says how far it is.
const heartbeat = 10 * time.Second

// lingering returns a context that ends some time after ctx does.
func lingering(ctx context.Context, after time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(after):
			cancel()
		case <-longer.Done():
		}
	})
	return longer, func() {
		stop()
		cancel()
	}
}

// startPushing lets paths be added to the pusher. The function that it returns
// ends that and is to be called once.
func (r *run) startPushing(ctx context.Context) (stop func()) {
	if r.target == nil {
		return func() {}
	}
	jobs := r.Jobs
	if jobs == 0 {
		jobs = r.target.Jobs()
	}
	r.pusher = pusher.New(r.target, r.store, pusher.Config{Jobs: jobs, Observer: event.Tee(r.console, event.Func(r.finished)), BuildTime: r.builds.timeIn(r.store)})
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.pusher.Run(ctx)
	}()
	return func() {
		r.pusher.Close()
		<-done
	}
}

// openDatabase opens Nix's database, where it can be read, and notes how far it
// is.
func (r *run) openDatabase(ctx context.Context) error {
	db, err := nix.OpenDatabase(ctx, r.store)
	if err != nil {
		return err
	}
	if r.cursor, err = db.Cursor(ctx); err != nil {
		return errors.Join(err, db.Close())
	}
	r.db = db
	return nil
}

// watch begins to push what becomes valid. open returns the queue that remembers
// it, or nil; it may be nil itself. The function that watch returns ends the
// watching and is to be called once.
func (r *run) watch(ctx context.Context, open func() *queue.Queue) (stop func()) {
	began := r.console.begin("watch")
	unreadable := r.openDatabase(ctx)
	switch {
	case r.pusher == nil:
		r.console.skip("watch", began, "off: there is no cache to push to")
		return func() {}
	case r.NoWatch:
		r.console.skip("watch", began, "off, as asked: results are pushed at the end")
		return func() {}
	}
	cursor := r.cursor
	if open != nil {
		r.queue = open()
	}
	if r.queue != nil {
		cursor = r.queue.Cursor()
		if err := r.requeue(ctx); err != nil {
			r.fault("%v", err)
		}
	}
	source, closeSource, err := r.source(cursor, func(p nix.PathInfo) { r.saw(ctx, p) })
	if err != nil {
		r.console.skip("watch", began, "off, results are pushed at the end: %v", err)
		return func() {}
	}
	watching, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- source.Run(watching) }()
	r.console.step("watch", began, "each path is pushed as soon as it is valid")
	if unreadable != nil {
		r.console.note("by the store's locks: %v", unreadable)
	}
	return func() {
		cancel()
		err := <-ended
		if err == nil {
			err = source.Sweep(ctx)
		}
		if err = errors.Join(err, closeSource()); err != nil && ctx.Err() == nil {
			r.fault("%v", err)
		}
	}
}

// saw is told of each path that became valid.
func (r *run) saw(ctx context.Context, p nix.PathInfo) {
	wanted := r.wanted(p) && len(r.upstream.held(ctx, []nix.PathInfo{p})) == 0
	if r.queue != nil {
		r.queue.Saw(p.ID, p.Path, wanted)
	}
	if wanted {
		r.pusher.Add(p)
	}
}

// pathSource tells of paths as they become valid.
type pathSource interface {
	Run(context.Context) error
	Sweep(context.Context) error
}

// source is a cursor on Nix's database, or, where that cannot be read, an ear on
// the store's locks. The function that it returns is to be called once.
func (r *run) source(cursor int64, emit func(nix.PathInfo)) (pathSource, func() error, error) {
	if r.db != nil {
		return watch.New(r.db, cursor, emit), func() error { return nil }, nil
	}
	locks, err := watch.NewLocks(r.store, r.nix.Paths, emit)
	if err != nil {
		return nil, nil, err
	}
	return locks, locks.Close, nil
}

// wanted says whether a path that became valid is worth a push by itself.
// Derivations and sources are not: whoever evaluates has them.
func (r *run) wanted(p nix.PathInfo) bool {
	return !p.Derivation() && !p.Source() && r.reason(p) == ""
}

// drain waits for what was pushed while the build ran.
func (r *run) drain(ctx context.Context) {
	if r.pusher == nil {
		return
	}
	began := r.console.begin("drain")
	left := r.pusher.Progress().Queued
	r.await(ctx, "drain")
	p := r.pusher.Progress()
	r.console.step("drain", began, "%s left to push; %s pushed, %s already in the cache",
		count(left, "path"), count(p.Pushed, "path"), count(p.Held, "path"))
}

// await drains the pusher, and says how far it is when that takes long.
func (r *run) await(ctx context.Context, step string) {
	began := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.pusher.Drain(ctx)
	}()
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			p := r.pusher.Progress()
			r.console.goesOn(step, began, "%s to go, %s sent so far", count(p.Queued, "path"), size(r.target.SentBytes()))
		}
	}
}

// closurePush is the barrier: what the results refer to is in the cache after
// it, or named as missing. Of a failed build, it is all that became valid.
func (r *run) closurePush(ctx context.Context, report *Report) {
	closure, err := r.closure(ctx, report.Results)
	if err != nil {
		r.fault("the closure push does not know what to push: %v", err)
	}
	r.sendAll(ctx, closure, report)
}

// sendAll sends what is selected of paths, and waits until the cache holds it or
// is known not to.
func (r *run) sendAll(ctx context.Context, infos []nix.PathInfo, report *Report) {
	const step = "closure push"
	began := r.console.begin(step)
	infos, left := r.selected(ctx, infos)
	report.Missing = nil
	if r.pusher == nil {
		for _, p := range infos {
			report.Missing = append(report.Missing, p.Path)
		}
		slices.Sort(report.Missing)
		return
	}
	r.pusher.Revive(ctx)
	for _, p := range infos {
		r.pusher.Add(p)
	}
	r.await(ctx, step)
	report.Missing = r.pusher.Missing()
	switch paths, n := count(len(infos), "path"), len(report.Missing); {
	case n > 0:
		r.console.fail(step, began, "%s, %d of them missing in the cache", paths, n)
	case len(infos) == 0:
		r.console.step(step, began, "nothing to push")
	default:
		r.console.step(step, began, "%s, all in the cache", paths)
	}
	if text := leftOut(left); text != "" {
		r.console.note("left out: %s", text)
	}
}

// closure returns what is to be in the cache after the build, references first.
func (r *run) closure(ctx context.Context, results []string) ([]nix.PathInfo, error) {
	if r.db == nil {
		return r.nix.Closure(ctx, results)
	}
	infos, err := r.db.Closure(ctx, results)
	if err != nil || len(results) > 0 {
		return infos, err
	}
	infos, err = r.db.Since(ctx, r.cursor)
	return slices.DeleteFunc(infos, func(p nix.PathInfo) bool { return !r.wanted(p) }), err
}

// account fills in what the report says of the build and the pushes.
func (r *run) account(ctx context.Context, report *Report) {
	report.CacheErrors = r.faults
	if r.pusher != nil {
		report.Cache = r.target.URL()
		p := r.pusher.Progress()
		report.Pushed = Pushed{Paths: p.Pushed, NarBytes: p.PushedBytes, SentBytes: r.target.SentBytes()}
		for _, f := range r.pusher.Faults() {
			report.CacheErrors = append(report.CacheErrors, "cache "+r.target.URL()+": "+f)
		}
	}
	if r.db == nil {
		return
	}
	fresh, err := r.db.Since(ctx, r.cursor)
	if err != nil {
		r.console.note("counting what was built: %v", err)
		return
	}
	r.saved(ctx, fresh, report)
	derivations := map[string]bool{}
	for _, p := range fresh {
		switch {
		case p.Ultimate:
			derivations[p.Deriver] = true
		case p.Substituted():
			report.Substituted++
		}
	}
	report.Built = len(derivations)
	closure, err := r.db.Closure(ctx, report.Results)
	if err != nil {
		r.console.note("counting what was there: %v", err)
		return
	}
	for _, p := range closure {
		if p.ID <= r.cursor {
			report.AlreadyThere++
		}
	}
}
