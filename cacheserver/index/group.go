package index

import (
	"context"
	"errors"
)

// maxGroup bounds how many changes share a transaction, and with it how long
// the first of them waits for the last.
const maxGroup = 64

// ErrClosed is returned by Update once the index is closing.
var ErrClosed = errors.New("the index is closed")

type update struct {
	ctx    context.Context
	change func(Tx) error
	done   chan error
}

// group gathers the changes that wait while another's transaction is made
// durable, so that they go into the next one together: one fsync for all.
type group struct {
	commit  func([]*update) // tells each update how it ended
	updates chan *update
	closing chan struct{}
	closed  chan struct{}
}

func newGroup(commit func([]*update)) *group {
	g := &group{
		commit:  commit,
		updates: make(chan *update),
		closing: make(chan struct{}),
		closed:  make(chan struct{}),
	}
	go g.run()
	return g
}

// Update implements Index.
func (g *group) Update(ctx context.Context, change func(Tx) error) error {
	u := &update{ctx: ctx, change: change, done: make(chan error, 1)}
	select {
	case g.updates <- u:
	case <-ctx.Done():
		return ctx.Err()
	case <-g.closing:
		return ErrClosed
	}
	// From here the outcome is the writer's to tell: to leave early would be to
	// call a change failed that may be durable.
	return <-u.done
}

func (g *group) run() {
	defer close(g.closed)
	for {
		select {
		case first := <-g.updates:
			g.commit(g.gather(first))
		case <-g.closing:
			return
		}
	}
}

func (g *group) gather(first *update) []*update {
	together := []*update{first}
	for len(together) < maxGroup {
		select {
		case u := <-g.updates:
			together = append(together, u)
		default:
			return together
		}
	}
	return together
}

// close waits for the changes that have begun.
func (g *group) close() {
	close(g.closing)
	<-g.closed
}
