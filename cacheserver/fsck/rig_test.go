package fsck_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/fsck"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/frametest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

func TestMain(m *testing.M) {
	frametest.Warm()
	os.Exit(m.Run())
}

// rig is a store over a directory. It lives in a bubble, in which hours pass in
// no time.
type rig struct {
	dir   string
	packs *packs
	index *idx
	store *cas.Store
	main  index.Cache
}

// fault is what an engine's calls fail with, if it is set.
type fault struct {
	atomic.Pointer[func(call string) error]
}

func (f *fault) at(call string) error {
	if fail := f.Load(); fail != nil {
		return (*fail)(call)
	}
	return nil
}

type packs struct {
	packstore.Store
	fault fault
	// bad is a pack on sectors that the disk reads no more.
	bad string
}

// sectors read as bad ones do.
type sectors struct{ io.ReadCloser }

func (sectors) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: "pack", Err: syscall.EIO}
}

func (p *packs) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if err := p.fault.at("Open"); err != nil {
		return nil, err
	}
	r, err := p.Store.Open(ctx, name, offset, length)
	if err == nil && name == p.bad {
		r = sectors{r}
	}
	return r, err
}

func (p *packs) Size(ctx context.Context, name string) (int64, error) {
	if err := p.fault.at("Size"); err != nil {
		return 0, err
	}
	return p.Store.Size(ctx, name)
}

func (p *packs) List(ctx context.Context, visit func(string, int64) error) error {
	if err := p.fault.at("List"); err != nil {
		return err
	}
	return p.Store.List(ctx, visit)
}

type idx struct {
	index.Index
	fault fault
}

func (x *idx) Update(ctx context.Context, change func(index.Tx) error) error {
	if err := x.fault.at("Update"); err != nil {
		return err
	}
	return x.Index.Update(ctx, change)
}

func (x *idx) ChunksIn(ctx context.Context, pack string) ([]index.Location, error) {
	if err := x.fault.at("ChunksIn"); err != nil {
		return nil, err
	}
	return x.Index.ChunksIn(ctx, pack)
}

func (x *idx) PathsWith(ctx context.Context, chunks []digest.Hash) ([]index.PathName, error) {
	if err := x.fault.at("PathsWith"); err != nil {
		return nil, err
	}
	return x.Index.PathsWith(ctx, chunks)
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
	sqlite, err := index.OpenSQLite(t.Context(), filepath.Join(dir, "index.sqlite"))
	must(t, err)
	_, err = nixcache.EnsureCache(t.Context(), sqlite, "main", "/nix/store")
	must(t, err)
	r := &rig{dir: dir, packs: &packs{Store: disk}, index: &idx{Index: sqlite}}
	r.main, err = sqlite.Cache(t.Context(), "main")
	must(t, err)
	r.store = cas.New(r.packs, r.index, cas.DefaultGrace)
	t.Cleanup(func() {
		r.store.Close()
		must(t, sqlite.Close())
	})
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

// check checks, and repairs if repair says so.
func (r *rig) check(t testing.TB, repair bool) *fsck.Report {
	t.Helper()
	checker := fsck.Checker{Packs: r.packs, Index: r.index, Store: r.store, Repair: repair}
	report, err := checker.Run(t.Context())
	must(t, err)
	return report
}

// wantGood checks that nothing is found any more.
func (r *rig) wantGood(t testing.TB) {
	t.Helper()
	if got := r.check(t, false); !got.Good() || len(got.Unknown)+len(got.Paths) > 0 {
		t.Errorf("something is still found: %s", text(got))
	}
}

// text is a report for people.
func text(r *fsck.Report) string {
	s := fmt.Sprintf("%+v", *r)
	for _, d := range r.Damaged {
		s += "\n" + d.Error()
	}
	return s
}

func frameOf(plain []byte) pack.Frame {
	return pack.Frame{
		Chunk: digest.Chunk{Hash: digest.Of(plain), Size: uint32(len(plain))},
		Data:  frame.Encode(nil, plain),
	}
}

// words is text, which compresses, the same for the same seed.
func words(n int, seed string) []byte {
	random := rand.New(rand.NewChaCha8(digest.Of([]byte(seed))))
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, "%s word %d ", seed, random.IntN(1000))
	}
	return b[:n]
}

// path is a store path as a client has it.
type path struct {
	hash, name string
	nar        []byte
	frames     []pack.Frame
}

// newPath is a path of one file, whose contents are the pieces; each piece is a
// chunk.
func newPath(name string, pieces ...[]byte) *path {
	contents := bytes.Join(pieces, nil)
	p := &path{hash: digest.Of([]byte(name)).Nix32()[:storepath.HashLen], name: name}
	str := func(s string) {
		p.nar = binary.LittleEndian.AppendUint64(p.nar, uint64(len(s)))
		p.nar = append(append(p.nar, s...), make([]byte, -len(s)&7)...)
	}
	for _, s := range []string{"nix-archive-1", "(", "type", "regular", "contents"} {
		str(s)
	}
	head := len(p.nar) + 8
	str(string(contents))
	str(")")
	p.frames = append(p.frames, frameOf(p.nar[:head]))
	for _, piece := range pieces {
		p.frames = append(p.frames, frameOf(piece))
	}
	p.frames = append(p.frames, frameOf(p.nar[head+len(contents):]))
	return p
}

func (p *path) String() string { return p.hash + "-" + p.name }

func (p *path) chunks() []digest.Chunk {
	chunks := make([]digest.Chunk, len(p.frames))
	for i, f := range p.frames {
		chunks[i] = f.Chunk
	}
	return chunks
}

func (p *path) hashes() []digest.Hash {
	hashes := make([]digest.Hash, len(p.frames))
	for i, f := range p.frames {
		hashes[i] = f.Hash
	}
	return hashes
}

// push pushes paths as a client does, and returns how many chunks it had to send.
func (r *rig) push(t testing.TB, paths ...*path) (sent int) {
	t.Helper()
	for _, p := range paths {
		missing, err := r.store.Missing(t.Context(), p.hashes())
		must(t, err)
		var frames []pack.Frame
		for _, f := range p.frames {
			if slices.Contains(missing, f.Hash) {
				frames = append(frames, f)
			}
		}
		sent += len(frames)
		must(t, r.store.PutFrames(t.Context(), frames))
		blob, err := r.store.Verify(t.Context(), digest.Digest{Hash: digest.Of(p.nar), Size: int64(len(p.nar))}, p.chunks(), func(nar io.Reader) error {
			_, err := io.Copy(io.Discard, nar)
			return err
		})
		must(t, err)
		must(t, r.index.Update(t.Context(), func(tx index.Tx) error {
			blob, err := tx.AddBlob(blob, p.chunks(), r.store.Expiry())
			if err != nil {
				return err
			}
			_, err = tx.PutPath(index.Path{CacheID: r.main.ID, Hash: p.hash, Name: p.name, NAR: blob})
			return err
		}))
	}
	return sent
}

// served says what is wrong with a path, as a client sees it.
func (r *rig) served(p *path) error {
	d := nixcache.New(r.store, r.index, nixcache.Config{DefaultCache: "main", Log: slog.New(slog.DiscardHandler)}).Handler()
	get := func(route string) (w *httptest.ResponseRecorder) {
		w = httptest.NewRecorder()
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				panic(p)
			}
		}()
		d.ServeHTTP(w, httptest.NewRequest(http.MethodGet, route, nil))
		return w
	}
	w := get("/" + p.hash + ".narinfo")
	n, err := narinfo.Parse(w.Body.Bytes())
	if w.Code != http.StatusOK || err != nil {
		return fmt.Errorf("the narinfo of %s: %d %s, %w", p, w.Code, w.Body, err)
	}
	w = get("/" + n.URL)
	plain, err := frame.Decode(nil, w.Body.Bytes())
	if w.Code != http.StatusOK || err != nil || !bytes.Equal(plain, p.nar) || digest.Of(w.Body.Bytes()) != n.FileHash || int64(w.Body.Len()) != n.FileSize {
		return fmt.Errorf("the NAR of %s: %d, %d bytes, want %d of %s, %w", p, w.Code, w.Body.Len(), n.FileSize, n.FileHash, err)
	}
	return nil
}

func (r *rig) wantServed(t testing.TB, paths ...*path) {
	t.Helper()
	for _, p := range paths {
		if err := r.served(p); err != nil {
			t.Error(err)
		}
	}
}

// wantPaths checks that a report names just those paths.
func wantPaths(t testing.TB, got *fsck.Report, paths ...*path) {
	t.Helper()
	var named, want []string
	for _, p := range got.Paths {
		named = append(named, p.String())
	}
	for _, p := range paths {
		want = append(want, p.String())
	}
	slices.Sort(want)
	if !slices.Equal(named, want) {
		t.Errorf("paths %v, want %v", named, want)
	}
}

// wantChunks checks that a report calls just those chunks damaged.
func wantChunks(t testing.TB, got *fsck.Report, want ...digest.Hash) {
	t.Helper()
	found := map[digest.Hash]bool{}
	for _, d := range got.Damaged {
		found[d.Chunk] = true
	}
	wanted := map[digest.Hash]bool{}
	for _, h := range want {
		wanted[h] = true
	}
	if !maps.Equal(found, wanted) {
		t.Errorf("damaged are %v, want %v: %s", found, wanted, text(got))
	}
}

// file is where a pack lies.
func (r *rig) file(t testing.TB, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(r.dir, "packs", "*", name+".pack"))
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("pack %s: %v", name, found)
	}
	return found[0]
}

// names are those of all packs on disk.
func (r *rig) names(t testing.TB) []string {
	t.Helper()
	var names []string
	must(t, r.packs.Store.List(t.Context(), func(name string, _ int64) error {
		names = append(names, name)
		return nil
	}))
	slices.Sort(names)
	return names
}

func (r *rig) locate(t testing.TB, chunk digest.Hash) index.Location {
	t.Helper()
	at, err := r.index.Locate(t.Context(), []digest.Hash{chunk})
	must(t, err)
	if len(at) != 1 {
		t.Fatalf("chunk %s lies nowhere", chunk)
	}
	return at[0]
}

// flip flips a bit of a pack.
func (r *rig) flip(t testing.TB, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(r.file(t, name), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	must(t, err)
	b[0] ^= 4
	_, err = f.WriteAt(b, at)
	must(t, err)
}

// spoil damages a chunk where the index has it.
func (r *rig) spoil(t testing.TB, chunk digest.Hash) {
	t.Helper()
	l := r.locate(t, chunk)
	for at := l.Offset + int64(l.Length)/2; ; at++ {
		r.flip(t, l.Pack, at)
		damaged, err := r.store.CheckChunks(t.Context(), []index.Location{l})
		must(t, err)
		if len(damaged) > 0 {
			return
		}
		r.flip(t, l.Pack, at) // that bit does not matter: it still unpacks to its chunk
	}
}

// put stores a pack by hand.
func (r *rig) put(t testing.TB, name string, frames ...pack.Frame) *pack.Encoded {
	t.Helper()
	e := pack.Encode(frames)
	must(t, r.packs.Put(t.Context(), name, e.Size, e.Reader()))
	return e
}

// putCopy stores frames once more, as a server that raced with another does.
func (r *rig) putCopy(t testing.TB, name string, frames ...pack.Frame) {
	t.Helper()
	e := r.put(t, name, frames...)
	must(t, r.index.Update(t.Context(), func(tx index.Tx) error { return tx.AddPack(name, e.Size, e.Entries) }))
}

func (r *rig) usage(t testing.TB) index.Usage {
	t.Helper()
	u, err := r.index.Usage(t.Context())
	must(t, err)
	return u
}

// loseIndex removes the index's files; what was open may not be used any more.
func loseIndex(t testing.TB, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "index.sqlite*"))
	must(t, err)
	for _, f := range files {
		if !strings.Contains(f, "-lock-") {
			must(t, os.Remove(f))
		}
	}
}
