package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"sync"

	"golang.org/x/sys/unix"
)

var validLock = regexp.MustCompile(`^[a-z0-9-]+$`)

// Lock implements Index by a lock on a file of its own beside the database. The
// file stays: whoever deletes it may delete what another has just locked. lost
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
	f, err := os.OpenFile(x.file+"-lock-"+name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	// The lock is the open file's, so it excludes this process's other handles,
	// too, and ends with the process.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
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
		f.Close()
	}), nil
}
