package flywheel

import (
	"path"
	"sync"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

// builds knows when the builds of a run began.
type builds struct {
	since time.Time // when the run did
	mu    sync.Mutex
	began map[string]time.Time // by the derivation's base name
}

func newBuilds() *builds { return &builds{since: time.Now(), began: map[string]time.Time{}} }

// Observe implements event.Observer.
func (b *builds) Observe(e event.Event) {
	if e, ok := e.(event.BuildBegan); ok {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.began[path.Base(e.Derivation)] = time.Now()
	}
}

// timeIn is how long building a path of the store took in this run.
func (b *builds) timeIn(s nix.Store) func(nix.PathInfo) time.Duration {
	return func(p nix.PathInfo) time.Duration {
		b.mu.Lock()
		began := b.began[path.Base(p.Deriver)]
		b.mu.Unlock()
		return s.BuildTime(p, b.since, began)
	}
}
