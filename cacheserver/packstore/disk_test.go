package packstore_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore/packstoretest"
)

func openDisk(t *testing.T, dir string) *packstore.Disk {
	t.Helper()
	d, err := packstore.OpenDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDiskConformance(t *testing.T) {
	t.Parallel()
	packstoretest.Run(t, func(t *testing.T) (packstore.Store, func() packstore.Store) {
		dir := t.TempDir()
		return openDisk(t, dir), func() packstore.Store { return openDisk(t, dir) }
	})
}

func TestOpeningRemovesOnlyStaleHalfWrittenPacks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openDisk(t, dir)
	old, fresh := filepath.Join(dir, "incoming", "old-1"), filepath.Join(dir, "incoming", "fresh-1")
	for _, f := range []string{old, fresh} {
		if err := os.WriteFile(f, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	twoDaysAgo := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(old, twoDaysAgo, twoDaysAgo); err != nil {
		t.Fatal(err)
	}
	openDisk(t, dir)
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the stale file is still there: %v", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("a file that a writer may still hold was removed: %v", err)
	}
}

func TestDiskOpenGivesTheFileItself(t *testing.T) {
	t.Parallel()
	d := openDisk(t, t.TempDir())
	put(t, d, "a", "12345")
	r, err := d.Open(t.Context(), "a", 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, ok := r.(*os.File); !ok {
		t.Errorf("Open gave a %T: net/http can send only an *os.File without copying", r)
	}
}

func put(t *testing.T, s packstore.Store, name, body string) {
	t.Helper()
	if err := s.Put(t.Context(), name, int64(len(body)), strings.NewReader(body)); err != nil {
		t.Fatal(err)
	}
}
