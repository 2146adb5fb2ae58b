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
	"time"

	"golang.org/x/sync/errgroup"

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
	door      *nixcache.Door
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
	publicKey, err := nixcache.EnsureCache(ctx, e.Index, DefaultCache, c.StoreDir)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return &Server{
		Engines: e, config: c, publicKey: publicKey,
		door: nixcache.New(e.Store, e.Index, nixcache.Config{DefaultCache: DefaultCache, Redirect: c.Redirect, Log: c.Log}),
	}, nil
}

// PublicKey is the default cache's, as it stands in trusted-public-keys.
func (s *Server) PublicKey() string { return s.publicKey }

// Handler returns all routes.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", s.door.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok\n")
	})
	return logged(s.config.Log, mux)
}

// Serve answers on the listener, which it closes, and collects, until ctx is
// done; requests under way then have 30 s to end.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	hs := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		ErrorLog:          slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := hs.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving: %w", err)
		}
		return nil
	})
	background, stop := context.WithCancel(context.WithoutCancel(gctx))
	g.Go(func() error { return s.door.RecordUses(background) })
	if s.config.CollectEvery > 0 {
		g.Go(func() error { return s.Collector().Schedule(gctx, s.config.CollectEvery) })
	}
	g.Go(func() error {
		defer stop() // what the last requests used is to be recorded, too
		<-gctx.Done()
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
