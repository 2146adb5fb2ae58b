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
	"math"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bazelcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/observe"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/oneport"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// DefaultCache is the cache that is made at the first start. It answers under
// its name and at the root.
const DefaultCache = "main"

// Server is an open store with its doors.
type Server struct {
	*Engines
	config    Config
	publicKey string
	callers   *auth.Authenticator
	door      *nixcache.Door
	bazel     *bazelcache.Door
	ready     *readiness
	observed  *observed
	uploads   uploads
	delay     func(time.Duration) // time.Sleep, but in tests
}

// Open opens the engines, makes the default cache at the first start, and sees to
// it that the declared ones are as they are declared. Several servers, in one
// process or in many, may have the same engines open.
func Open(ctx context.Context, c Config) (*Server, error) {
	if c.StoreDir == "" {
		c.StoreDir = storepath.DefaultDir
	}
	c.StoreDir = filepath.Clean(c.StoreDir)
	c.Limits = c.Limits.orDefault()
	if c.Drain.Time == 0 {
		c.Drain.Time = DefaultDrainTime
	}
	c.observer = observe.New(c.Traces)
	e, err := OpenEngines(ctx, &c)
	if err != nil {
		return nil, err
	}
	callers, err := auth.New(c.Auth, c.Log)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	// Before the default cache is made as it is by default: it may be declared, too.
	if err := reconcile(ctx, e.Index, c.StoreDir, c.Caches, c.Log); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	publicKey, err := nixcache.EnsureCache(ctx, e.Index, DefaultCache, c.StoreDir)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	places := newUploads(c.Limits.Uploads)
	s := &Server{
		Engines: e, config: c, publicKey: publicKey, callers: callers, uploads: places, delay: time.Sleep,
		door: nixcache.New(e.Store, e.Index, nixcache.Config{
			DefaultCache: DefaultCache, PublicURL: c.PublicURL, Redirect: c.Redirect, Upstreams: upstreamsOf(c.Caches), Log: c.Log,
		}),
		bazel: bazelcache.New(e.Store, e.Index, bazelcache.Config{
			Retention: c.Policy.HoldTime, Log: c.Log, Authorize: authorizeBazel(callers),
			Options: []grpc.ServerOption{
				grpc.StatsHandler(callLog{c.Log, callers}), c.observer.GRPC(),
				grpc.ChainUnaryInterceptor(places.unary), grpc.ChainStreamInterceptor(places.stream),
			},
		}),
		ready: newReadiness(e),
	}
	s.observed = newObserved(s)
	return s, nil
}

// authorizeBazel gives to an instance the rights on the cache of its name; to the
// one without a name, those on the default cache.
func authorizeBazel(callers *auth.Authenticator) func(context.Context, string, bool) error {
	return func(ctx context.Context, instance string, write bool) error {
		subject := callerOf(ctx, callers)
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

// callerOf is who makes a request to Bazel's door: gRPC on a port of its own has
// no middleware.
func callerOf(ctx context.Context, callers *auth.Authenticator) auth.Subject {
	if call, ok := metadata.FromIncomingContext(ctx); ok {
		return callers.FromMetadata(ctx, call.Get("authorization"))
	}
	return auth.SubjectOf(ctx)
}

// Close ends what goes on beside requests, of which there must be none any more,
// and then the engines.
func (s *Server) Close() error {
	s.door.Close()
	return s.Engines.Close()
}

// NeedsTokens is false when everyone who can reach the server may do everything.
func (s *Server) NeedsTokens() bool { return s.callers.Enabled() }

// PublicKey is the default cache's, as it stands in trusted-public-keys.
func (s *Server) PublicKey() string { return s.publicKey }

// Handler returns all routes.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	doors := atDoor(doorBazel, s.bazel.Handler(atDoor(doorNix, s.door.Handler())))
	doors = atDoor(doorPage, s.observed.pages.Handler(doors))
	mux.Handle("/", s.uploads.handler(s.callers.Middleware(withCaller(doors))))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.Handle("GET /readyz", s.ready)
	mux.Handle("GET /metrics", s.observed.Metrics(s.config.Log))
	return s.observed.Handler(logged(s.config.Log, mux))
}

// Serve answers on the listener, and gRPC alone on the others, and collects, until
// ctx is done. /readyz and gRPC's health then say no, and after the drain's delay,
// requests under way have its time to end. It closes the listeners.
func (s *Server) Serve(ctx context.Context, l net.Listener, onlyGRPC ...net.Listener) error {
	hs := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: s.config.Limits.HeaderTime,
		IdleTimeout:       s.config.Limits.IdleTime,
		MaxHeaderBytes:    int(min(s.config.Limits.HeaderBytes, math.MaxInt32)),
		ErrorLog:          slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
		HTTP2:             bazelcache.HTTP2(),
	}
	hs.Protocols.SetHTTP1(true)
	hs.Protocols.SetUnencryptedHTTP2(true)
	g, gctx := errgroup.WithContext(ctx)
	port := oneport.New(l, oneport.Limits{Preface: s.config.Limits.HeaderTime, Idle: s.config.Limits.IdleTime})
	g.Go(func() error {
		if err := hs.Serve(port.HTTP); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving: %w", err)
		}
		return nil
	})
	background, stop := context.WithCancel(context.WithoutCancel(gctx))
	g.Go(func() error { return s.door.RecordUses(background) })
	g.Go(func() error { return s.bazel.Run(background) })
	g.Go(func() error { return s.observed.run(background) })
	ending, end := context.WithCancel(context.WithoutCancel(gctx))
	defer end()
	g.Go(func() error { return port.Run(ending) })
	var calls sync.WaitGroup
	for _, l := range append(onlyGRPC, port.GRPC) {
		calls.Add(1)
		g.Go(func() error {
			defer calls.Done()
			return s.bazel.ServeGRPC(ending, l, s.config.Drain.Time)
		})
	}
	if s.config.CollectEvery > 0 {
		g.Go(func() error { return s.collector().Schedule(gctx, s.config.CollectEvery) })
	}
	g.Go(func() error {
		defer stop() // what the last requests used is to be recorded, too
		<-gctx.Done()
		s.ready.draining.Store(true)
		s.bazel.Draining()
		if ctx.Err() != nil { // a listener that failed leaves nothing to wait for
			s.delay(s.config.Drain.Delay)
		}
		end()
		defer calls.Wait()
		drain, cancel := context.WithTimeout(context.WithoutCancel(gctx), s.config.Drain.Time)
		defer cancel()
		if err := hs.Shutdown(drain); err != nil {
			_ = hs.Close()
			return fmt.Errorf("requests under way were broken off after %v: %w", s.config.Drain.Time, err)
		}
		return nil
	})
	return g.Wait()
}
