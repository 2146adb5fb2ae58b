// Package oneport lets gRPC and HTTP have one port, each with a server of its
// own: a gRPC server that owns its connections takes half the time for a small
// call of one that is a handler of net/http.
//
// A connection goes to the gRPC server when its first request is gRPC and comes
// from the client itself. All others are for net/http, which answers gRPC, too:
// a proxy may send both kinds over one connection.
package oneport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Limits bound how long a connection may take to say what it is.
type Limits struct {
	// Preface is from its first byte to the end of HTTP/2's connection preface. What
	// takes longer is closed.
	Preface time.Duration
	// Idle is from there to the first request: clients connect before they have
	// one. What takes longer is net/http's, with its own limits.
	Idle time.Duration
}

// Port is a listener whose connections are divided. HTTP and GRPC are the
// listeners of the two servers, to be closed by them; Run accepts for both.
type Port struct {
	HTTP, GRPC net.Listener

	listener   net.Listener
	limits     Limits
	http, grpc *half
	failed     chan struct{} // closed when accepting failed
	err        error         // why, once failed is closed
}

// New divides a listener, which Run closes.
func New(l net.Listener, limits Limits) *Port {
	p := &Port{listener: l, limits: limits, failed: make(chan struct{})}
	p.http, p.grpc = p.half(), p.half()
	p.HTTP, p.GRPC = p.http, p.grpc
	return p
}

func (p *Port) half() *half {
	return &half{port: p, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Run accepts connections until ctx is done, and closes those then whose first
// request has not come.
func (p *Port) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { _ = p.listener.Close() })
	defer stop()
	g.Go(func() error {
		err := p.accept(ctx, g)
		if err != nil {
			p.err = fmt.Errorf("accepting connections at %s: %w", p.listener.Addr(), err)
			close(p.failed)
		}
		return p.err
	})
	return g.Wait()
}

func (p *Port) accept(ctx context.Context, g *errgroup.Group) error {
	const shortest, longest = 5 * time.Millisecond, time.Second
	pause := shortest
	for {
		c, err := p.listener.Accept()
		if ctx.Err() != nil {
			if c != nil {
				_ = c.Close()
			}
			return nil
		}
		var passing interface{ Temporary() bool }
		switch {
		case err == nil:
			pause = shortest
			g.Go(func() error {
				p.sort(ctx, c)
				return nil
			})
		case errors.As(err, &passing) && passing.Temporary():
			// Such as too many open files: it gets better as clients leave.
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, longest)
		default:
			return err
		}
	}
}

// sort hands a connection to the server that it is for.
func (p *Port) sort(ctx context.Context, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	to, sorted, err := p.look(c)
	if !stop() || err != nil {
		_ = c.Close()
		return
	}
	select {
	case to.conns <- sorted:
	case <-to.closed:
		_ = c.Close()
	case <-ctx.Done():
		_ = c.Close()
	}
}

// half is a listener of the connections of one kind.
type half struct {
	port   *Port
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener. It waits beyond the end of Run, until Close: a
// server that is to stop gracefully takes an error for one.
func (h *half) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	case <-h.port.failed:
		return nil, h.port.err
	}
}

// Close implements net.Listener.
func (h *half) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *half) Addr() net.Addr { return h.port.listener.Addr() }
