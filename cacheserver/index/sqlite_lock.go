package index

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/filelock"
)

var validLock = regexp.MustCompile(`^[a-z0-9-]+$`)

// Lock implements Index by a lock on a file of its own beside the database. lost
// is never closed, as the kernel takes no lock away.
func (x *SQLite) Lock(ctx context.Context, name string) (lost <-chan struct{}, unlock func(), err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("taking the lock %q of the index: %w", name, err)
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if !validLock.MatchString(name) {
		return nil, nil, errors.New("a lock's name is of a-z, 0-9 and dashes")
	}
	f, err := filelock.Open(x.file + "-lock-" + name)
	if errors.Is(err, filelock.ErrHeld) {
		err = ErrLocked
	}
	if err != nil {
		return nil, nil, err
	}
	// A file that nothing refers to is closed when its memory is reclaimed.
	x.mu.Lock()
	x.locks[f] = true
	x.mu.Unlock()
	return make(chan struct{}), sync.OnceFunc(func() {
		x.mu.Lock()
		delete(x.locks, f)
		x.mu.Unlock()
		_ = filelock.Release(f)
	}), nil
}
