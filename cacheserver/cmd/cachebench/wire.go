package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// wire stands between clients and a server, and counts what clients send.
type wire struct {
	url  string
	sent atomic.Int64 // bytes, of connections' streams

	listener net.Listener
	cancel   context.CancelFunc
	group    *errgroup.Group
}

// newWire listens for the server that is at a URL.
func newWire(ctx context.Context, server string) (*wire, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("counting what is sent: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &wire{url: "http://" + l.Addr().String() + u.Path, listener: l, cancel: cancel, group: &errgroup.Group{}}
	w.group.Go(func() error {
		for {
			client, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("counting what is sent: %w", err)
			}
			w.group.Go(func() error {
				w.join(ctx, client, u.Host)
				return nil
			})
		}
	})
	return w, nil
}

// join carries a connection until both ends have closed it. What breaks it is the
// client's to tell.
func (w *wire) join(ctx context.Context, client net.Conn, address string) {
	defer func() { _ = client.Close() }()
	var d net.Dialer
	server, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	stop := context.AfterFunc(ctx, func() {
		_ = client.Close()
		_ = server.Close()
	})
	defer stop()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}()
	counted := &countedWriter{Writer: server, n: &w.sent}
	_, _ = io.Copy(counted, client)
	if tcp, ok := server.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	<-answered
}

// countedWriter counts as it goes: a client's connections outlive a push.
type countedWriter struct {
	io.Writer
	n *atomic.Int64
}

func (c *countedWriter) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.n.Add(int64(n))
	return n, err
}

func (w *wire) close() error {
	w.cancel()
	return errors.Join(w.listener.Close(), w.group.Wait())
}
