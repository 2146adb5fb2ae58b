package collect_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/frametest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

const (
	grace     = cas.DefaultGrace
	retention = nixcache.DefaultRetention
	day       = 24 * time.Hour
)

// emptyIndex is the file of an index with two caches. To make one takes longer
// than most tests.
var emptyIndex []byte

func TestMain(m *testing.M) {
	frametest.Warm()
	if err := makeEmptyIndex(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func makeEmptyIndex(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "collect")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "index.sqlite")
	sqlite, err := index.OpenSQLite(ctx, file)
	if err != nil {
		return err
	}
	for _, cache := range []string{"main", "other"} {
		if _, err := nixcache.EnsureCache(ctx, sqlite, cache, "/nix/store"); err != nil {
			return errors.Join(err, sqlite.Close())
		}
	}
	if err := sqlite.Close(); err != nil {
		return err
	}
	if err := forgetBeginning(ctx, file); err != nil {
		return err
	}
	emptyIndex, err = os.ReadFile(file)
	return err
}

// forgetBeginning makes an index as old as the packs of a bubble, whose clock
// begins before this day.
func forgetBeginning(ctx context.Context, file string) error {
	db, err := sql.Open("sqlite", file)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "DELETE FROM began")
	return errors.Join(err, db.Close())
}

// rig is a server's insides over a directory. It lives in a bubble, in which
// months pass in no time.
type rig struct {
	dir   string
	packs *packs
	index *idx
	store *cas.Store
	door  *nixcache.Door
	log   *text
}

// hook stands between a caller and an engine: work is the engine's call.
type hook func(call string, work func() error) error

// hooked is an engine's place for a hook.
type hooked struct{ atomic.Pointer[hook] }

func (h *hooked) do(call string, work func() error) error {
	if h := h.Load(); h != nil {
		return (*h)(call, work)
	}
	return work()
}

type packs struct {
	packstore.Store
	hook hooked
}

func (p *packs) Put(ctx context.Context, name string, size int64, body io.Reader) error {
	return p.hook.do("Put", func() error { return p.Store.Put(ctx, name, size, body) })
}

func (p *packs) Open(ctx context.Context, name string, offset, length int64) (r io.ReadCloser, err error) {
	err = p.hook.do("Open", func() error { r, err = p.Store.Open(ctx, name, offset, length); return err })
	if err != nil && r != nil {
		_ = r.Close()
	}
	return r, err
}

func (p *packs) Delete(ctx context.Context, name string) error {
	return p.hook.do("Delete", func() error { return p.Store.Delete(ctx, name) })
}

func (p *packs) List(ctx context.Context, visit func(string, int64) error) error {
	return p.hook.do("List", func() error { return p.Store.List(ctx, visit) })
}

type idx struct {
	index.Index
	hook hooked
}

func (x *idx) Update(ctx context.Context, change func(index.Tx) error) error {
	return x.hook.do("Update", func() error { return x.Index.Update(ctx, change) })
}

func (x *idx) ChunksIn(ctx context.Context, pack string) (l []index.Location, err error) {
	return l, x.hook.do("ChunksIn", func() error { l, err = x.Index.ChunksIn(ctx, pack); return err })
}

func (x *idx) Caches(ctx context.Context) (c []index.Cache, err error) {
	return c, x.hook.do("Caches", func() error { c, err = x.Index.Caches(ctx); return err })
}

func (x *idx) PathsByUse(ctx context.Context, cache int64, before time.Time, after index.UsedPath, limit int) (p []index.UsedPath, err error) {
	return p, x.hook.do("PathsByUse", func() error { p, err = x.Index.PathsByUse(ctx, cache, before, after, limit); return err })
}

func (x *idx) Packs(ctx context.Context, after string, limit int) (p []index.Pack, err error) {
	return p, x.hook.do("Packs", func() error { p, err = x.Index.Packs(ctx, after, limit); return err })
}

func (x *idx) Stored(ctx context.Context) (total, dead int64, err error) {
	return total, dead, x.hook.do("Stored", func() error { total, dead, err = x.Index.Stored(ctx); return err })
}

// text is a log that several goroutines may write.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *text) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(b)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// bubble runs a test on a new rig, in a bubble.
func bubble(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, openAt(t, t.TempDir())) })
}

func openAt(t testing.TB, dir string) *rig {
	t.Helper()
	disk, err := packstore.OpenDisk(filepath.Join(dir, "packs"))
	must(t, err)
	file := filepath.Join(dir, "index.sqlite")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		must(t, os.WriteFile(file, emptyIndex, 0o600))
	}
	sqlite, err := index.OpenSQLite(t.Context(), file)
	must(t, err)
	r := &rig{dir: dir, packs: &packs{Store: disk}, index: &idx{Index: sqlite}, log: &text{}}
	r.store = cas.New(r.packs, r.index, grace)
	r.door = r.newDoor()
	t.Cleanup(func() {
		r.store.Close()
		must(t, sqlite.Close())
	})
	return r
}

func (r *rig) logger() *slog.Logger { return slog.New(slog.NewTextHandler(r.log, nil)) }

func (r *rig) newDoor() *nixcache.Door {
	return nixcache.New(r.store, r.index, nixcache.Config{DefaultCache: "main", Log: r.logger()})
}

// tb is what *testing.T and *rapid.T have in common.
type tb interface {
	rapid.TB
	Context() context.Context
}

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hook sets the hook of both engines.
func (r *rig) hook(h hook) {
	r.packs.hook.Store(&h)
	r.index.hook.Store(&h)
}

func (r *rig) unhook() {
	r.packs.hook.Store(nil)
	r.index.hook.Store(nil)
}

// recordUses writes down what was read through the door.
func (r *rig) recordUses(t tb) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, r.door.RecordUses(ctx))
}

func (r *rig) collector(maxSize int64) *collect.Collector {
	return collect.New(r.store, r.packs, r.index, collect.Policy{Grace: grace, MaxSize: maxSize}, r.logger())
}

// collect collects once.
func (r *rig) collect(t tb, maxSize int64) collect.Report {
	t.Helper()
	report, err := r.collector(maxSize).Run(t.Context())
	must(t, err)
	return report
}

func (r *rig) cacheID(t tb, name string) int64 {
	t.Helper()
	c, err := r.index.Cache(t.Context(), name)
	must(t, err)
	return c.ID
}

func (r *rig) update(t tb, change func(index.Tx) error) {
	t.Helper()
	must(t, r.index.Update(t.Context(), change))
}

func (r *rig) setRetention(t tb, cache string, d time.Duration) {
	t.Helper()
	id := r.cacheID(t, cache)
	r.update(t, func(tx index.Tx) error { return tx.SetRetention(id, d) })
}

// pin pins a path until expires from now, or for ever if that is 0.
func (r *rig) pin(t tb, cache, name string, p *path, expires time.Duration) {
	t.Helper()
	pin := index.Pin{CacheID: r.cacheID(t, cache), Name: name, Hash: p.hash()}
	if expires != 0 {
		pin.Expires = time.Now().Add(expires)
	}
	r.update(t, func(tx index.Tx) error { return tx.AddPin(pin, 1) })
}

// wantServed looks through a door of its own, so that it is no use.
func (r *rig) wantServed(t tb, cache string, paths ...*path) {
	t.Helper()
	for _, p := range paths {
		if err := served(r.newDoor(), cache, p); err != nil {
			t.Error(err)
		}
	}
}

// wantGone checks that nothing of the paths can be seen.
func (r *rig) wantGone(t tb, cache string, paths ...*path) {
	t.Helper()
	d := r.newDoor()
	for _, p := range paths {
		for _, route := range []string{p.hash() + ".narinfo", "nar/" + p.info.NarHash.Nix32() + ".nar.zst"} {
			if w := ask(d, http.MethodGet, "/"+cache+"/"+route, nil); w.Code != http.StatusNotFound {
				t.Errorf("%s, %s: %d, want 404", p.base(), route, w.Code)
			}
		}
	}
}

// has is true when a cache's index has the path.
func (r *rig) has(t tb, cache string, p *path) bool {
	t.Helper()
	_, err := r.index.Path(t.Context(), r.cacheID(t, cache), p.hash())
	if err != nil && !errors.Is(err, index.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// files are the packs on disk, by name.
func (r *rig) files(t tb) map[string]string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(r.dir, "packs", "*", "*.pack"))
	must(t, err)
	files := map[string]string{}
	for _, f := range found {
		files[strings.TrimSuffix(filepath.Base(f), ".pack")] = f
	}
	return files
}

// wantNothing checks that neither index nor disk holds anything.
func (r *rig) wantNothing(t tb) {
	t.Helper()
	u, err := r.index.Usage(t.Context())
	if err != nil || u != (index.Usage{}) {
		t.Errorf("the index holds %+v, %v", u, err)
	}
	if f := r.files(t); len(f) != 0 {
		t.Errorf("files are left: %v", f)
	}
}

func wantErr(t rapid.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func drain(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
