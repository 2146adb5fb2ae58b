package packstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/s3test"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// small mounts a file system of that size.
func small(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("packstore", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a full disk needs the right to mount one: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestAFullServerIsNoSpace(t *testing.T) {
	t.Parallel()
	dir := small(t, "6m")
	server := s3test.VersitygwOn(t, dir)
	s := openS3(t, config(t, server))
	put(t, s, "a", "12345")
	big := make([]byte, 8<<20)
	for _, body := range []io.Reader{bytes.NewReader(big), io.MultiReader(bytes.NewReader(big))} {
		if err := s.Put(t.Context(), "big", int64(len(big)), body); !errors.Is(err, packstore.ErrNoSpace) {
			t.Errorf("%v, want ErrNoSpace", err)
		}
	}
	want(t, s, "a", []byte("12345"), 0, 5)
	put(t, s, "b", "12345")
}

// Packs that go through the journal, and those that do not.
func TestAFullDiskIsNoSpace(t *testing.T) {
	t.Parallel()
	dir := small(t, "4m")
	d := openDisk(t, dir)
	put(t, d, "before", "12345")
	fill := filepath.Join(dir, "full")
	if err := os.WriteFile(fill, make([]byte, 8<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	for name, size := range map[string]int64{"small": 40_000, "large": 1 << 20} {
		if err := d.Put(t.Context(), name, size, bytes.NewReader(make([]byte, size))); !errors.Is(err, packstore.ErrNoSpace) {
			t.Errorf("%s: %v, want ErrNoSpace", name, err)
		}
		if _, err := d.Size(t.Context(), name); !errors.Is(err, packstore.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", name, err)
		}
	}
	want(t, d, "before", []byte("12345"), 0, 5)
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // more than the journal has space for here
		body := bytes.Repeat([]byte{byte(i)}, 90_000)
		if err := d.Put(t.Context(), fmt.Sprintf("after%d", i), int64(len(body)), bytes.NewReader(body)); err != nil {
			t.Fatal(err)
		}
	}
	after := openDisk(t, crash(t, dir, func(string) {}))
	for i := range 20 {
		want(t, after, fmt.Sprintf("after%d", i), bytes.Repeat([]byte{byte(i)}, 90_000), 0, 90_000)
	}
}

func TestAFullDiskFailsNoRead(t *testing.T) {
	t.Parallel()
	dir := small(t, "14m") // 3 blocks, where the limit allows 7
	next := newFar(t)
	c := openCached(t, dir, packstore.MinCached, next)
	bodies := map[string][]byte{}
	for i := range 4 {
		name := fmt.Sprintf("p%d", i)
		bodies[name] = putFar(t, c, name, 2*block+i)
		if err := c.Put(t.Context(), "kept"+name, block, bytes.NewReader(make([]byte, block))); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		for name, body := range bodies {
			want(t, c, name, body, 0, len(body))
		}
	}
	if s := c.Stats(); s.Around != 0 || s.Used > 14<<20 {
		t.Errorf("where blocks could make room for others: %+v", s)
	}
	for path := range blockFiles(t, dir) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	fill := filepath.Join(dir, "full")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(make([]byte, 16<<20))
	_ = f.Close()
	if err == nil {
		t.Fatal("the disk is not full")
	}
	for name, body := range bodies {
		want(t, c, name, body, 0, len(body))
	}
	if s := c.Stats(); s.DiskErr == nil || s.Around == 0 {
		t.Errorf("nothing shows of the full disk: %+v", s)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	want(t, c, "p0", bodies["p0"], 0, block)
	before := next.opens.Load()
	want(t, c, "p0", bodies["p0"], 0, block)
	if s := c.Stats(); next.opens.Load() != before || s.DiskErr != nil {
		t.Errorf("with room again, nothing is kept: %+v", s)
	}
}
