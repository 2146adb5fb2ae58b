package filelock_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/filelock"
)

func TestALockIsOneHolders(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	first, err := filelock.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := filelock.Open(path); !errors.Is(err, filelock.ErrHeld) {
		t.Errorf("the second one got %v", err)
	}
	got := make(chan error)
	go func() {
		f, err := os.Open(path)
		if err == nil {
			err = errors.Join(filelock.Wait(f), f.Close())
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("a lock that is held was taken: %v", err)
	default:
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	again, err := filelock.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
}

func TestADirectoryIsLocked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var files [2]*os.File
	for i := range files {
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	if err := filelock.Take(files[0]); err != nil {
		t.Error(err)
	}
	if err := filelock.Take(files[1]); !errors.Is(err, filelock.ErrHeld) {
		t.Errorf("the second one got %v", err)
	}
	if _, err := filelock.Open(filepath.Join(dir, "none", "lock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a directory that is not there: %v", err)
	}
}
