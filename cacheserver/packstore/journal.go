package packstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/filelock"
)

const (
	journalPrefix = "journal-"
	// journalHalf is how many bytes of records a half of a journal takes. While
	// packs of one are synced, the other is written.
	journalHalf = 4 << 20
	// maxJournaled is how long a pack may be that is written twice, in bytes: for
	// longer ones that takes longer than to wait for a new file to be durable.
	maxJournaled = 256 << 10
	// journalStep is by how much a half grows. Only a write within what was written
	// before needs no change of the file system's own records to be durable.
	journalStep = 512 << 10
)

// journal makes small packs durable. To sync a new file and the directory that
// names it takes several writes, and the file system does them for one writer after
// the other; to sync bytes that replace others of an old file takes one. So a small
// pack is written to the journal first, and its own file is synced later, with many
// others.
//
// A journal is one file, of one process, which holds a lock on it. Whoever opens
// the pack store next replays one that nobody holds.
type journal struct {
	dir     string                     // of the journal's file
	settle  func(packs []string) error // makes the files of packs durable
	syncing sync.WaitGroup

	mu     sync.Mutex
	f      *os.File // nil before the first record
	broken bool     // no further record is written
	seq    uint64   // of the next record
	active int      // the half that is written
	halves [2]half
}

// half is one of the two parts of a journal's file.
type half struct {
	at       int64    // where the next record goes, from the half's start
	prepared int64    // how many of its bytes were ever written
	packs    []string // that have records here
	settling bool
}

// put makes a pack durable. ok is false where the journal cannot now: the caller
// does it otherwise.
func (j *journal) put(name string, body []byte) (ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.append(record{name: name, body: body})
}

// forget takes a pack back: it was deleted, or never made. That it is known after a
// crash, too, is not promised.
func (j *journal) forget(name string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if slices.Contains(j.halves[0].packs, name) || slices.Contains(j.halves[1].packs, name) {
		j.append(record{name: name, gone: true})
	}
}

// append is called with mu held.
func (j *journal) append(r record) bool {
	if j.broken {
		return false
	}
	if j.f == nil {
		if j.f = j.create(); j.f == nil {
			return false
		}
	}
	r.seq = j.seq
	b := r.encode()
	h := &j.halves[j.active]
	if h.at+int64(len(b)) > journalHalf {
		if !j.turn() {
			return false
		}
		h = &j.halves[j.active]
	}
	if j.write(h, b) != nil {
		return false // no space: the next record is written in its place
	}
	if syncData(j.f) != nil {
		// What is on the disk now is not known. The packs of both halves are synced
		// once it is closed, or replayed.
		j.broken = true
		return false
	}
	j.seq++
	h.at += int64(len(b))
	h.packs = append(h.packs, r.name)
	return true
}

func (j *journal) write(h *half, b []byte) error {
	start := int64(j.active) * journalHalf
	if end := h.at + int64(len(b)); end > h.prepared {
		grown := min(end+journalStep, journalHalf)
		if _, err := j.f.WriteAt(make([]byte, grown-h.prepared), start+h.prepared); err != nil {
			return err
		}
		h.prepared = grown
	}
	_, err := j.f.WriteAt(b, start+h.at)
	return err
}

// create returns nil where there can be no journal now.
func (j *journal) create() *os.File {
	f, err := os.CreateTemp(j.dir, journalPrefix)
	if err != nil {
		return nil
	}
	if held, err := lockJournal(f); !held || err != nil {
		_ = f.Close() // it is removed by who holds it, or replays it next
		return nil
	}
	// The name must survive a crash before any record is counted on.
	if syncFile(j.dir) != nil {
		_ = os.Remove(f.Name())
		_ = filelock.Release(f)
		return nil
	}
	return f
}

// lockJournal takes a journal for this process. It is false for one that another
// has, or had until it removed it.
func lockJournal(f *os.File) (bool, error) {
	if err := filelock.Take(f); errors.Is(err, filelock.ErrHeld) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	opened, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(opened, named), err
}

// turn goes on with the other half, if that is free, and settles the packs of the
// full one meanwhile. It is called with mu held.
func (j *journal) turn() bool {
	other := 1 - j.active
	if len(j.halves[other].packs) > 0 {
		j.settleHalf(other)
		return false
	}
	j.settleHalf(j.active)
	j.active = other
	return true
}

// settleHalf is called with mu held, and goes on without.
func (j *journal) settleHalf(i int) {
	if j.halves[i].settling {
		return
	}
	j.halves[i].settling = true
	packs := j.halves[i].packs
	j.syncing.Go(func() {
		err := j.settle(packs)
		j.mu.Lock()
		defer j.mu.Unlock()
		h := &j.halves[i]
		h.settling = false
		if err != nil {
			return // tried again when the half is needed
		}
		// Records that were settled are not to be replayed when their packs have been
		// deleted. If this is lost in a crash, some are.
		if _, err := j.f.WriteAt(make([]byte, recordAlign), int64(i)*journalHalf); err != nil {
			j.broken = true
			return
		}
		h.at, h.packs = 0, nil
	})
}

// close settles all packs and removes the journal. Where it cannot, the journal
// stays for the next to open the store.
func (j *journal) close() error {
	j.mu.Lock()
	j.broken = true
	j.mu.Unlock()
	j.syncing.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f == nil {
		return nil
	}
	f := j.f
	j.f = nil
	defer func() { _ = filelock.Release(f) }()
	if err := j.settle(append(j.halves[0].packs, j.halves[1].packs...)); err != nil {
		return fmt.Errorf("syncing packs: %w", err)
	}
	return os.Remove(f.Name())
}

// replayJournals restores the packs of journals whose process has ended. restore is
// to make their files what the journal says, and durable.
func replayJournals(dir string, restore func(map[string][]byte) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), journalPrefix) {
			continue
		}
		if err := replayJournal(filepath.Join(dir, e.Name()), restore); err != nil {
			return fmt.Errorf("replaying the journal %s: %w", e.Name(), err)
		}
	}
	return nil
}

func replayJournal(path string, restore func(map[string][]byte) error) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = filelock.Release(f) }()
	if held, err := lockJournal(f); !held || err != nil {
		return err
	}
	packs, err := readJournal(f)
	if err != nil {
		return err
	}
	if err := restore(packs); err != nil {
		return err
	}
	return os.Remove(path)
}
