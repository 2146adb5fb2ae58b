// Package watch sees store paths become valid while a build runs.
//
// It is a cursor on Nix's own database, so it misses no path, however it came
// to be valid: built, fetched or substituted. File system events on the
// database are only its alarm clock.
package watch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fsnotify/fsnotify"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

const (
	// slowTick is how often the database is asked anyway: file systems that
	// send no events exist, and a full event queue drops some.
	slowTick = time.Second
	// pollTick is how often it is asked where no events can be had.
	pollTick = 100 * time.Millisecond
)

// Watcher reads new valid paths from a database.
type Watcher struct {
	db     *nix.Database
	cursor int64
	emit   func(nix.PathInfo)
}

// New returns a watcher that gives emit each path that became valid after the
// cursor, in order.
func New(db *nix.Database, cursor int64, emit func(nix.PathInfo)) *Watcher {
	return &Watcher{db: db, cursor: cursor, emit: emit}
}

// Run watches until ctx is done; Sweep then reads the rest. It returns an
// error only when the database cannot be read any more.
func (w *Watcher) Run(ctx context.Context) error {
	alarm, tick := make(<-chan fsnotify.Event), pollTick
	events, err := fsnotify.NewWatcher()
	if err == nil {
		defer events.Close()
		if err = events.Add(w.db.Dir()); err == nil {
			alarm, tick = events.Events, slowTick
		}
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		if err := w.Sweep(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-alarm:
		}
		quiet(alarm)
	}
}

// quiet passes over events that came together with the one that woke us.
func quiet(alarm <-chan fsnotify.Event) {
	for {
		select {
		case <-alarm:
		default:
			return
		}
	}
}

// Sweep gives emit what became valid since the last look. It is not to be
// called while Run runs.
func (w *Watcher) Sweep(ctx context.Context) error {
	infos, err := w.db.Since(ctx, w.cursor)
	if err != nil {
		return fmt.Errorf("watching for new paths: %w", err)
	}
	for _, p := range infos {
		if p.ID <= w.cursor {
			return errors.New("watching for new paths: ids in Nix's database went backwards")
		}
		w.cursor = p.ID
		w.emit(p)
	}
	return nil
}
