package nixcache_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
)

const hashA = "0c5b8vw40dy178xlpddw65q9gf1h2186"

// door is a Door whose engines can be made to fail or to wait.
type door struct {
	http.Handler
	log       *bytes.Buffer
	putFails  atomic.Pointer[error]
	update    atomic.Pointer[error]
	afterPath atomic.Pointer[func()]
}

type packs struct {
	packstore.Store
	door *door
}

func (p packs) Put(ctx context.Context, name string, size int64, body io.Reader) error {
	if err := p.door.putFails.Load(); err != nil {
		return *err
	}
	return p.Store.Put(ctx, name, size, body)
}

type idx struct {
	index.Index
	door *door
}

func (x idx) Update(ctx context.Context, change func(index.Tx) error) error {
	if err := x.door.update.Load(); err != nil {
		return *err
	}
	return x.Index.Update(ctx, change)
}

func (x idx) Path(ctx context.Context, cache int64, hash string) (index.Path, error) {
	p, err := x.Index.Path(ctx, cache, hash)
	if after := x.door.afterPath.Swap(nil); after != nil {
		(*after)()
	}
	return p, err
}

func open(t *testing.T) *door {
	t.Helper()
	dir := t.TempDir()
	disk, err := packstore.OpenDisk(filepath.Join(dir, "packs"))
	must(t, err)
	sqlite, err := index.OpenSQLite(t.Context(), filepath.Join(dir, "index.sqlite"))
	must(t, err)
	_, err = nixcache.EnsureCache(t.Context(), sqlite, "main", "/nix/store")
	must(t, err)
	d := &door{log: &bytes.Buffer{}}
	x := idx{sqlite, d}
	store := cas.New(packs{disk, d}, x, cas.DefaultGrace)
	t.Cleanup(func() {
		store.Close()
		must(t, sqlite.Close())
	})
	d.Handler = everyone(nixcache.New(store, x, nixcache.Config{DefaultCache: "main", Log: slog.New(slog.NewTextHandler(d.log, nil))}).Handler())
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (d *door) do(method, route string, body []byte) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequest(method, route, bytes.NewReader(body)))
	return w
}

// path makes the bodies that push a path of one file.
func path(t *testing.T, contents string) (n *narinfo.NarInfo, chunks, commit []byte) {
	t.Helper()
	on := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(on, []byte(contents), 0o600))
	var b bytes.Buffer
	must(t, nar.Dump(&b, on))
	h := digest.Of(b.Bytes())
	c := digest.Chunk{Hash: h, Size: uint32(b.Len())}
	n = &narinfo.NarInfo{StorePath: "/nix/store/" + hashA + "-hello", NarHash: h, NarSize: int64(b.Len())}
	return n, push.AppendFrame(nil, pack.Frame{Chunk: c, Data: frame.Encode(nil, b.Bytes())}), push.AppendCommit(nil, n, []digest.Chunk{c})
}

func (d *door) push(t *testing.T, contents string) *narinfo.NarInfo {
	t.Helper()
	n, chunks, commit := path(t, contents)
	if w := d.do(http.MethodPost, "/_push/v1/chunks", chunks); w.Code != http.StatusNoContent {
		t.Fatalf("chunks: %d %s", w.Code, w.Body)
	}
	if w := d.do(http.MethodPost, "/_push/v1/paths", commit); w.Code != http.StatusOK {
		t.Fatalf("paths: %d %s", w.Code, w.Body)
	}
	return n
}

func (d *door) narinfo(t *testing.T) *narinfo.NarInfo {
	t.Helper()
	w := d.do(http.MethodGet, "/"+hashA+".narinfo", nil)
	n, err := narinfo.Parse(w.Body.Bytes())
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("narinfo: %d, %v", w.Code, err)
	}
	return n
}

func TestFaultsOfTheEngines(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault  error
		status int
		code   string
	}{
		"no room for packs":     {fmt.Errorf("writing pack x: %w", packstore.ErrNoSpace), http.StatusInsufficientStorage, push.CodeNoSpace},
		"no room for the index": {fmt.Errorf("writing to the index: %w", index.ErrNoSpace), http.StatusInsufficientStorage, push.CodeNoSpace},
		"something else":        {errors.New("input/output error"), http.StatusInternalServerError, push.CodeInternal},
	} {
		for which := range 3 {
			t.Run(fmt.Sprintf("%s, %d", name, which), func(t *testing.T) {
				t.Parallel()
				d := open(t)
				_, chunks, commit := path(t, "hello")
				fails, route, body := &d.putFails, "/_push/v1/chunks", chunks
				switch which {
				case 1:
					fails = &d.update
				case 2:
					d.do(http.MethodPost, route, body)
					fails, route, body = &d.update, "/_push/v1/paths", commit
				}
				fails.Store(&c.fault)
				w := d.do(http.MethodPost, route, body)
				var e push.Error
				if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != c.status || e.Code != c.code || e.Message == "" || strings.Contains(e.Message, c.fault.Error()) {
					t.Errorf("status %d, %+v, %v; want %d, %s, and nothing of the server's insides", w.Code, e, err, c.status, c.code)
				}
				if !strings.Contains(d.log.String(), c.fault.Error()) {
					t.Errorf("the log says nothing of it:\n%s", d.log)
				}
				if w := d.do(http.MethodGet, "/"+hashA+".narinfo", nil); w.Code != http.StatusNotFound {
					t.Errorf("narinfo: status %d", w.Code)
				}
				fails.Store(nil)
				n := d.push(t, "hello")
				if got := d.narinfo(t); got.NarHash != n.NarHash {
					t.Errorf("afterwards:\n%s", got.Text())
				}
			})
		}
	}
}

// What a client is told right after its commit is what it committed, even when
// another was being told of the path at that moment.
func TestAReaderDuringACommitDoesNotKeepTheOldNarinfo(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.push(t, "first")
	looked, goOn := make(chan struct{}), make(chan struct{})
	wait := func() { close(looked); <-goOn }
	d.afterPath.Store(&wait)
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.do(http.MethodGet, "/"+hashA+".narinfo", nil)
	}()
	<-looked
	second := d.push(t, "second")
	close(goOn)
	<-done
	if got := d.narinfo(t); got.NarHash != second.NarHash {
		t.Errorf("the old narinfo is still told:\n%s", got.Text())
	}
}

// Room that a request held in memory is given back however it ends.
func TestRefusedUploadsFreeTheirRoom(t *testing.T) {
	t.Parallel()
	d := open(t)
	_, chunks, _ := path(t, "hello")
	for range 20 { // of 16 MiB, as they say, in a budget of 128
		for _, body := range [][]byte{nil, []byte("junk"), chunks[:len(chunks)-1], chunks} {
			r := httptest.NewRequest(http.MethodPost, "/_push/v1/chunks", bytes.NewReader(body))
			r.ContentLength = push.MaxChunksBody
			d.ServeHTTP(httptest.NewRecorder(), r)
		}
	}
	d.push(t, "hello")
}

// A client that leaves while it waits is not answered, and is no error.
func TestAClientThatLeft(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.push(t, "hello")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, chunks, _ := path(t, "more")
	for _, r := range []*http.Request{
		httptest.NewRequestWithContext(ctx, http.MethodGet, "/"+hashA+".narinfo", nil),
		httptest.NewRequestWithContext(ctx, http.MethodPost, "/_push/v1/chunks", bytes.NewReader(chunks)),
	} {
		func() {
			defer func() {
				if got := recover(); got != http.ErrAbortHandler {
					t.Errorf("%s: recovered %v, want http.ErrAbortHandler", r.URL, got)
				}
			}()
			d.ServeHTTP(httptest.NewRecorder(), r)
		}()
	}
	if d.log.Len() > 0 {
		t.Errorf("the log says\n%s", d.log)
	}
}

// receiver is a ResponseWriter that remembers what it was given to read from.
type receiver struct {
	*httptest.ResponseRecorder
	from []io.Reader
}

func (r *receiver) ReadFrom(src io.Reader) (int64, error) {
	r.from = append(r.from, src)
	return io.Copy(r.ResponseRecorder, src)
}

// The first answer is read with care, and from then on the kernel sends it.
func TestANARIsSentFromThePacksOwnFile(t *testing.T) {
	t.Parallel()
	d := open(t)
	n := d.push(t, strings.Repeat("hello ", 1000))
	get := func() *receiver {
		w := &receiver{ResponseRecorder: httptest.NewRecorder()}
		d.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/nar/"+n.NarHash.Nix32()+".nar.zst", nil))
		if w.Code != http.StatusOK || digest.Of(w.Body.Bytes()) != d.narinfo(t).FileHash {
			t.Fatalf("status %d, %d bytes", w.Code, w.Body.Len())
		}
		return w
	}
	if first := get(); len(first.from) != 0 {
		t.Errorf("the connection was given a %T before anyone looked at the bytes", first.from[0])
	}
	second := get()
	if len(second.from) != 1 {
		t.Fatalf("the connection was given %v", second.from)
	}
	limited, ok := second.from[0].(*io.LimitedReader)
	if !ok {
		t.Fatalf("the connection was given a %T", second.from[0])
	}
	if _, ok := limited.R.(*os.File); !ok {
		t.Errorf("the connection was given a %T: only a file goes from the kernel straight to it", limited.R)
	}
}

func TestCacheNames(t *testing.T) {
	t.Parallel()
	x, err := index.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "index.sqlite"))
	must(t, err)
	t.Cleanup(func() { must(t, x.Close()) })
	for _, name := range []string{"", "-a", "_a", "_push", "a/b", "..", "a b", "a\n", "ä", strings.Repeat("a", 51)} {
		if _, err := nixcache.EnsureCache(t.Context(), x, name, "/nix/store"); err == nil || !strings.Contains(err.Error(), "cache name") {
			t.Errorf("%q: got %v, want an error about the name", name, err)
		}
	}
	for _, name := range []string{"a", "Main-1_x+y", strings.Repeat("a", 50)} {
		key, err := nixcache.EnsureCache(t.Context(), x, name, "/nix/store")
		again, err2 := nixcache.EnsureCache(t.Context(), x, name, "/nix/store")
		if err != nil || err2 != nil || key != again || !strings.HasPrefix(key, name+"-") {
			t.Errorf("%q: %s, %v; then %s, %v", name, key, err, again, err2)
		}
	}
}
