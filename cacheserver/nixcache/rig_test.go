package nixcache_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/frametest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

func TestMain(m *testing.M) {
	frametest.Warm()
	os.Exit(m.Run())
}

// rig is a door over engines that can be made to fail at every call.
type rig struct {
	*nixcache.Door
	dir    string
	disk   *packstore.Disk
	sqlite *index.SQLite
	packs  *faultyPacks
	index  *faultyIndex
	store  *cas.Store
	log    *logText
}

type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type faultyPacks struct {
	packstore.Store
	fault atomic.Pointer[error]
}

func (p *faultyPacks) failure() error {
	if err := p.fault.Load(); err != nil {
		return fmt.Errorf("asking the storage: %w", *err)
	}
	return nil
}

func (p *faultyPacks) Put(ctx context.Context, name string, size int64, body io.Reader) error {
	if err := p.failure(); err != nil {
		return err
	}
	return p.Store.Put(ctx, name, size, body)
}

func (p *faultyPacks) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if err := p.failure(); err != nil {
		return nil, err
	}
	return p.Store.Open(ctx, name, offset, length)
}

type faultyIndex struct {
	index.Index
	fault     atomic.Pointer[error]
	afterBlob atomic.Pointer[func()] // called once, when a blob was looked up
}

func (x *faultyIndex) failure() error {
	if err := x.fault.Load(); err != nil {
		return fmt.Errorf("asking the index: %w", *err)
	}
	return nil
}

func (x *faultyIndex) Update(ctx context.Context, change func(index.Tx) error) error {
	if err := x.failure(); err != nil {
		return err
	}
	return x.Index.Update(ctx, change)
}

func (x *faultyIndex) Locate(ctx context.Context, chunks []digest.Hash) ([]index.Location, error) {
	if err := x.failure(); err != nil {
		return nil, err
	}
	return x.Index.Locate(ctx, chunks)
}

func (x *faultyIndex) Blob(ctx context.Context, d digest.Digest) (index.Blob, error) {
	if err := x.failure(); err != nil {
		return index.Blob{}, err
	}
	b, err := x.Index.Blob(ctx, d)
	if after := x.afterBlob.Swap(nil); after != nil {
		(*after)()
	}
	return b, err
}

func (x *faultyIndex) Chunks(ctx context.Context, blob int64, from, limit int) ([]index.Location, error) {
	if err := x.failure(); err != nil {
		return nil, err
	}
	return x.Index.Chunks(ctx, blob, from, limit)
}

func (x *faultyIndex) Extents(ctx context.Context, blob int64) ([]index.Extent, error) {
	if err := x.failure(); err != nil {
		return nil, err
	}
	return x.Index.Extents(ctx, blob)
}

func (x *faultyIndex) Cache(ctx context.Context, name string) (index.Cache, error) {
	if err := x.failure(); err != nil {
		return index.Cache{}, err
	}
	return x.Index.Cache(ctx, name)
}

func (x *faultyIndex) Path(ctx context.Context, cache int64, hash string) (index.Path, error) {
	if err := x.failure(); err != nil {
		return index.Path{}, err
	}
	return x.Index.Path(ctx, cache, hash)
}

func (x *faultyIndex) NAR(ctx context.Context, cache int64, narHash digest.Hash) (index.Blob, error) {
	if err := x.failure(); err != nil {
		return index.Blob{}, err
	}
	return x.Index.NAR(ctx, cache, narHash)
}

func (x *faultyIndex) MissingPaths(ctx context.Context, cache int64, hashes []string, before time.Time) (missing, stale []string, err error) {
	if err := x.failure(); err != nil {
		return nil, nil, err
	}
	return x.Index.MissingPaths(ctx, cache, hashes, before)
}

func openRig(t testing.TB) *rig {
	t.Helper()
	return openRigWith(t, nixcache.Config{}, func(p packstore.Store) packstore.Store { return p })
}

// openRigWith opens a rig whose packs are wrapped once more.
func openRigWith(t testing.TB, c nixcache.Config, wrap func(packstore.Store) packstore.Store) *rig {
	t.Helper()
	dir := t.TempDir()
	disk, err := packstore.OpenDisk(filepath.Join(dir, "packs"))
	must(t, err)
	sqlite, err := index.OpenSQLite(t.Context(), filepath.Join(dir, "index.sqlite"))
	must(t, err)
	_, err = nixcache.EnsureCache(t.Context(), sqlite, "main", "/nix/store")
	must(t, err)
	r := &rig{dir: dir, disk: disk, sqlite: sqlite, packs: &faultyPacks{Store: disk}, index: &faultyIndex{Index: sqlite}, log: &logText{}}
	r.store = cas.New(wrap(r.packs), r.index, cas.DefaultGrace)
	t.Cleanup(func() {
		r.Close()
		r.store.Close()
		must(t, sqlite.Close())
	})
	c.DefaultCache, c.Log = "main", slog.New(slog.NewTextHandler(r.log, nil))
	r.Door = nixcache.New(r.store, r.index, c)
	return r
}

// again is a door that knows nothing yet.
func (r *rig) again() *rig {
	r2 := *r
	r2.Door = nixcache.New(r.store, r.index, nixcache.Config{DefaultCache: "main", Log: slog.New(slog.NewTextHandler(r.log, nil))})
	return &r2
}

// answer is a recorded answer; broken is true when it was broken off.
type answer struct {
	*httptest.ResponseRecorder
	broken bool
}

func (r *rig) ask(method, route string, body []byte, header ...string) (a answer) {
	a.ResponseRecorder = httptest.NewRecorder()
	req := httptest.NewRequest(method, route, bytes.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				panic(p)
			}
			a.broken = true
		}
	}()
	r.Handler().ServeHTTP(a, req)
	return a
}

func (r *rig) get(route string, header ...string) answer {
	return r.ask(http.MethodGet, route, nil, header...)
}

// archive is a store path whose NAR is cut into chunks.
type archive struct {
	info   *narinfo.NarInfo
	plain  []byte
	frames []pack.Frame
}

// newArchive is a path of one file, cut into chunks of size bytes.
func newArchive(t testing.TB, name string, contents []byte, size int) *archive {
	t.Helper()
	on := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(on, contents, 0o600))
	var b bytes.Buffer
	must(t, nar.Dump(&b, on))
	a := &archive{plain: b.Bytes()}
	a.info = &narinfo.NarInfo{
		StorePath: "/nix/store/" + digest.Of([]byte(name)).Nix32()[:storepath.HashLen] + "-" + name,
		NarHash:   digest.Of(a.plain), NarSize: int64(b.Len()),
	}
	for rest := a.plain; len(rest) > 0; {
		piece := rest[:min(size, len(rest))]
		rest = rest[len(piece):]
		a.frames = append(a.frames, pack.Frame{
			Chunk: digest.Chunk{Hash: digest.Of(piece), Size: uint32(len(piece))},
			Data:  frame.Encode(nil, piece),
		})
	}
	return a
}

func (a *archive) narinfo() string {
	return "/" + storepath.Hash(a.info.StorePath) + ".narinfo"
}

func (a *archive) nar() string { return "/nar/" + a.info.NarHash.Nix32() + ".nar.zst" }

// file is the NAR as it is served.
func (a *archive) file() []byte {
	var b []byte
	for _, f := range a.frames {
		b = append(b, f.Data...)
	}
	return b
}

func (a *archive) commit() []byte {
	var chunks []digest.Chunk
	for _, f := range a.frames {
		chunks = append(chunks, f.Chunk)
	}
	return push.AppendCommit(nil, a.info, chunks)
}

// pushArchive pushes a path in packs of so many chunks.
func (r *rig) pushArchive(t testing.TB, a *archive, perPack int) {
	t.Helper()
	for frames := a.frames; len(frames) > 0; {
		var body []byte
		n := min(perPack, len(frames))
		for _, f := range frames[:n] {
			body = push.AppendFrame(body, f)
		}
		frames = frames[n:]
		if w := r.ask(http.MethodPost, "/_push/v1/chunks", body); w.Code != http.StatusNoContent {
			t.Fatalf("chunks: %d %s", w.Code, w.Body)
		}
	}
	if w := r.ask(http.MethodPost, "/_push/v1/paths", a.commit()); w.Code != http.StatusOK {
		t.Fatalf("paths: %d %s", w.Code, w.Body)
	}
}

// wantNAR checks that the whole NAR is answered.
func (r *rig) wantNAR(t testing.TB, a *archive) {
	t.Helper()
	if w := r.get(a.nar()); w.Code != http.StatusOK || w.broken || !bytes.Equal(w.Body.Bytes(), a.file()) {
		t.Errorf("the NAR: %d, broken %v, %d bytes", w.Code, w.broken, w.Body.Len())
	}
}

func (r *rig) packFile(t testing.TB, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(r.dir, "packs", "*", name+".pack"))
	if err != nil || len(found) != 1 {
		t.Fatalf("pack %s: %v, %v", name, found, err)
	}
	return found[0]
}

// spoil damages a chunk on disk.
func (r *rig) spoil(t testing.TB, chunk digest.Hash) {
	t.Helper()
	at, err := r.sqlite.Locate(t.Context(), []digest.Hash{chunk})
	must(t, err)
	f, err := os.OpenFile(r.packFile(t, at[0].Pack), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	// The bytes do not compress, so that each of them is the chunk's.
	middle := at[0].Offset + int64(at[0].Length)/2
	b := make([]byte, 1)
	_, err = f.ReadAt(b, middle)
	must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, middle)
	must(t, err)
}

// forget removes a path with its blob and chunks from the index, as a collection
// does.
func (r *rig) forget(t testing.TB, a *archive) {
	t.Helper()
	must(t, r.sqlite.Update(t.Context(), func(tx index.Tx) error {
		var hashes []digest.Hash
		for _, f := range a.frames {
			hashes = append(hashes, f.Hash)
		}
		_, err := tx.DropChunks(hashes)
		return err
	}))
}

// deletePacks deletes all packs' files.
func (r *rig) deletePacks(t testing.TB) {
	t.Helper()
	var names []string
	must(t, r.disk.List(t.Context(), func(name string, _ int64) error {
		names = append(names, name)
		return nil
	}))
	for _, name := range names {
		must(t, r.disk.Delete(t.Context(), name))
	}
}

// wantLog checks that the log says all of the texts.
func (r *rig) wantLog(t testing.TB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(r.log.String(), text) {
			t.Errorf("the log says nothing of %q:\n%s", text, r.log)
		}
	}
}
