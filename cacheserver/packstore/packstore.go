// Package packstore keeps packs: immutable files, written once and whole.
package packstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"syscall"
	"time"
)

// ErrNotFound is wrapped when there is no pack of that name.
var ErrNotFound = errors.New("no such pack")

// ErrExists is wrapped when a pack of that name is already there; it is left
// as it was.
var ErrExists = errors.New("pack already exists")

// ErrNoSpace is wrapped when a pack could not be written because the storage
// is full. Reads go on, and writes succeed again once there is room.
var ErrNoSpace = errors.New("no space left in the pack store")

// ErrUnavailable is wrapped when the storage cannot be reached now. Trying again
// later may help, and needs no restart.
var ErrUnavailable = errors.New("the pack store cannot be reached")

// Unreadable is true of an error of reading that says that a pack is gone, was cut
// off, or lies where its disk reads no more: trying again does not help, and what
// was stored there is lost.
func Unreadable(err error) bool {
	for _, lost := range []error{ErrNotFound, io.EOF, io.ErrUnexpectedEOF, syscall.EIO} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}

// Store is what every engine that holds packs does. All methods may be called
// at the same time, and from several processes over the same storage.
//
// A name is 1 to 64 characters of 0-9 and a-z; any other is an error.
type Store interface {
	// Put writes a pack of exactly size bytes. When it returns nil, the pack
	// survives a crash of this machine; when it returns an error, no pack of
	// that name can be seen, and none was if there was none before. Only after
	// ErrUnavailable, or because ctx ended, may it turn out to be there after
	// all. A body that is an io.Seeker may be read more than once, from where it
	// stood, so that a failed write can be tried again.
	Put(ctx context.Context, name string, size int64, body io.Reader) error

	// Open returns a reader positioned at offset that gives at least length
	// bytes, or ErrNotFound; where the pack has not as many, the error, of Open
	// or of Read, wraps io.ErrUnexpectedEOF. The caller reads length bytes, no
	// more, and closes it; ctx is to live until then. It copies with CopyN, so
	// that net/http hands the copying to the kernel where packs, or parts of
	// them, are files. A pack that is deleted meanwhile gives its own bytes or
	// an error.
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

// Presigner is what a Store does, too, whose packs others can read from where
// they are kept.
type Presigner interface {
	// Presign returns a URL under which anyone can GET a pack for ttl, of 1
	// second to 7 days. It does not look whether the pack is there.
	Presign(ctx context.Context, name string, ttl time.Duration) (url string, err error)
}

// copier is what a reader of Open is that consists of several files.
type copier interface {
	CopyTo(w io.Writer, n int64) (int64, error)
}

// CopyN copies n bytes from a reader that Store.Open gave, as io.CopyN does. The
// source that w's ReadFrom sees is an *os.File wherever there is one.
func CopyN(w io.Writer, r io.ReadCloser, n int64) (int64, error) {
	if c, ok := r.(copier); ok {
		return c.CopyTo(w, n)
	}
	return io.CopyN(w, r, n)
}

var validName = regexp.MustCompile(`^[0-9a-z]{1,64}$`)

// CheckName returns an error for a name that no Store takes.
func CheckName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("pack name %.80q: want 1 to 64 characters of 0-9 and a-z", name)
	}
	return nil
}
