package packstore

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"
)

// FuzzReadHalf guards against a journal that a crash, or anybody, wrote: it is
// read without fault, and names no pack that a store would not take.
func FuzzReadHalf(f *testing.F) {
	one := record{seq: 1, name: "a", body: []byte("12345")}.encode()
	two := record{seq: 2, name: "b", body: bytes.Repeat([]byte("x"), 5000)}.encode()
	gone := record{seq: 3, name: "a", gone: true}.encode()
	f.Add([]byte{})
	f.Add(one)
	f.Add(bytes.Join([][]byte{one, two, gone}, nil))
	f.Add(two[:5000])
	f.Fuzz(func(t *testing.T, b []byte) {
		_, packs := readHalf(b)
		for name, body := range packs {
			if CheckName(name) != nil || len(body) > len(b) {
				t.Errorf("pack %q of %d bytes", name, len(body))
			}
		}
	})
}

func TestReadJournalTakesTheRecordsThatFollowOneAnother(t *testing.T) {
	t.Parallel()
	put := func(seq uint64, name, body string) []byte {
		return record{seq: seq, name: name, body: []byte(body)}.encode()
	}
	other := func(first, second []byte) []byte {
		return append(append(first, make([]byte, journalHalf-len(first))...), second...)
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, test := range map[string]struct {
		journal []byte
		want    map[string]string
	}{
		"nothing":                  {nil, nil},
		"one":                      {put(7, "a", "1"), map[string]string{"a": "1"}},
		"one from an earlier use":  {join(put(9, "c", "3"), put(8, "b", "2")), map[string]string{"c": "3"}},
		"a gap":                    {join(put(1, "a", "1"), put(3, "c", "3")), map[string]string{"a": "1"}},
		"both halves":              {other(put(1, "a", "1"), put(2, "b", "2")), map[string]string{"a": "1", "b": "2"}},
		"the later one counts":     {other(put(6, "a", "later"), put(5, "a", "earlier")), map[string]string{"a": "later"}},
		"gone":                     {join(put(1, "a", "1"), record{seq: 2, name: "a", gone: true}.encode()), nil},
		"gone, in the other half":  {other(record{seq: 2, name: "a", gone: true}.encode(), put(1, "a", "1")), nil},
		"gone, and there again":    {join(put(1, "a", "1"), record{seq: 2, name: "a", gone: true}.encode(), put(3, "a", "3")), map[string]string{"a": "3"}},
		"the first one was synced": {join(make([]byte, recordAlign), put(2, "b", "2")), nil},
		"a name no store takes":    {put(1, "../a", "1"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := readJournal(bytes.NewReader(test.journal))
			if err != nil || len(got) != len(test.want) {
				t.Errorf("%d packs, error %v, want %d", len(got), err, len(test.want))
			}
			for name, body := range test.want {
				if string(got[name]) != body {
					t.Errorf("%s is %q, want %q", name, got[name], body)
				}
			}
		})
	}
}

// A half takes records that end exactly where it does, and no longer ones.
func TestJournalTurnsWhereAHalfIsFull(t *testing.T) {
	t.Parallel()
	settled := make(chan []string, 4)
	j := &journal{dir: t.TempDir(), settle: func(packs []string) error {
		settled <- packs
		return nil
	}}
	body := []byte(strings.Repeat("x", 128<<10-recordHeader-1))
	const fill = journalHalf / (128 << 10)
	for range fill {
		if !j.put("a", body) {
			t.Fatal("a record was not taken")
		}
	}
	if len(settled) > 0 {
		t.Error("settled before the half was full")
	}
	if !j.put("b", body) {
		t.Fatal("the other half was not taken")
	}
	if packs := <-settled; len(packs) != fill {
		t.Errorf("%d packs settled, want %d", len(packs), fill)
	}
	j.syncing.Wait()
	info, err := j.f.Stat()
	if err != nil || info.Size() > 2*journalHalf {
		t.Errorf("the journal: %v, %v", info, err)
	}
	packs, err := readJournal(j.f)
	if err != nil || len(packs) != 1 || len(packs["b"]) != len(body) {
		t.Errorf("to replay: %d packs, %v", len(packs), err)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	if j.put("c", body) {
		t.Error("a closed journal takes records")
	}
}

// While the other half cannot be synced, packs are made durable without a journal.
func TestAJournalThatCannotBeSettledTakesNoMore(t *testing.T) {
	t.Parallel()
	fault := &journal{dir: t.TempDir(), settle: func([]string) error { return bytes.ErrTooLarge }}
	body := make([]byte, maxJournaled)
	taken := 0
	for range 3 * journalHalf / maxJournaled {
		if fault.put("a", body) {
			taken++
		}
	}
	if most := 2 * (journalHalf / (maxJournaled + recordAlign)); taken > most {
		t.Errorf("%d records were taken, of which %d have room", taken, most)
	}
	fault.syncing.Wait()
	packs, err := readJournal(fault.f)
	if err != nil || len(packs) != 1 {
		t.Errorf("to replay: %d packs, %v", len(packs), err)
	}
	if err := fault.close(); err == nil {
		t.Error("closed without a word, though packs were not synced")
	}
	if packs, err = readJournal(openOnly(t, fault.dir)); err != nil || len(packs) != 1 {
		t.Errorf("to replay after it was closed: %d packs, %v", len(packs), err)
	}
}

// openOnly opens the only file of a directory.
func openOnly(t *testing.T, dir string) *os.File {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	f, err := os.Open(filepath.Join(dir, entries[0].Name()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// Whoever opens a store may come upon a journal that was made a moment ago, or that
// another is about to remove.
func TestAJournalBelongsToOneProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := &journal{dir: dir, settle: func([]string) error { return nil }}
	if !j.put("a", []byte("12345")) {
		t.Fatal("a record was not taken")
	}
	other := openOnly(t, dir)
	if held, err := lockJournal(other); held || err != nil {
		t.Errorf("a journal in use: %v, %v", held, err)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	if held, err := lockJournal(other); held || err != nil {
		t.Errorf("a journal that was removed: %v, %v", held, err)
	}
}

// A process that opens the store may lock a journal between its making and its
// maker's lock. It alone removes it then.
func TestAJournalIsRemovedByWhoHoldsIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var made atomic.Bool
	var g errgroup.Group
	g.Go(func() error {
		defer made.Store(true)
		for range 200 {
			j := &journal{dir: dir, settle: func([]string) error { return nil }}
			j.put("a", []byte("12345"))
			if err := j.close(); err != nil {
				return err
			}
		}
		return nil
	})
	for range 2 {
		g.Go(func() error {
			for !made.Load() {
				if err := replayJournals(dir, func(map[string][]byte) error { return nil }); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if err := replayJournals(dir, func(map[string][]byte) error { return nil }); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}
