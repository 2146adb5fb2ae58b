package filelock_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
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
			err = errors.Join(filelock.Wait(f), filelock.Release(f))
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("a lock that is held was taken: %v", err)
	default:
	}
	if err := filelock.Release(first); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	again, err := filelock.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := filelock.Release(again); err != nil {
		t.Error(err)
	}
}

// A child that is just being started has copies of all files that were open when it
// was forked, and with them, for a moment, their locks.
func TestALockThatWasGivenBackIsFreeWhileChildrenAreStarted(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const children = 40
	ended := make(chan error, 1)
	go func() {
		var err error
		for range children {
			err = errors.Join(err, exec.Command(self, "-test.list=^$").Run())
		}
		ended <- err
	}()
	path := filepath.Join(t.TempDir(), "lock")
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
		f, err := filelock.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := filelock.Release(f); err != nil {
			t.Fatal(err)
		}
	}
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
