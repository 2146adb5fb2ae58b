package packstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// crash returns a copy of a store's directory as the disk has it after the machine
// failed: of packs that were put, only what was waited for is sure to be there.
func crash(t *testing.T, dir string, lose func(path string)) string {
	t.Helper()
	after := t.TempDir()
	must(t, os.CopyFS(after, os.DirFS(dir)))
	must(t, filepath.WalkDir(after, func(path string, e os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".pack") {
			lose(path)
		}
		return err
	}))
	return after
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestASmallPackSurvivesACrashOfTheMachine(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*testing.T, string){
		"its name is lost":  func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"its bytes are":     func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) },
		"some of them are":  func(t *testing.T, path string) { must(t, os.Truncate(path, 3)) },
		"they are zeros":    func(t *testing.T, path string) { must(t, os.WriteFile(path, make([]byte, 5), 0o600)) },
		"its directory is":  func(t *testing.T, path string) { must(t, os.RemoveAll(filepath.Dir(path))) },
		"nothing is at all": func(*testing.T, string) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			d := openDisk(t, dir)
			put(t, d, "first", "12345")
			put(t, d, "empty", "")
			put(t, d, "second", "67890")
			after := crash(t, dir, func(path string) { lose(t, path) })
			for range 2 { // to replay it again changes nothing
				again := openDisk(t, after)
				want(t, again, "first", []byte("12345"), 0, 5)
				want(t, again, "second", []byte("67890"), 0, 5)
				if n, err := again.Size(t.Context(), "empty"); n != 0 || err != nil {
					t.Errorf("the empty pack: %d bytes, %v", n, err)
				}
			}
			if left := incoming(t, after); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func incoming(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "incoming"))
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// As many packs as fill the journal many times over, from several writers, of
// which some are deleted: after a crash at any time, what was put is there, for it
// is either still in the journal or its file was waited for.
func TestPacksSurviveACrashHoweverManyThereAre(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := openDisk(t, dir)
	const writers, each = 4, 120
	body := func(name string) []byte { return bytes.Repeat([]byte(name), 10_000) }
	var g errgroup.Group
	for w := range writers {
		g.Go(func() error {
			for i := range each {
				name := fmt.Sprintf("w%dp%d", w, i)
				b := body(name)
				if err := d.Put(t.Context(), name, int64(len(b)), bytes.NewReader(b)); err != nil {
					return err
				}
				if i%10 == 0 {
					if err := d.Delete(t.Context(), name); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	must(t, g.Wait())
	must(t, d.Close())
	if left := incoming(t, dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	again := openDisk(t, dir)
	for w := range writers {
		for i := range each {
			name := fmt.Sprintf("w%dp%d", w, i)
			if i%10 == 0 {
				if _, err := again.Size(t.Context(), name); !errors.Is(err, packstore.ErrNotFound) {
					t.Errorf("%s was deleted: %v", name, err)
				}
				continue
			}
			want(t, again, name, body(name), 0, len(body(name)))
		}
	}
}

func TestADeletedPackStaysDeletedWhenTheServerIsKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := openDisk(t, dir)
	put(t, d, "a", "12345")
	put(t, d, "b", "12345")
	must(t, d.Delete(t.Context(), "a"))
	again := openDisk(t, crash(t, dir, func(string) {}))
	if _, err := again.Size(t.Context(), "a"); !errors.Is(err, packstore.ErrNotFound) {
		t.Errorf("it is back: %v", err)
	}
	want(t, again, "b", []byte("12345"), 0, 5)
}

// Another process, such as one that collects, opens the store of a running server.
func TestAJournalInUseIsLeftAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := openDisk(t, dir)
	put(t, d, "a", "12345")
	before := incoming(t, dir)
	other := openDisk(t, dir)
	put(t, other, "b", "67890")
	must(t, other.Close())
	if after := incoming(t, dir); len(before) != 1 || len(after) != 1 || before[0] != after[0] {
		t.Errorf("the journals were %q and are %q", before, after)
	}
	put(t, d, "c", "12345")
	after := openDisk(t, crash(t, dir, func(path string) { must(t, os.Remove(path)) }))
	want(t, after, "a", []byte("12345"), 0, 5)
	want(t, after, "c", []byte("12345"), 0, 5)
	want(t, d, "b", []byte("67890"), 0, 5)
}

// A journal that a crash cut anywhere, or that the disk damaged, restores the packs
// before that place, and no wrong bytes.
func TestADamagedJournalRestoresWhatComesBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := openDisk(t, dir)
	const packs = 20
	for i := range packs {
		put(t, d, fmt.Sprintf("p%d", i), strings.Repeat("x", 1000*i))
	}
	journal := incoming(t, dir)[0]
	random := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		after := crash(t, dir, func(path string) { must(t, os.Remove(path)) })
		path := filepath.Join(after, "incoming", journal)
		b, err := os.ReadFile(path)
		must(t, err)
		at := random.IntN(300_000)
		b[at] ^= 0x55
		must(t, os.WriteFile(path, b, 0o600))
		again := openDisk(t, after)
		held := 0
		must(t, again.List(t.Context(), func(name string, size int64) error {
			held++
			var i int
			if _, err := fmt.Sscanf(name, "p%d", &i); err != nil || size != int64(1000*i) {
				t.Errorf("with byte %d changed: pack %s of %d bytes", at, name, size)
			}
			want(t, again, name, []byte(strings.Repeat("x", 1000*i)), 0, int(size))
			return nil
		}))
		for i := range held {
			if _, err := again.Size(t.Context(), fmt.Sprintf("p%d", i)); err != nil {
				t.Errorf("with byte %d changed, of %d packs: %v", at, held, err)
			}
		}
	}
}
