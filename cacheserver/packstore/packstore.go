// Package packstore keeps packs: immutable files, written once and whole.
package packstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
)

// ErrNotFound is wrapped when there is no pack of that name.
var ErrNotFound = errors.New("no such pack")

// ErrExists is wrapped when a pack of that name is already there; it is left
// as it was.
var ErrExists = errors.New("pack already exists")

// ErrNoSpace is wrapped when a pack could not be written because the storage
// is full. Reads go on, and writes succeed again once there is room.
var ErrNoSpace = errors.New("no space left in the pack store")

// Store is what every engine that holds packs does. All methods may be called
// at the same time, and from several processes over the same storage.
//
// A name is 1 to 64 characters of 0-9 and a-z; any other is an error.
type Store interface {
	// Put writes a pack of exactly size bytes. When it returns nil, the pack
	// survives a crash of this machine; when it returns an error, no pack of
	// that name can be seen, and none was if there was none before.
	Put(ctx context.Context, name string, size int64, body io.Reader) error

	// Open returns a reader positioned at offset that gives at least length
	// bytes, or ErrNotFound. The caller reads length bytes, no more, and closes
	// it. Where packs are files it is the *os.File itself, so that net/http
	// hands the copying to the kernel.
	Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error)

	// Size returns a pack's length in bytes, or ErrNotFound.
	Size(ctx context.Context, name string) (int64, error)

	// List calls visit with every pack in any order; a pack that is put or
	// deleted meanwhile may be missing or there. It stops at visit's first
	// error and returns it.
	List(ctx context.Context, visit func(name string, size int64) error) error

	// Delete removes a pack. A name that is not there is no error.
	Delete(ctx context.Context, name string) error
}

var validName = regexp.MustCompile(`^[0-9a-z]{1,64}$`)

// CheckName returns an error for a name that no Store takes.
func CheckName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("pack name %.80q: want 1 to 64 characters of 0-9 and a-z", name)
	}
	return nil
}
