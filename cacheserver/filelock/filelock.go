// Package filelock gives a file, or a directory, to one holder at a time, by
// flock(2). A lock is the open file's: it excludes other processes and this one's
// other handles, and ends with Release, or with the process.
package filelock

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrHeld is wrapped when another holds a lock.
var ErrHeld = errors.New("another holds its lock")

// Open opens a file and takes its lock, or returns ErrHeld. A file that is not there
// is made, in a directory that is. It is to stay when the lock ends: whoever removes
// it may remove what another has just locked.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := Take(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Take takes the lock of an open file, or returns ErrHeld.
func Take(f *os.File) error { return flock(f, unix.LOCK_EX|unix.LOCK_NB) }

// Wait takes the lock of an open file as soon as nobody holds it.
func Wait(f *os.File) error { return flock(f, unix.LOCK_EX) }

// Release gives the lock of a file back and closes the file. To close it alone would
// leave the lock for a moment to a child that this process is just starting, which has
// a copy of every open file until it has become its program.
func Release(f *os.File) error {
	return errors.Join(flock(f, unix.LOCK_UN), f.Close())
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			err = ErrHeld
		}
		return fmt.Errorf("locking %s: %w", f.Name(), err)
	}
}
