// Package pusher sends store paths to a cache in the background, while a build
// goes on that must not notice.
//
// A path is committed after those of its references that are on their way, so
// that the cache does not hold a path before what it refers to. A cache that
// fails again and again is left alone and asked now and then whether it is
// back; what could not be sent meanwhile is sent then.
package pusher

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

const (
	// DefaultJobs is how many paths are sent at a time.
	DefaultJobs = 4
	// askAtOnce is how many paths one question to the cache is about.
	askAtOnce = 1000
	// tooMany failures in a row mean that the cache is away.
	tooMany = 3
	// askAgain is how often a cache that is away is asked whether it is back.
	askAgain = 5 * time.Second
)

// Config says how a Pusher pushes.
type Config struct {
	Jobs     int            // paths sent at a time; DefaultJobs when 0
	Observer event.Observer // nil for none
	// BuildTime returns what building a path took, or 0; nil where nobody knows.
	BuildTime func(nix.PathInfo) time.Duration
}

// Pusher pushes to one cache. Its methods may be called from any goroutine.
type Pusher struct {
	target    Target
	store     nix.Store
	jobs      int
	observer  event.Observer
	buildTime func(nix.PathInfo) time.Duration

	mu      sync.Mutex
	changed *sync.Cond // broadcast whenever a field below changes
	items   map[string]*item
	order   []*item // all items, as they were added
	waiting []*item
	busy    int // items taken from waiting and not settled
	turns   int // tries begun
	closed  bool
	closing chan struct{} // closed with Close
	// away is why the cache is left alone, or nil.
	away     error
	inARow   int // failures
	faults   faults
	progress Progress
}

// Progress counts paths and bytes.
type Progress struct {
	Queued      int   // waiting or on their way
	Pushed      int   // sent and acknowledged
	PushedBytes int64 // of their NARs
	Held        int   // the cache had them already
}

type item struct {
	nix.PathInfo
	state state
	turn  int           // of the try that runs: tries are begun in this order
	done  chan struct{} // of the try that runs; closed when it has ended
}

type state int

const (
	waiting state = iota
	running
	held
	failed
)

// New makes a pusher; Run does its work.
func New(target Target, store nix.Store, c Config) *Pusher {
	p := &Pusher{
		target: target, store: store, jobs: c.Jobs, observer: c.Observer, buildTime: c.BuildTime,
		items: map[string]*item{}, closing: make(chan struct{}),
	}
	if p.jobs == 0 {
		p.jobs = DefaultJobs
	}
	if p.observer == nil {
		p.observer = event.Discard
	}
	p.changed = sync.NewCond(&p.mu)
	return p
}

// Add queues a path, references before what refers to them. A path that was
// added before is queued again only if sending it failed.
func (p *Pusher) Add(info nix.PathInfo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	it, ok := p.items[info.Path]
	switch {
	case !ok:
		it = &item{PathInfo: info}
		p.items[info.Path] = it
		p.order = append(p.order, it)
	case it.state != failed:
		return
	}
	p.queue(it)
}

func (p *Pusher) queue(it *item) {
	it.state = waiting
	p.waiting = append(p.waiting, it)
	p.changed.Broadcast()
}

// wakeAll takes the lock: a goroutine between its look at a context and its wait
// would otherwise sleep on.
func (p *Pusher) wakeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed.Broadcast()
}

// Run pushes until Close was called and the queue is empty, or until ctx is
// done.
func (p *Pusher) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, p.wakeAll)
	defer stop()
	work := make(chan *item)
	var g errgroup.Group
	g.Go(func() error {
		defer close(work)
		p.dispatch(ctx, work)
		return nil
	})
	for range p.jobs {
		g.Go(func() error {
			for it := range work {
				// Others may have failed while it waited for a hand.
				if err := p.leftAlone(); err != nil {
					p.settle(ctx, it, false, err)
					continue
				}
				err := p.push(ctx, it)
				p.settle(ctx, it, true, err)
			}
			return nil
		})
	}
	g.Go(func() error {
		p.lookAfter(ctx)
		return nil
	})
	_ = g.Wait() // none returns an error: a fault of the cache is no end
}

// dispatch asks the cache about what waits, and hands out what it lacks.
func (p *Pusher) dispatch(ctx context.Context, work chan<- *item) {
	for {
		batch := p.take(ctx)
		if batch == nil {
			return
		}
		hashes := make([]string, len(batch))
		for i, it := range batch {
			hashes[i] = hashOf(it.Path)
		}
		missing, err := p.target.MissingPaths(ctx, hashes)
		if err != nil {
			for _, it := range batch {
				p.settle(ctx, it, false, err)
			}
			p.failure(ctx, err)
			continue
		}
		lacks := make(map[string]bool, len(missing))
		for _, h := range missing {
			lacks[h] = true
		}
		for i, it := range batch {
			if !lacks[hashes[i]] {
				p.settle(ctx, it, false, nil)
				continue
			}
			select {
			case work <- it:
			case <-ctx.Done():
				p.settle(ctx, it, false, ctx.Err())
			}
		}
	}
}

// leftAlone returns why the cache is away, or nil.
func (p *Pusher) leftAlone() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.away
}

// take waits for paths that can be asked about; nil means that Run is over.
func (p *Pusher) take(ctx context.Context) []*item {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.waiting) == 0 || p.away != nil {
		if p.closed && p.away != nil {
			p.giveUp() // nobody asks any more whether it is back
		}
		if ctx.Err() != nil || (p.closed && len(p.waiting) == 0) {
			return nil
		}
		p.changed.Wait()
	}
	if ctx.Err() != nil {
		return nil
	}
	n := min(askAtOnce, len(p.waiting))
	batch := slices.Clone(p.waiting[:n])
	p.waiting = p.waiting[n:]
	for _, it := range batch {
		p.turns++
		it.state, it.turn, it.done = running, p.turns, make(chan struct{})
	}
	p.busy += n
	return batch
}

// settle ends a try. sent says that the path was not merely asked about.
func (p *Pusher) settle(ctx context.Context, it *item, sent bool, err error) {
	if sent && err != nil {
		p.failure(ctx, err)
	}
	if !sent && err == nil {
		p.observer.Observe(event.PathHeld{Path: it.Path})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	switch {
	case err != nil:
		it.state = failed
	case sent:
		it.state = held
		p.inARow = 0
		p.progress.Pushed++
		p.progress.PushedBytes += it.NarSize
	default:
		it.state = held
		p.progress.Held++
	}
	close(it.done)
	p.changed.Broadcast()
}

// failure counts one against the cache. One that is our own doing, because the
// run is over, does not count.
func (p *Pusher) failure(ctx context.Context, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() == nil {
		p.faults.add(err)
	}
	p.inARow++
	// A slow answer costs more time than any other failure: once is enough.
	if p.away == nil && (p.inARow >= tooMany || errors.Is(err, push.ErrTooSlow)) {
		p.away = err
		p.changed.Broadcast()
	}
}

// lookAfter asks a cache that is away whether it is back, until Close.
func (p *Pusher) lookAfter(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	for p.untilAway(ctx) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(askAgain):
			p.ask(ctx)
		}
	}
}

func (p *Pusher) untilAway(ctx context.Context) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case ctx.Err() != nil, p.closed:
			return false
		case p.away != nil:
			return true
		}
		p.changed.Wait()
	}
}

// ask looks whether the cache is back and queues again what could not be sent,
// in the order in which it was added: what waits may refer to what failed.
func (p *Pusher) ask(ctx context.Context) {
	if err := p.target.Probe(ctx); err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// What still runs could refer to what is queued again.
	for p.away != nil && p.busy > 0 && !p.closed && ctx.Err() == nil {
		p.changed.Wait()
	}
	if p.away == nil || p.closed || ctx.Err() != nil {
		return // somebody else asked before, or it is too late: Run may be over
	}
	p.away, p.inARow, p.waiting = nil, 0, nil
	for _, it := range p.order {
		if it.state == failed || it.state == waiting {
			p.queue(it)
		}
	}
	p.changed.Broadcast()
}

// giveUp ends the waiting of all that waits.
func (p *Pusher) giveUp() {
	for _, it := range p.waiting {
		it.state = failed
	}
	p.waiting = nil
	p.changed.Broadcast()
}

// Drain waits until everything that was added is settled. A cache that is away
// is asked once more; what it does not take is given up. It returns early when
// ctx is done.
func (p *Pusher) Drain(ctx context.Context) {
	stop := context.AfterFunc(ctx, p.wakeAll)
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := false
	for ctx.Err() == nil && (len(p.waiting) > 0 || p.busy > 0) {
		switch {
		case p.away == nil || p.busy > 0:
			p.changed.Wait()
		case !asked:
			asked = true
			p.mu.Unlock()
			p.ask(ctx)
			p.mu.Lock()
		default:
			p.giveUp()
		}
	}
}

// Revive lets a cache that is away be tried again at once, if it answers.
func (p *Pusher) Revive(ctx context.Context) {
	if p.leftAlone() != nil {
		p.ask(ctx)
	}
}

// Close lets Run end once the queue is empty, or the cache is away.
func (p *Pusher) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		close(p.closing)
	}
	if p.away != nil {
		p.giveUp()
	}
	p.changed.Broadcast()
}

// Progress returns the counts so far.
func (p *Pusher) Progress() Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.progress
	n.Queued = len(p.waiting) + p.busy
	return n
}

// Missing returns the paths that were added and that the cache is not known to
// hold.
func (p *Pusher) Missing() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var missing []string
	for _, it := range p.order {
		if it.state != held {
			missing = append(missing, it.Path)
		}
	}
	slices.Sort(missing)
	return missing
}

// Faults returns what went wrong between here and the cache, a line for each
// kind.
func (p *Pusher) Faults() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults.lines()
}
