package watch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/nixtest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

// patience bounds what these tests wait for on a busy machine.
const patience = 2 * time.Minute

// seen collects what a watcher emits.
type seen struct {
	mu    sync.Mutex
	paths []nix.PathInfo
	more  chan struct{} // has an element when paths grew
}

func newSeen() *seen { return &seen{more: make(chan struct{}, 1)} }

func (s *seen) emit(p nix.PathInfo) {
	s.mu.Lock()
	s.paths = append(s.paths, p)
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *seen) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, p := range s.paths {
		names = append(names, filepath.Base(p.Path)[33:])
	}
	return names
}

// await waits until n paths were seen.
func (s *seen) await(t *testing.T, n int) {
	t.Helper()
	timeout := time.After(patience)
	for len(s.names()) < n {
		select {
		case <-s.more:
		case <-timeout:
			t.Fatalf("%d of %d paths were seen: %q", len(s.names()), n, s.names())
		}
	}
}

func open(t *testing.T, state string) *nix.Database {
	t.Helper()
	db, err := nix.OpenDatabase(t.Context(), nix.Store{Dir: "/nix/store", State: state})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// start runs a watcher until the test ends, or stop is called.
func start(t *testing.T, w *Watcher) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func numbered(from, to int) []string {
	var names []string
	for i := from; i < to; i++ {
		names = append(names, fmt.Sprintf("p%d", i))
	}
	return names
}

func TestSeesEveryPathOnceAndInOrder(t *testing.T) {
	t.Parallel()
	made := nixtest.NewDatabase(t)
	made.Register(t, "before")
	db := open(t, made.State)
	cursor, err := db.Cursor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := newSeen()
	made.Register(t, "between", "before")
	stop := start(t, New(db, cursor, s.emit))
	s.await(t, 1)
	const n = 300
	for i, name := range numbered(0, n) {
		made.Register(t, name, "between", name)
		if i%100 == 0 { // now and then with nothing else going on
			s.await(t, i+2)
		}
	}
	s.await(t, n+1)
	stop()
	if got, want := s.names(), append([]string{"between"}, numbered(0, n)...); !slices.Equal(got, want) {
		t.Errorf("seen were %q", got)
	}
	for i, p := range s.paths {
		if i > 0 && p.ID <= s.paths[i-1].ID {
			t.Errorf("id %d came behind %d", p.ID, s.paths[i-1].ID)
		}
		if i > 0 && !slices.Equal(slices.Sorted(slices.Values(p.References)), slices.Sorted(slices.Values([]string{nixtest.Path("between"), p.Path}))) {
			t.Errorf("%s was seen with the references %q", p.Path, p.References)
		}
	}
}

func TestSeesWhatSeveralBuildsRegister(t *testing.T) {
	t.Parallel()
	made := nixtest.NewDatabase(t)
	s := newSeen()
	stop := start(t, New(open(t, made.State), 0, s.emit))
	const writers, each = 4, 50
	var g sync.WaitGroup
	for w := range writers {
		g.Go(func() {
			for _, name := range numbered(w*each, (w+1)*each) {
				made.Register(t, name)
			}
		})
	}
	g.Wait()
	s.await(t, writers*each)
	stop()
	got := s.names()
	slices.Sort(got)
	want := numbered(0, writers*each)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("seen were %d paths, %q", len(got), got)
	}
	if !slices.IsSortedFunc(s.paths, func(a, b nix.PathInfo) int { return int(a.ID - b.ID) }) {
		t.Error("ids came out of order")
	}
}

// Beside a link to the database nothing changes, so no event ever comes.
func TestSeesPathsWithoutEvents(t *testing.T) {
	t.Parallel()
	made := nixtest.NewDatabase(t)
	state := t.TempDir()
	if err := os.Mkdir(filepath.Join(state, "db"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(made.State, "db", "db.sqlite"), filepath.Join(state, "db", "db.sqlite")); err != nil {
		t.Fatal(err)
	}
	s := newSeen()
	stop := start(t, New(open(t, state), 0, s.emit))
	for i, name := range numbered(0, 3) {
		made.Register(t, name)
		s.await(t, i+1)
	}
	stop()
	if got := s.names(); !slices.Equal(got, numbered(0, 3)) {
		t.Errorf("seen were %q", got)
	}
}

// The kernel drops events when more come than it keeps, and fsnotify says so.
// Those that come later have to ring all the same: the clock is stopped.
func TestSeesPathsAfterEventsWereDropped(t *testing.T) {
	t.Parallel()
	made := nixtest.NewDatabase(t)
	s := newSeen()
	w := New(open(t, made.State), 0, s.emit)
	w.slowTick = time.Hour
	events, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	w.newEvents = func() (*fsnotify.Watcher, error) { return events, nil }
	stop := start(t, w)
	for i, name := range numbered(0, 5) {
		select {
		case events.Errors <- fsnotify.ErrEventOverflow: // what fsnotify itself waits for
		case <-time.After(patience):
			t.Fatal("nobody listens: no more events would come")
		}
		made.Register(t, name)
		awaitRinging(t, s, i+1, w.db.Dir())
	}
	stop()
	if got := s.names(); !slices.Equal(got, numbered(0, 5)) {
		t.Errorf("seen were %q", got)
	}
}

func TestSeesPathsWhereEventsCannotBeHad(t *testing.T) {
	t.Parallel()
	made := nixtest.NewDatabase(t)
	s := newSeen()
	w := New(open(t, made.State), 0, s.emit)
	w.newEvents = func() (*fsnotify.Watcher, error) { return nil, errors.New("too many open files") }
	stop := start(t, w)
	for i, name := range numbered(0, 3) {
		made.Register(t, name)
		s.await(t, i+1)
	}
	stop()
	if got := s.names(); !slices.Equal(got, numbered(0, 3)) {
		t.Errorf("seen were %q", got)
	}
}

func touch(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

// The event of a write comes before the write can be seen, by a sync of the log
// here; there is none after it.
func TestLooksAgainAfterAnEvent(t *testing.T) {
	t.Parallel()
	made := nixtest.NewDatabase(t)
	made.Exec(t, "PRAGMA synchronous = full")
	made.Register(t, "before")
	s := newSeen()
	w := New(open(t, made.State), 0, s.emit)
	w.slowTick = time.Hour
	start(t, w)
	s.await(t, 1) // from here on, events come
	for i, name := range numbered(0, 6) {
		made.Register(t, name)
		s.await(t, i+2)
	}
}

// awaitRinging waits for n paths, and lets events come again and again.
func awaitRinging(t *testing.T, s *seen, n int, dir string) {
	t.Helper()
	timeout := time.After(patience)
	for i := 0; len(s.names()) < n; i++ {
		touch(t, filepath.Join(dir, fmt.Sprintf("ring-%d", i)))
		select {
		case <-s.more:
		case <-time.After(time.Millisecond):
		case <-timeout:
			t.Fatalf("%d of %d paths were seen: events ring no more", len(s.names()), n)
		}
	}
}

func TestSweepGetsTheRest(t *testing.T) {
	t.Parallel()
	made := nixtest.NewDatabase(t)
	s := newSeen()
	w := New(open(t, made.State), 0, s.emit)
	stop := start(t, w)
	made.Register(t, "p0")
	s.await(t, 1)
	stop()
	for _, name := range numbered(1, 5) {
		made.Register(t, name)
	}
	for range 2 { // the second finds nothing
		if err := w.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.names(); !slices.Equal(got, numbered(0, 5)) {
			t.Errorf("seen were %q", got)
		}
	}
}

// Nix gives no id a second time, so one that is collected leaves a gap.
func TestSeesPathsAfterACollection(t *testing.T) {
	t.Parallel()
	made := nixtest.NewDatabase(t)
	made.Register(t, "before")
	made.Register(t, "collected")
	s := newSeen()
	w := New(open(t, made.State), 2, s.emit)
	made.Exec(t, "DELETE FROM ValidPaths WHERE id = 2")
	made.Register(t, "after")
	made.Register(t, "collected")
	if err := w.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.names(); !slices.Equal(got, []string{"after", "collected"}) {
		t.Errorf("seen were %q", got)
	}
}

func TestRunEndsWithAnErrorWhenTheDatabaseCannotBeRead(t *testing.T) {
	t.Parallel()
	made := nixtest.NewDatabase(t)
	made.Register(t, "p0")
	db := open(t, made.State)
	s := newSeen()
	done := make(chan error, 1)
	w := New(db, 0, s.emit)
	go func() { done <- w.Run(t.Context()) }()
	s.await(t, 1)
	made.Exec(t, "DROP TABLE Refs")
	made.Register(t, "p1")
	select {
	case err := <-done:
		if err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want what SQLite says", err)
		}
	case <-time.After(patience):
		t.Error("Run goes on")
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	made := nixtest.NewDatabase(t)
	made.Register(t, "p0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := newSeen()
	if err := New(open(t, made.State), 0, s.emit).Run(ctx); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestWatchesARealStore(t *testing.T) {
	t.Parallel()
	store := nixtest.New(t)
	drvs := store.Instantiate(t, `
		a = step "a" [] "echo > $out";
		b = step "b" [ a ] "echo $needs > $out";
		c = step "c" [ b ] "echo $needs > $out";`, "c")
	db := open(t, store.State)
	cursor, err := db.Cursor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := newSeen()
	stop := start(t, New(db, cursor, s.emit))
	store.Run(t, "nix-store", append([]string{"--realise"}, drvs...)...)
	s.await(t, 3)
	stop()
	if got := s.names(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("seen were %q", got)
	}
}
