// Package queue is what a watcher is to remember when it is killed: how far it
// has read Nix's database, and which of the paths that it saw are not in the
// cache yet. It is a file for each pair of a store and a cache.
//
// What the file says is never ahead of the truth: a path is in it, or its row
// lies behind the cursor that is in it, until the cache holds the path. So a
// watcher that goes on from it misses nothing, and at worst asks again about
// paths that the cache holds.
package queue

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/filelock"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/atomicfile"
)

// ErrLocked is wrapped by Open when another process has the queue open.
var ErrLocked = errors.New("another flywheel watches this store for this cache")

// schema is the version of the file's form.
const schema = 1

// state is the file's contents.
type state struct {
	Schema     int      `json:"schema"`
	Store      string   `json:"store"` // directory of Nix's database
	Cache      string   `json:"cache"` // URL
	Cursor     int64    `json:"cursor"`
	Unfinished []string `json:"unfinished"`
	// Temporary: the queue is to go once nothing is unfinished.
	Temporary bool `json:"temporary,omitempty"`
}

// Queue is an open queue. Its methods may be called by several goroutines at
// once.
type Queue struct {
	file string
	lock *os.File
	// Fresh: there was nothing to go on from, and Cursor is 0.
	Fresh bool

	mu         sync.Mutex
	store      string
	cache      string
	cursor     int64
	unfinished map[string]bool
	temporary  bool
	dirty      bool
}

// Dir is where queues lie: flywheel in $XDG_STATE_HOME, which is ~/.local/state
// where it is not set (XDG Base Directory Specification).
func Dir() (string, error) {
	dir := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("neither XDG_STATE_HOME nor HOME is set: say with --state where the queue is to be kept: %w", err)
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(dir, "flywheel", "watch"), nil
}

// Open opens the queue of a store and a cache in a directory, which is made
// where it is missing. A file that cannot be read as a queue is an error, and is
// left as it is.
func Open(dir, store, cache string) (*Queue, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the queue: %w", err)
	}
	sum := sha256.Sum256([]byte(store + "\x00" + cache))
	q := &Queue{
		file: filepath.Join(dir, hex.EncodeToString(sum[:8])+".json"), store: store, cache: cache,
		unfinished: map[string]bool{},
	}
	lock, err := filelock.Open(q.file + ".lock")
	if errors.Is(err, filelock.ErrHeld) {
		return nil, fmt.Errorf("%w: %s is locked", ErrLocked, q.file)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the queue: %w", err)
	}
	q.lock = lock
	if err := q.read(); err != nil {
		_ = filelock.Release(lock)
		return nil, err
	}
	return q, nil
}

func (q *Queue) read() error {
	text, err := os.ReadFile(q.file)
	if errors.Is(err, fs.ErrNotExist) {
		q.Fresh = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the queue: %w", err)
	}
	s, err := parse(text)
	if err != nil {
		return fmt.Errorf("reading the queue: %s: %w; delete it to begin anew", q.file, err)
	}
	q.cursor, q.temporary = s.Cursor, s.Temporary
	for _, p := range s.Unfinished {
		q.unfinished[p] = true
	}
	return nil
}

func parse(text []byte) (state, error) {
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return s, err
	}
	if s.Schema != schema {
		return s, fmt.Errorf("it is of version %d, this flywheel knows %d", s.Schema, schema)
	}
	if s.Cursor < 0 {
		return s, fmt.Errorf("its cursor is %d", s.Cursor)
	}
	return s, nil
}

// Cursor is the highest id of which the queue knows.
func (q *Queue) Cursor() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.cursor
}

// Unfinished returns the paths that the cache is not known to hold, sorted.
func (q *Queue) Unfinished() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Sorted(maps.Keys(q.unfinished))
}

// Saw says that a path became valid; wanted, that the cache is to hold it. Its
// row has the id; 0 where that is unknown.
func (q *Queue) Saw(id int64, path string, wanted bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.cursor = max(q.cursor, id)
	if wanted {
		q.unfinished[path] = true
	}
	q.dirty = true
}

// Done says that the cache holds a path, or that it is not to hold it any more.
func (q *Queue) Done(path string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.unfinished[path] {
		delete(q.unfinished, path)
		q.dirty = true
	}
}

// Reset begins at a cursor, as if there had been no queue.
func (q *Queue) Reset(cursor int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.cursor, q.dirty = cursor, true
	clear(q.unfinished)
}

// Keep says whether the queue is for good. One that is not is Temporary.
func (q *Queue) Keep(keep bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.temporary == keep {
		q.temporary, q.dirty = !keep, true
	}
}

// Temporary says whether the queue is to be removed once nothing is unfinished.
func (q *Queue) Temporary() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.temporary
}

// Save writes what has changed since it was written last, whole or not at all.
func (q *Queue) Save() error {
	q.mu.Lock()
	if !q.dirty {
		q.mu.Unlock()
		return nil
	}
	s := state{
		Schema: schema, Store: q.store, Cache: q.cache, Cursor: q.cursor,
		Unfinished: slices.Sorted(maps.Keys(q.unfinished)), Temporary: q.temporary,
	}
	q.dirty = false
	q.mu.Unlock()
	if s.Unfinished == nil {
		s.Unfinished = []string{} // [] in JSON, not null
	}
	err := write(q.file, s)
	if err != nil {
		q.mu.Lock()
		q.dirty = true
		q.mu.Unlock()
		return fmt.Errorf("saving the queue: %w", err)
	}
	return nil
}

func write(file string, s state) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return atomicfile.Write(file, append(text, '\n'), 0o600)
}

// Remove forgets all that the queue holds, with its file, and closes it.
func (q *Queue) Remove() error {
	err := os.Remove(q.file)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err = errors.Join(err, filelock.Release(q.lock)); err != nil {
		return fmt.Errorf("removing the queue: %w", err)
	}
	return nil
}

// Close saves the queue and lets others open it.
func (q *Queue) Close() error {
	return errors.Join(q.Save(), filelock.Release(q.lock))
}
