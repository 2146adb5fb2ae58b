// Package embedded is a cache server in this process, for runs that name no cache:
// what one built, the next one finds.
package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
)

// Server listens on a free port of the loopback interface, where nobody else's
// machine can push to it.
type Server struct {
	// URL is http://127.0.0.1:PORT.
	URL string

	server *cacheserver.Server
	stop   context.CancelFunc
	work   errgroup.Group
}

// Start starts a server, which is to be closed. It outlives ctx: an interrupted run
// still pushes to it.
func Start(ctx context.Context, c cacheserver.Config) (*Server, error) {
	server, err := cacheserver.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listening on the loopback interface: %w", err), server.Close())
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &Server{URL: "http://" + l.Addr().String(), server: server, stop: stop}
	s.work.Go(func() error { return server.Serve(serving, l) })
	s.work.Go(func() error {
		s.collect(serving, c.Data, cmp.Or(c.Log, slog.New(slog.DiscardHandler)))
		return nil
	})
	return s, nil
}

// Close lets requests under way end, and closes the server's data.
func (s *Server) Close() error {
	s.stop()
	return errors.Join(s.work.Wait(), s.server.Close())
}
