package chaos

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
)

// smallDisk is a directory on a file system of that many bytes.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount the small file system that is to be full")
	}
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes))
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skipf("this container may not mount the small file system that is to be full: %v", err)
	}
	must(t, err)
	t.Cleanup(func() {
		// Lazily: whatever still has a file open must not keep the directory.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves no more than that many bytes free.
func fill(t *testing.T, dir string, free int64) {
	t.Helper()
	ballast := filepath.Join(dir, "ballast")
	must(t, os.RemoveAll(ballast))
	f, err := os.Create(ballast)
	must(t, err)
	block := make([]byte, 4<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	info, err := f.Stat()
	must(t, err)
	must(t, f.Truncate(max(0, info.Size()-free)))
	must(t, f.Close())
}

// A full disk refuses pushes, and says so; what is there is served, and once
// there is room pushes go on, all without a restart.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	program(t)
	dir := smallDisk(t, 48<<20)
	s := diskIn(dir)
	v := s.start(t, 0)
	items := loose(t.Name(), 60)
	held, rest := items[:5], items[5:]
	v.mustPut(t, held...)
	var refused []*item
	for _, free := range []int64{0, 0, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 2 << 20} {
		fill(t, dir, free)
		for _, it := range rest[:5] {
			_, err := v.put(t.Context(), it)
			var status *push.StatusError
			switch {
			case err == nil:
				held = append(held, it)
			case errors.As(err, &status) && status.Status == http.StatusInsufficientStorage &&
				status.Body.Code == push.CodeNoSpace && strings.Contains(status.Body.Message, "no space left"):
				refused = append(refused, it)
				if err := v.fetch(t.Context(), it); !errors.Is(err, errGone) {
					t.Errorf("%s was refused, and then: %v", it.base, err)
				}
			default:
				t.Fatalf("with %d bytes free, %s of %d: %v\n%s", free, it.base, it.info.NarSize, err, v.log.notable())
			}
		}
		rest = rest[5:]
		v.mustServe(t, held...)
	}
	if len(refused) == 0 {
		t.Error("nothing was refused")
	}
	must(t, os.Remove(filepath.Join(dir, "ballast")))
	v.mustPut(t, append(refused, rest...)...)
	v.mustServe(t, held...)
	must(t, v.check())
	v.stop(t)
	if n, bytes := halfWritten(t, filepath.Join(dir, "packs", "incoming")); n != 0 {
		t.Errorf("%d half-written packs of %d bytes are left", n, bytes)
	}
	s.mustRun(t, "fsck")
	v = s.start(t, 0)
	v.mustServe(t, items...)
}
