// Package atomicfile writes files that others read, or that have to be whole after
// a crash: by way of a temporary file beside them, which is renamed.
package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// Write gives a file a text and a mode, whatever the umask is. When it fails, the
// file is what it was.
func Write(file string, text []byte, mode fs.FileMode) error {
	return Replace(file, mode, func(f *os.File) error {
		_, err := f.Write(text)
		return err
	})
}

// Replace is Write for what comes in parts, or needs more than a mode. fill is not
// to close the file, which is on the disk when Replace returns.
//
// What is no regular file, such as /dev/stdout, is written to as it is.
func Replace(file string, mode fs.FileMode, fill func(*os.File) error) error {
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return writeTo(file, fill)
	}
	pending, err := renameio.NewPendingFile(file, renameio.WithTempDir(filepath.Dir(file)), renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	if err := fill(pending.File); err != nil {
		return errors.Join(err, pending.Cleanup())
	}
	if err := pending.CloseAtomicallyReplace(); err != nil {
		return errors.Join(err, pending.Cleanup())
	}
	return nil
}

func writeTo(file string, fill func(*os.File) error) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(fill(f), f.Close())
}
