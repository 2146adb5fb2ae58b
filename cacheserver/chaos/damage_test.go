package chaos

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// exitDamage is fsck's status for damage.
const exitDamage = 3

// flip changes a bit in the middle of a file.
func flip(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	b[len(b)/2] ^= 0x10
	must(t, os.WriteFile(file, b, 0o600))
}

// packFiles are the packs on the disk.
func packFiles(t *testing.T, s *storage) map[string]bool {
	t.Helper()
	files := map[string]bool{}
	must(t, filepath.WalkDir(filepath.Join(s.dir, "packs"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".pack") {
			files[path] = true
		}
		return err
	}))
	return files
}

// damagedStorage has three paths, the second of which is in a pack of its own, in
// which a bit is flipped while nobody looks.
func damagedStorage(t *testing.T, beforeFlip func(s *storage, pack string)) (s *storage, items []*item) {
	t.Helper()
	s = onDisk(t)
	v := s.start(t, 0)
	items = loose("damage", 24)
	items = []*item{items[0], largeOf(items), items[1]}
	v.mustPut(t, items[0])
	before := packFiles(t, s)
	v.mustPut(t, items[1])
	var its []string
	for file := range packFiles(t, s) {
		if !before[file] {
			its = append(its, file)
		}
	}
	if len(its) != 1 {
		t.Fatalf("a path was written as %d packs, want 1", len(its))
	}
	v.mustPut(t, items[2])
	v.stop(t)
	if beforeFlip != nil {
		beforeFlip(s, its[0])
	}
	flip(t, its[0])
	return s, items
}

// largeOf is the first item with more than one chunk, whose pack is nearly all
// frames.
func largeOf(items []*item) *item {
	for _, it := range items[2:] {
		if it.info.NarSize > 300<<10 && it.info.NarSize < 2<<20 {
			return it
		}
	}
	panic("there is none")
}

// A flipped bit is never served as good. The server says which paths it hits and
// serves all others, fsck finds it, and after a repair and another push all is
// well, without a restart of the server.
func TestAFlippedBitIsNeverServed(t *testing.T) {
	t.Parallel()
	program(t)
	s, items := damagedStorage(t, nil)
	hit := items[1]
	if o := s.run(t.Context(), t, "fsck"); o.exit != exitDamage || !strings.Contains(o.stdout, hit.base) {
		t.Errorf("fsck: status %d, want %d and %s named:\n%s%s", o.exit, exitDamage, hit.base, o.stdout, o.stderr)
	}
	v := s.start(t, 0)
	v.mustServe(t, items[0], items[2])
	for range 3 {
		if err := v.fetch(t.Context(), hit); err == nil || errors.Is(err, errCorrupt) || errors.Is(err, errGone) {
			t.Errorf("reading a damaged path: %v, want the server's error or a broken connection", err)
		}
	}
	named := func() bool {
		log := v.log.String()
		return strings.Contains(log, "damaged") && strings.Contains(log, hit.base)
	}
	// What a server says comes by a pipe, and later than its answer.
	for began := time.Now(); !named() && time.Since(began) < 2*time.Minute; {
		time.Sleep(10 * time.Millisecond)
	}
	if !named() {
		t.Errorf("the log does not name %s:\n%s", hit.base, v.log.String())
	}

	o := s.run(t.Context(), t, "fsck", "--repair")
	if o.exit != exitDamage || !strings.Contains(o.stdout, hit.base) || strings.Contains(o.stdout, items[0].base) {
		t.Errorf("fsck --repair: status %d, want %d and only %s named:\n%s%s", o.exit, exitDamage, hit.base, o.stdout, o.stderr)
	}
	v.mustServe(t, items[0], items[2])
	missing, err := v.push.MissingPaths(t.Context(), []string{items[0].hash, hit.hash, items[2].hash})
	must(t, err)
	if len(missing) != 1 || missing[0] != hit.hash {
		t.Errorf("missing after the repair: %q, want %s", missing, hit.hash)
	}
	v.mustPut(t, hit)
	v.mustServe(t, items...)
	s.mustRun(t, "fsck")
	must(t, v.check())
}

// Where another pack has the damaged chunks, a repair loses nothing.
func TestARepairTakesWhatOtherPacksHave(t *testing.T) {
	t.Parallel()
	program(t)
	s, items := damagedStorage(t, func(s *storage, pack string) {
		whole, err := os.ReadFile(pack)
		must(t, err)
		// A backup that somebody put back: its name says that it is old.
		name := "000000000001" + strings.Repeat("ab", 12)
		dir := filepath.Join(s.dir, "packs", name[len(name)-2:])
		must(t, os.MkdirAll(dir, 0o700))
		must(t, os.WriteFile(filepath.Join(dir, name+".pack"), whole, 0o600))
	})
	if o := s.run(t.Context(), t, "fsck"); o.exit != exitDamage {
		t.Errorf("fsck: status %d, want %d:\n%s%s", o.exit, exitDamage, o.stdout, o.stderr)
	}
	v := s.start(t, 0)
	s.mustRun(t, "fsck", "--repair")
	v.mustServe(t, items...)
	s.mustRun(t, "fsck")
	// What is left of the damaged pack is dead and can be collected.
	s.mustRun(t, "gc")
	v.mustServe(t, items...)
	s.mustRun(t, "fsck")
	must(t, v.check())
}

// Collection leaves a damaged pack as it is and goes on with the others: it must
// neither lose them nor make the damage look whole.
func TestCollectionGoesRoundDamage(t *testing.T) {
	t.Parallel()
	program(t)
	s := onDisk(t)
	v := s.start(t, 0)
	var items []*item
	for _, it := range loose(t.Name(), 50) {
		if it.info.NarSize < 300<<10 { // packs below 1 MiB are joined, 32 at least
			items = append(items, it)
			v.mustPut(t, it)
		}
	}
	v.stop(t)
	files := slices.Sorted(maps.Keys(packFiles(t, s)))
	bad := files[len(files)/2]
	flip(t, bad)
	time.Sleep(2 * time.Second) // past the grace
	out := s.mustRun(t, "gc", "--grace", "1s")
	name := strings.TrimSuffix(filepath.Base(bad), ".pack")
	if !strings.Contains(out, name+" is damaged") {
		t.Errorf("it does not name pack %s:\n%s", name, out)
	}
	left := packFiles(t, s)
	if !left[bad] || len(left) > len(files)/2 {
		t.Errorf("of %d packs there are %d, the damaged one: %v", len(files), len(left), left[bad])
	}
	v = s.start(t, 0)
	failed := 0
	for _, it := range items {
		switch err := v.fetch(t.Context(), it); {
		case errors.Is(err, errCorrupt), errors.Is(err, errGone):
			t.Error(err)
		case err != nil:
			failed++
		}
	}
	if failed != 1 {
		t.Errorf("%d paths cannot be read, want 1", failed)
	}
}
