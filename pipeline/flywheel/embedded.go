package flywheel

import (
	"context"
	"errors"
	"net"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
)

// embedded is a cache server in this process, on a free port of the loopback
// interface.
type embedded struct {
	url    string
	server *cacheserver.Server
	stop   context.CancelFunc
	done   chan error
}

// startEmbedded outlives ctx: an interrupted run still pushes to it.
func startEmbedded(ctx context.Context, c cacheserver.Config) (*embedded, error) {
	server, err := cacheserver.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	e := &embedded{
		url:    "http://" + l.Addr().String(),
		server: server, stop: stop, done: make(chan error, 1),
	}
	go func() { e.done <- server.Serve(serving, l) }()
	return e, nil
}

func (e *embedded) close() error {
	e.stop()
	return errors.Join(<-e.done, e.server.Close())
}

// startCache starts the embedded server where no cache was named.
func (r *run) startCache(ctx context.Context) []string {
	if len(r.Caches) > 0 {
		return r.Caches
	}
	began := r.console.begin("cache")
	e, err := startEmbedded(ctx, cacheserver.Config{Data: r.Data, StoreDir: r.store.Dir, Log: r.Log})
	if err != nil {
		r.fault("the embedded cache server does not start: %v", err)
		return nil
	}
	r.embedded = e
	r.console.step("cache", began, "embedded server at %s, data in %s", e.url, r.Data)
	return []string{e.url}
}
