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
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
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

// Config says where a server keeps its data and for which store it caches.
type Config struct {
	Data     string       // directory, created when it is missing
	StoreDir string       // of the paths it holds; storepath.DefaultDir when empty
	Log      *slog.Logger // nothing is logged when nil
}

// Server is an open store with its doors.
type Server struct {
	publicKey string
	index     index.Index
	store     *cas.Store
	door      *nixcache.Door
	log       *slog.Logger
}

// Open opens the data directory. Several servers, in one process or in many,
// may have the same one open.
func Open(ctx context.Context, c Config) (*Server, error) {
	if c.StoreDir == "" {
		c.StoreDir = storepath.DefaultDir
	}
	c.StoreDir = filepath.Clean(c.StoreDir)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return nil, fmt.Errorf("opening the data directory: %w", err)
	}
	packs, err := packstore.OpenDisk(filepath.Join(c.Data, "packs"))
	if err != nil {
		return nil, err
	}
	idx, err := index.OpenSQLite(ctx, filepath.Join(c.Data, "index.sqlite"))
	if err != nil {
		return nil, err
	}
	publicKey, err := nixcache.EnsureCache(ctx, idx, DefaultCache, c.StoreDir)
	if err != nil {
		return nil, errors.Join(err, idx.Close())
	}
	store := cas.New(packs, idx)
	return &Server{
		publicKey: publicKey, index: idx, store: store, log: c.Log,
		door: nixcache.New(store, idx, DefaultCache, c.Log),
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
	return logged(s.log, mux)
}

// Serve answers on the listener, which it closes, until ctx is done; requests
// under way then have 30 s to end.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	hs := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := hs.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving: %w", err)
		}
		return nil
	})
	g.Go(func() error {
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

// Close ends the server once nothing is served any more.
func (s *Server) Close() error {
	s.store.Close()
	return s.index.Close()
}
