// Package cacheserver is the bundled cache server: a Nix binary cache over a
// content-addressed, deduplicating store. It runs as a command of its own
// (cmd/cacheserver) or inside another process.
package cacheserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/metadata"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bazelcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// DefaultCache is the cache that is made at the first start. It answers under
// its name and at the root.
const DefaultCache = "main"

const (
	headerTime = 10 * time.Second
	idleTime   = 2 * time.Minute
	// drainTime is how long requests under way may go on once the server is
	// told to stop.
	drainTime = 30 * time.Second
)

// Server is an open store with its doors.
type Server struct {
	*Engines
	config    Config
	publicKey string
	callers   *auth.Authenticator
	door      *nixcache.Door
	bazel     *bazelcache.Door
}

// Open opens the engines and makes the default cache at the first start. Several
// servers, in one process or in many, may have the same engines open.
func Open(ctx context.Context, c Config) (*Server, error) {
	if c.StoreDir == "" {
		c.StoreDir = storepath.DefaultDir
	}
	c.StoreDir = filepath.Clean(c.StoreDir)
	e, err := OpenEngines(ctx, &c)
	if err != nil {
		return nil, err
	}
	callers, err := auth.New(c.Auth, c.Log)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	publicKey, err := nixcache.EnsureCache(ctx, e.Index, DefaultCache, c.StoreDir)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return &Server{
		Engines: e, config: c, publicKey: publicKey, callers: callers,
		door:  nixcache.New(e.Store, e.Index, nixcache.Config{DefaultCache: DefaultCache, PublicURL: c.PublicURL, Redirect: c.Redirect, Log: c.Log}),
		bazel: bazelcache.New(e.Store, e.Index, bazelcache.Config{Log: c.Log, Authorize: authorizeBazel(callers)}),
	}, nil
}

// authorizeBazel gives to an instance the rights on the cache of its name; to the
// one without a name, those on the default cache.
func authorizeBazel(callers *auth.Authenticator) func(context.Context, string, bool) error {
	return func(ctx context.Context, instance string, write bool) error {
		subject := auth.SubjectOf(ctx)
		if call, ok := metadata.FromIncomingContext(ctx); ok { // gRPC on a port of its own has no middleware
			subject = callers.FromMetadata(ctx, call.Get("authorization"))
		}
		name, right := instance, auth.Pull
		if name == "" {
			name = DefaultCache
		}
		if write {
			right = auth.Push
		}
		return subject.Check(right, name)
	}
}

// NeedsTokens is false when everyone who can reach the server may do everything.
func (s *Server) NeedsTokens() bool { return s.callers.Enabled() }

// PublicKey is the default cache's, as it stands in trusted-public-keys.
func (s *Server) PublicKey() string { return s.publicKey }

// Handler returns all routes.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", s.callers.Middleware(s.bazel.Handler(s.door.Handler())))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok\n")
	})
	return logged(s.config.Log, mux)
}

// Serve answers on the listener, and gRPC alone on the others, and collects, until
// ctx is done; requests under way then have 30 s to end. It closes the listeners.
func (s *Server) Serve(ctx context.Context, l net.Listener, onlyGRPC ...net.Listener) error {
	hs := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		ErrorLog:          slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
		HTTP2:             bazelcache.HTTP2(),
	}
	hs.Protocols.SetHTTP1(true)
	hs.Protocols.SetUnencryptedHTTP2(true) // gRPC
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := hs.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving: %w", err)
		}
		return nil
	})
	background, stop := context.WithCancel(context.WithoutCancel(gctx))
	g.Go(func() error { return s.door.RecordUses(background) })
	g.Go(func() error { return s.bazel.Run(background) })
	var calls sync.WaitGroup
	for _, l := range onlyGRPC {
		calls.Add(1)
		g.Go(func() error {
			defer calls.Done()
			return s.bazel.ServeGRPC(gctx, l, drainTime)
		})
	}
	if s.config.CollectEvery > 0 {
		g.Go(func() error { return s.Collector().Schedule(gctx, s.config.CollectEvery) })
	}
	g.Go(func() error {
		defer stop() // what the last requests used is to be recorded, too
		<-gctx.Done()
		defer calls.Wait()
		drain, cancel := context.WithTimeout(context.WithoutCancel(gctx), drainTime)
		defer cancel()
		if err := hs.Shutdown(drain); err != nil {
			_ = hs.Close()
			return fmt.Errorf("waiting for requests under way: %w", err)
		}
		return nil
	})
	return g.Wait()
}
