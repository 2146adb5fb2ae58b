//go:build !linux

package packstore

import (
	"errors"
	"os"
)

// allocate takes the room for a file's first size bytes from the disk, where a
// system has a call for it.
func allocate(*os.File, int64) error { return errors.ErrUnsupported }

// syncData makes bytes durable that replace others of a file.
func syncData(f *os.File) error { return f.Sync() }
