package queue

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func open(t *testing.T, dir string) *Queue {
	t.Helper()
	q, err := Open(dir, "/nix/var/nix/db", "http://cache")
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made")
	q := open(t, dir)
	if !q.Fresh || q.Cursor() != 0 || len(q.Unfinished()) != 0 {
		t.Errorf("a new queue: %v, %d, %q", q.Fresh, q.Cursor(), q.Unfinished())
	}
	q.Saw(7, "/s/b", true)
	q.Saw(8, "/s/passed-over", false)
	q.Saw(6, "/s/a", true)
	q.Saw(9, "/s/sent", true)
	q.Done("/s/sent")
	if err := q.Save(); err != nil {
		t.Fatal(err)
	}
	q.Saw(10, "/s/c", true) // killed before it was saved: the cursor says so
	_ = q.lock.Close()

	q = open(t, dir)
	if q.Fresh || q.Cursor() != 9 || !slices.Equal(q.Unfinished(), []string{"/s/a", "/s/b"}) {
		t.Errorf("after a kill: %v, %d, %q", q.Fresh, q.Cursor(), q.Unfinished())
	}
	q.Reset(3)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, dir)
	defer func() { _ = q.Close() }()
	if q.Cursor() != 3 || len(q.Unfinished()) != 0 {
		t.Errorf("after a reset: %d, %q", q.Cursor(), q.Unfinished())
	}
}

func TestOneWatcherForEachStoreAndCache(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := open(t, dir)
	if _, err := Open(dir, "/nix/var/nix/db", "http://cache"); !errors.Is(err, ErrLocked) {
		t.Errorf("a second one: %v", err)
	}
	other, err := Open(dir, "/nix/var/nix/db", "http://other")
	if err != nil {
		t.Fatalf("for another cache: %v", err)
	}
	if err := errors.Join(other.Close(), q.Close()); err != nil {
		t.Fatal(err)
	}
	if err := open(t, dir).Close(); err != nil {
		t.Error(err)
	}
}

func TestADamagedFileIsNotOverwritten(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "{", `{"schema":2}`, `{"schema":1,"cursor":-1}`} {
		dir := t.TempDir()
		q := open(t, dir)
		if err := os.WriteFile(q.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = q.Close()
		_, err := Open(dir, "/nix/var/nix/db", "http://cache")
		if err == nil || !strings.Contains(err.Error(), "delete it to begin anew") {
			t.Errorf("%q: %v", text, err)
		}
		if left, err := os.ReadFile(q.file); err != nil || string(left) != text {
			t.Errorf("%q became %q, %v", text, left, err)
		}
	}
}

func TestAFailedSaveIsTriedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := open(t, dir)
	q.Saw(1, "/s/a", true)
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := q.Save(); err == nil {
		t.Error("saved into a directory that is gone")
	}
	if err := os.Rename(dir+"-away", dir); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, dir)
	defer func() { _ = q.Close() }()
	if q.Cursor() != 1 {
		t.Error("it was lost")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"schema":1,"cursor":3,"unfinished":["/nix/store/x"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := parse(text); err == nil && (s.Schema != schema || s.Cursor < 0) {
			t.Errorf("%q was taken as %+v", text, s)
		}
	})
}

func TestATemporaryQueueIsKnownAsOneAfterAKillAndGoesWithoutATrace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := open(t, dir)
	q.Keep(false)
	q.Saw(1, "/s/a", true)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, dir)
	if !q.Temporary() {
		t.Error("it is taken for one that is kept")
	}
	if err := q.Remove(); err != nil {
		t.Fatal(err)
	}
	q = open(t, dir)
	defer func() { _ = q.Close() }()
	if !q.Fresh || q.Temporary() {
		t.Error("something was left of it")
	}
}
