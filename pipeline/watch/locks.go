package watch

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

const (
	// gather is how long to wait for further paths after one, and gatherAll how
	// long at most: each question costs a process of nix.
	gather    = 200 * time.Millisecond
	gatherAll = 2 * time.Second
)

// Locks sees store paths become valid where Nix's database cannot be read, as
// in a container that shares only the store and the daemon's socket with its
// host: Nix locks a path while it makes it, and removes H-name.lock once its row
// is written. Events that the kernel drops are paths that are not seen.
type Locks struct {
	dir     string // of the store, as its paths say
	events  *fsnotify.Watcher
	ask     func(context.Context, []string) ([]nix.PathInfo, error)
	emit    func(nix.PathInfo)
	pending map[string]bool
}

// NewLocks begins to listen to a store. ask returns those of some paths that are
// valid. Close ends it.
func NewLocks(store nix.Store, ask func(context.Context, []string) ([]nix.PathInfo, error), emit func(nix.PathInfo)) (*Locks, error) {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching the store: %w", err)
	}
	if err := events.Add(store.RealPath(store.Dir)); err != nil {
		_ = events.Close()
		return nil, fmt.Errorf("watching the store: %w", err)
	}
	return &Locks{dir: store.Dir, events: events, ask: ask, emit: emit, pending: map[string]bool{}}, nil
}

// Close ends the listening.
func (l *Locks) Close() error { return l.events.Close() }

// Run watches until ctx is done; Sweep then reads the rest.
func (l *Locks) Run(ctx context.Context) error {
	var first time.Time // of those that are pending
	for {
		var due <-chan time.Time
		if len(l.pending) > 0 {
			due = time.After(min(gather, max(0, gatherAll-time.Since(first))))
		}
		select {
		case <-ctx.Done():
			return nil
		case e := <-l.events.Events:
			if l.note(e) && len(l.pending) == 1 {
				first = time.Now()
			}
		case <-l.events.Errors: // unread, it would be the last that is heard of events
		case <-due:
			if err := l.flush(ctx); err != nil {
				if ctx.Err() != nil {
					return nil //nolint:nilerr // it is told to end
				}
				return err
			}
		}
	}
}

func (l *Locks) note(e fsnotify.Event) bool {
	name, ok := strings.CutSuffix(path.Base(e.Name), ".lock")
	if !ok || !e.Has(fsnotify.Remove) {
		return false
	}
	l.pending[l.dir+"/"+name] = true
	return true
}

// Sweep tells of the paths whose locks went since the last look. It is not to be
// called while Run runs.
func (l *Locks) Sweep(ctx context.Context) error {
	for {
		select {
		case e := <-l.events.Events:
			l.note(e)
			continue
		case <-time.After(gather): // what the kernel has told comes at once
		}
		return l.flush(ctx)
	}
}

func (l *Locks) flush(ctx context.Context) error {
	if len(l.pending) == 0 {
		return nil
	}
	infos, err := l.ask(ctx, slices.Sorted(maps.Keys(l.pending)))
	if err != nil {
		return fmt.Errorf("watching for new paths: %w", err)
	}
	clear(l.pending)
	for _, p := range infos {
		l.emit(p)
	}
	return nil
}
