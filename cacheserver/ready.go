package cacheserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

const (
	// readyTime is how long a dependency may take to answer that it is there.
	readyTime = 3 * time.Second
	// readyFor is how long an answer holds: whoever asks more often does not make
	// the server ask its dependencies.
	readyFor = time.Second
	// noPack is the name of a pack that no server writes.
	noPack = "ready"
)

// readiness says whether what the server depends on is there.
type readiness struct {
	dependencies []dependency
	log          *slog.Logger
	draining     atomic.Bool

	mu    sync.Mutex
	asked time.Time
	away  []error // by dependency
}

type dependency struct {
	name string
	ask  func(context.Context) error
}

func newReadiness(e *Engines) *readiness {
	return &readiness{log: e.log, dependencies: []dependency{
		{"index", func(ctx context.Context) error {
			_, err := e.Index.Caches(ctx)
			return err
		}},
		{"packs", func(ctx context.Context) error {
			_, err := e.Packs.Size(ctx, noPack)
			if errors.Is(err, packstore.ErrNotFound) {
				return nil
			}
			return err
		}},
	}}
}

// check returns for each dependency why it is away, or nil. Those who ask at the
// same time share the answer.
func (r *readiness) check(ctx context.Context) []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away != nil && time.Since(r.asked) < readyFor {
		return r.away
	}
	// Who asked first may hang up; the answer is the others', too.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), readyTime, fmt.Errorf("no answer within %v", readyTime))
	defer cancel()
	away := make([]error, len(r.dependencies))
	var g errgroup.Group
	for i, d := range r.dependencies {
		g.Go(func() error {
			if away[i] = d.ask(ctx); away[i] != nil && ctx.Err() != nil {
				away[i] = context.Cause(ctx)
			}
			return nil
		})
	}
	_ = g.Wait() // the errors are in away
	for i, d := range r.dependencies {
		switch was := r.away != nil && r.away[i] != nil; {
		case away[i] != nil && !was:
			r.log.Warn("not ready: a dependency is away", "dependency", d.name, "error", away[i])
		case away[i] == nil && was:
			r.log.Info("a dependency is back", "dependency", d.name)
		}
	}
	r.asked, r.away = time.Now(), away
	return away
}

// ServeHTTP answers /readyz. Why a dependency is away is for the log only: anyone
// may ask.
//
// With degraded=ok it says yes while a dependency is away, too: all replicas have the
// same ones, so that a balancer that left them out would have none, not even for what
// they hold themselves.
func (r *readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if r.draining.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "draining\n")
		return
	}
	away, details := false, ""
	for i, err := range r.check(req.Context()) {
		state := "ok"
		if err != nil {
			away, state = true, "away"
		}
		details += r.dependencies[i].name + ": " + state + "\n"
	}
	status, verdict := http.StatusOK, "ready\n"
	switch {
	case away && req.URL.Query().Get("degraded") == "ok":
		verdict = "degraded\n"
	case away:
		status, verdict = http.StatusServiceUnavailable, "not ready\n"
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, verdict+details)
}
