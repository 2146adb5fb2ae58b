package packstore

import (
	"os"

	"golang.org/x/sys/unix"
)

// allocate takes the room for a file's first size bytes from the disk.
func allocate(f *os.File, size int64) error { return unix.Fallocate(int(f.Fd()), 0, 0, size) }

// syncData makes bytes durable that replace others of a file.
func syncData(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }
