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
	// lookAgain is how long after an event the database is looked at again, then
	// after ever longer times until slowTick is near: SQLite writes its log, which
	// rings, before it lets others see what it wrote.
	lookAgain = 5 * time.Millisecond
)

// Watcher reads new valid paths from a database.
type Watcher struct {
	db     *nix.Database
	cursor int64
	emit   func(nix.PathInfo)

	// For the tests, which stop that clock and drop events.
	slowTick  time.Duration
	newEvents func() (*fsnotify.Watcher, error)
}

// New returns a watcher that gives emit each path that became valid after the
// cursor, in order.
func New(db *nix.Database, cursor int64, emit func(nix.PathInfo)) *Watcher {
	return &Watcher{db: db, cursor: cursor, emit: emit, slowTick: slowTick, newEvents: fsnotify.NewWatcher}
}

// Run watches until ctx is done; Sweep then reads the rest. It returns an
// error only when the database cannot be read any more.
func (w *Watcher) Run(ctx context.Context) error {
	alarm, dropped, tick := make(<-chan fsnotify.Event), make(<-chan error), pollTick
	events, err := w.newEvents()
	if err == nil {
		defer events.Close()
		if err = events.Add(w.db.Dir()); err == nil {
			alarm, dropped, tick = events.Events, events.Errors, w.slowTick
		}
	}
	var again <-chan time.Time
	wait := lookAgain
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		if err := w.Sweep(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		rang := false
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-again:
			if wait *= 4; wait < w.slowTick {
				again = time.After(wait)
			}
		case <-alarm:
			rang = true
		case <-dropped: // unread, it would be the last that is heard of events
		}
		if quiet(alarm) || rang {
			wait = lookAgain
			again = time.After(wait)
		}
	}
}

// quiet passes over events that came together with the one that woke us, and
// says whether there were any.
func quiet(alarm <-chan fsnotify.Event) (rang bool) {
	for {
		select {
		case <-alarm:
			rang = true
		default:
			return rang
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
