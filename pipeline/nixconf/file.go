package nixconf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/filelock"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/atomicfile"
)

// ErrReadOnly is wrapped when a file is not for editing: another program makes
// it, or it lies on a file system that cannot be written.
var ErrReadOnly = errors.New("cannot be edited")

// ErrNotAllowed is wrapped when another user may edit the file.
var ErrNotAllowed = errors.New("permission denied")

// Edit replaces a file's content by what change makes of it, at once or not at
// all: whoever reads it meanwhile sees the old or the new. The file keeps its mode
// and owner; one that was not there is made with mode, and the directories
// above it, and one of which nothing is left is removed. A symbolic link is
// followed. Edits of several processes wait for one another.
func Edit(file string, mode fs.FileMode, change func(Text) (Text, error)) (changed bool, err error) {
	real, err := resolve(file)
	if err != nil {
		return false, err
	}
	old, err := os.ReadFile(real)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("reading %s: %w", file, err)
	}
	// Once without the lock: what does not change needs no right to write.
	fresh, err := change(old)
	if err != nil {
		return false, fmt.Errorf("%s: %w", file, err)
	}
	if bytes.Equal(old, fresh) {
		return false, nil
	}
	if strings.HasPrefix(real, "/nix/store/") {
		return false, fmt.Errorf("%s %w: it is a link into the Nix store, %s", file, ErrReadOnly, real)
	}
	if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
		return false, writing(file, err)
	}
	unlock, err := lock(filepath.Dir(real))
	if err != nil {
		return false, writing(file, err)
	}
	defer unlock()
	return replaceWith(file, real, mode, change)
}

// replaceWith is Edit with the directory locked.
func replaceWith(file, real string, mode fs.FileMode, change func(Text) (Text, error)) (bool, error) {
	old, err := os.ReadFile(real)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("reading %s: %w", file, err)
	}
	fresh, err := change(old)
	if err != nil {
		return false, fmt.Errorf("%s: %w", file, err)
	}
	switch {
	case bytes.Equal(old, fresh):
		return false, nil
	case len(fresh) == 0:
		return true, writing(file, os.Remove(real))
	}
	uid, gid := -1, -1
	if exists {
		info, err := os.Stat(real)
		if err != nil {
			return false, writing(file, err)
		}
		mode = info.Mode().Perm()
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(stat.Uid), int(stat.Gid)
		}
	}
	return true, writing(file, atomicfile.Replace(real, mode, func(f *os.File) error {
		_, err := f.Write(fresh)
		// The owner before the mode: a change of owner may take bits away. Of -1, both
		// are left as they come.
		return errors.Join(err, f.Chown(uid, gid), f.Chmod(mode))
	}))
}

// resolve follows symbolic links, also to a file that is not there yet.
func resolve(file string) (string, error) {
	const most = 40 // as Linux
	for range most {
		to, err := os.Readlink(file)
		if err != nil {
			return file, nil //nolint:nilerr // no link, or nothing: what reads it next will tell
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(file), to)
		}
		file = to
	}
	return "", fmt.Errorf("%s: too many symbolic links", file)
}

// lock keeps others of this program out of a directory. It leaves nothing behind.
func lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := filelock.Wait(d); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return func() { _ = filelock.Release(d) }, nil
}

// writing tells the errors of writing apart that somebody can do something about.
func writing(file string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%s %w: its file system is read-only", file, ErrReadOnly)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("writing %s: %w", file, ErrNotAllowed)
	}
	return fmt.Errorf("writing %s: %w", file, err)
}
