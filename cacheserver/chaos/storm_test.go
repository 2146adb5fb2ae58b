package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// What servers under a storm are told: small enough that all that collection
// does comes about within seconds.
const (
	grace     = 2 * time.Second
	retention = 4 * time.Second
	mostPins  = 5
)

// maxSizes are, by turns, less than even what is pinned and what is young take,
// and more.
var maxSizes = []string{"1MB", "16MB", "16MB", "64MB"}

var stormFlags = []string{"--grace", grace.String(), "--gc-interval", "150ms", "--verbose"}

// quietFlags are those of a server that changes nothing by itself.
var quietFlags = []string{"--grace", grace.String(), "--gc-interval", "0", "--verbose"}

// storm is a test with its storage.
type storm struct {
	*ledger
	t       *testing.T
	storage *storage
	rand    *rand.Rand // the test's own goroutine's
	// outage is true in rounds in which storage or database go away: servers may
	// refuse then.
	outage atomic.Bool
}

func newStorm(t *testing.T, s *storage) *storm {
	t.Helper()
	var seed [32]byte
	for i := range 8 {
		seed[i] = byte(rand.Uint32())
	}
	t.Logf("seed %x", seed[:8])
	st := &storm{ledger: newLedger(seed, grace), t: t, storage: s, rand: rand.New(rand.NewChaCha8(seed))}
	first := s.start(t, 0, quietFlags...)
	s.mustRun(t, "cache", "retention", "main", retention.String())
	first.stop(t)
	return st
}

// spawn gives a goroutine its own random numbers.
func (st *storm) spawn() *rand.Rand { return rand.New(rand.NewPCG(st.rand.Uint64(), st.rand.Uint64())) }

// alive returns one of the servers that nobody has begun to kill, or nil.
func alive(servers []*server, r *rand.Rand) *server {
	left := slices.DeleteFunc(slices.Clone(servers), func(v *server) bool { return v.dying.Load() })
	if len(left) == 0 {
		return nil
	}
	return left[r.IntN(len(left))]
}

// load pushes to the servers and reads from them until all are being killed, or
// ctx ends. What goes wrong is in the ledger once wait has returned.
func (st *storm) load(ctx context.Context, servers []*server) (wait func()) {
	var g errgroup.Group
	worker := func(n int, work func(*server, *rand.Rand)) {
		for range n {
			r := st.spawn()
			g.Go(func() error {
				for ctx.Err() == nil {
					v := alive(servers, r)
					if v == nil {
						break
					}
					work(v, r)
				}
				return nil
			})
		}
	}
	worker(4, func(v *server, r *rand.Rand) { st.pushClosure(ctx, v, st.pick(r), r) })
	worker(2, func(v *server, r *rand.Rand) {
		st.read(ctx, v, r)
		time.Sleep(2 * time.Millisecond) // the pushers are to have most of the machine
	})
	return func() { _ = g.Wait() }
}

// pushClosure pushes a path and all that it refers to, as far as the cache lacks
// it, and mostly what is referred to first.
func (st *storm) pushClosure(ctx context.Context, v *server, e *entry, r *rand.Rand) {
	closure := e.closure()
	if r.IntN(10) == 0 {
		slices.Reverse(closure)
	}
	var hashes []string
	for _, c := range closure {
		hashes = append(hashes, c.hash)
	}
	asked := time.Now()
	missing, err := v.push.MissingPaths(ctx, hashes)
	if err != nil {
		st.failed(ctx, v, asked, "asking for "+e.base, err)
		return
	}
	// What the server holds is promised to stay for half of the grace, and what
	// it takes for all of it.
	promised := map[string]time.Time{}
	for _, c := range closure {
		if !slices.Contains(missing, c.hash) {
			promised[c.hash] = asked.Add(st.grace / 2)
		}
	}
	for _, c := range closure {
		if _, held := promised[c.hash]; held {
			continue
		}
		absent, began, err := st.pushOne(ctx, v, c)
		if err != nil {
			return
		}
		promised[c.hash] = began.Add(st.grace)
		for _, base := range absent {
			if until := promised[storepath.Hash(base)]; time.Now().Before(until) {
				st.fault("%s was there, and was gone %v before it might go, when %s was committed", base, time.Until(until), c.base)
			}
		}
	}
}

// pushOne uploads and commits a path.
func (st *storm) pushOne(ctx context.Context, v *server, e *entry) (absent []string, began time.Time, err error) {
	began = time.Now()
	chunks, err := v.push.Upload(ctx, e.info.NarSize, chunker.DefaultAverage, func(w io.Writer) error {
		_, err := w.Write(e.nar())
		return err
	})
	if err != nil {
		st.failed(ctx, v, began, "uploading "+e.base, err)
		return nil, began, err
	}
	committing := st.begin(e)
	absent, err = v.push.Commit(ctx, e.info, chunks)
	st.end(e, committing, absent, err)
	if err != nil {
		st.failed(ctx, v, began, "committing "+e.base, err)
	}
	return absent, committing, err
}

// failed judges a push that failed, which it may while the server is killed, and
// when it took so long that its chunks may have been collected.
func (st *storm) failed(ctx context.Context, v *server, began time.Time, what string, err error) {
	if v.dying.Load() || ctx.Err() != nil || st.outage.Load() {
		return
	}
	var status *push.StatusError
	slow := errors.As(err, &status) && (status.Body.Code == push.CodeMissingChunks || status.Body.Code == push.CodeUnavailable)
	if slow && time.Since(began) > st.grace/2 {
		st.count(func(c *counts) { c.refused++ })
		return
	}
	st.fault("%s: %v", what, err)
}

// read gets a path that was acknowledged. A pinned one has to be there.
func (st *storm) read(ctx context.Context, v *server, r *rand.Rand) {
	e, pinned := st.sample(r)
	if e == nil {
		return
	}
	err := v.fetch(ctx, &e.item)
	st.count(func(c *counts) { c.reads++ })
	switch {
	case err == nil:
	case errors.Is(err, errCorrupt):
		st.count(func(c *counts) { c.corrupt++ })
		st.fault("reading %s: %v", e.base, err)
	case v.dying.Load() || ctx.Err() != nil || st.outage.Load():
	case pinned && !st.pinned(e): // not any more
	case pinned:
		st.fault("reading %s, which is pinned: %v", e.base, err)
	case errors.Is(err, errGone):
	default:
		// An answer that collection cuts off is no fault, an error of the server is.
		var status *statusError
		if errors.As(err, &status) {
			st.fault("reading %s: %v", e.base, err)
		}
	}
}

// pin pins a path that was acknowledged lately, or removes a pin where there are
// many. The command is killed when ctx ends.
func (st *storm) pin(ctx context.Context, name string, r *rand.Rand) {
	st.mu.Lock()
	for old, e := range st.pins {
		if len(st.pins) < mostPins {
			break
		}
		delete(st.pins, old) // before the command can have had its effect
		st.mu.Unlock()
		if o := st.storage.run(ctx, st.t, "pin", "remove", old, e.hash); o.exit == 0 {
			st.count(func(c *counts) { c.unpinned++ })
		}
		st.mu.Lock()
	}
	e := st.recentLocked(r, 30)
	if e == nil || st.pinnedLocked(e) {
		e = nil
	}
	st.mu.Unlock()
	if e == nil {
		return
	}
	o := st.storage.run(ctx, st.t, "pin", "add", name, e.hash)
	switch {
	case o.exit == 0:
		st.mu.Lock()
		st.pins[name] = e
		st.counts.pinned++
		st.mu.Unlock()
	case ctx.Err() != nil || st.outage.Load():
		st.count(func(c *counts) { c.commandKills++ })
	case !strings.Contains(o.stderr, "push it first"):
		st.fault("pinning %s: status %d, %s", e.base, o.exit, o.stderr)
	}
}

// check looks at all paths through a server that nothing disturbs, and judges
// what it sees. all says to look at what was gone before, too, and to read every
// NAR.
func (st *storm) check(v *server, killed time.Time, all bool) {
	t := st.t
	t.Helper()
	st.count(func(c *counts) { c.checks++ })
	st.mu.Lock()
	entries := slices.Clone(st.entries)
	var keep []*entry
	for _, e := range st.pins {
		keep = append(keep, e)
	}
	st.mu.Unlock()
	whole := map[*entry]bool{}
	for _, p := range keep {
		for _, e := range p.closure() {
			whole[e] = true
		}
	}
	served := make([]bool, len(entries))
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(8)
	for i, e := range entries {
		if !all && e.count == e.servedCount && !e.served {
			continue
		}
		read := all || whole[e] || e.count != e.servedCount || st.rand.IntN(8) == 0
		g.Go(func() error {
			n, err := v.fetchInfo(ctx, &e.item)
			if errors.Is(err, errGone) {
				return nil
			}
			served[i] = err == nil
			if err == nil && read {
				err = v.fetchNAR(ctx, n)
			}
			if err != nil {
				st.count(func(c *counts) { c.corrupt++ })
				st.fault("%s, with nothing going on: %v", e.base, err)
			}
			return nil
		})
	}
	must(t, g.Wait())
	there := map[*entry]bool{}
	for i, e := range entries {
		if served[i] {
			there[e] = true
		}
	}
	st.judge(there, killed)
}

// report prints faults, and ends the test if there are any.
func (st *storm) report(where string, servers ...*server) {
	st.t.Helper()
	for _, v := range servers {
		if err := v.check(); err != nil {
			st.fault("%v", err)
		}
		if trouble := v.trouble(); len(trouble) > 0 && !st.outage.Load() {
			st.fault("server %d has trouble: %s", v.number, strings.Join(trouble, "\n"))
		}
	}
	faults := st.takeFaults()
	if len(faults) == 0 {
		return
	}
	const most = 10
	for _, f := range faults[:min(most, len(faults))] {
		st.t.Errorf("%s: %s", where, f)
	}
	for _, v := range servers {
		st.t.Logf("server %d:\n%s", v.number, v.log.notable())
	}
	st.t.Fatalf("%s: %d faults", where, len(faults))
}

// String are the counts as they are printed at the end.
func (c counts) String() string {
	return fmt.Sprintf("kills %d of servers at work, %d of ones that started, %d of commands; outages %d; paths acknowledged %d, unanswered %d, refused %d; "+
		"pins %d, removed %d; checks of everything %d, reads beside %d; paths lost %d, corrupt answers %d; "+
		"paths collected %d, packs compacted %d, deleted %d, orphans deleted %d",
		c.kills, c.earlyKills, c.commandKills, c.outages, c.acknowledged, c.unanswered, c.refused,
		c.pinned, c.unpinned, c.checks, c.reads, c.lost, c.corrupt,
		c.collected, c.compacted, c.packsDeleted, c.orphans)
}
