package nixcache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// origin is an upstream of plain files, which can be made to misbehave.
type origin struct {
	*httptest.Server
	key narinfo.SecretKey

	mu    sync.Mutex
	files map[string][]byte
	asked []string
	// instead answers, where it returns true.
	instead func(w http.ResponseWriter, r *http.Request) bool
}

func newOrigin(t testing.TB) *origin {
	t.Helper()
	key, err := narinfo.GenerateKey("origin-1")
	must(t, err)
	o := &origin{key: key, files: map[string][]byte{}}
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	return o
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.asked = append(o.asked, r.URL.Path)
	instead, file := o.instead, o.files[r.URL.Path]
	o.mu.Unlock()
	switch {
	case instead != nil && instead(w, r):
	case file == nil:
		http.NotFound(w, r)
	default:
		_, _ = w.Write(file)
	}
}

// misbehave makes it answer so where it returns true.
func (o *origin) misbehave(instead func(w http.ResponseWriter, r *http.Request) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.instead = instead
}

// requests returns how often a file was asked for.
func (o *origin) requests(file string) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range o.asked {
		if a == file {
			n++
		}
	}
	return n
}

func (o *origin) upstream() nixcache.Upstream {
	return nixcache.Upstream{URL: o.URL, PublicKeys: []string{o.key.Public()}}
}

// add puts a path on it.
func (o *origin) add(t testing.TB, ar *archive, c codec) *copied {
	t.Helper()
	p := ar.copied(t, c)
	p.info.Signatures = []string{"builder-1:" + strings.Repeat("A", 86) + "==", o.key.Sign(p.info)}
	o.put(p.narinfo(), p.info.Text())
	o.put("/"+p.named, p.file)
	return p
}

func (o *origin) put(name string, file []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.files[name] = file
}

// pullingFrom is a rig whose cache main has upstreams.
func pullingFrom(t testing.TB, upstreams ...nixcache.Upstream) *rig {
	t.Helper()
	return openRigWith(t, nixcache.Config{Upstreams: map[string][]nixcache.Upstream{"main": upstreams}},
		func(p packstore.Store) packstore.Store { return p })
}

func pulledNAR(a *archive, suffix string) string {
	return "/nar/" + storepath.Hash(a.info.StorePath) + "-" + a.info.NarHash.Nix32() + ".nar" + suffix
}

// stored says whether a path is recorded.
func (r *rig) stored(t testing.TB, a *archive) bool {
	t.Helper()
	c, err := r.sqlite.Cache(t.Context(), "main")
	must(t, err)
	_, err = r.sqlite.Path(t.Context(), c.ID, storepath.Hash(a.info.StorePath))
	if err != nil && !errors.Is(err, index.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func unzstd(t testing.TB, b []byte) []byte {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(b))
	must(t, err)
	defer z.Close()
	plain, err := io.ReadAll(z)
	must(t, err)
	return plain
}

func TestAMissIsPulledFromTheUpstream(t *testing.T) {
	t.Parallel()
	for _, c := range codecs {
		for _, suffix := range []string{".zst", ""} {
			t.Run(c.name+", sent as .nar"+suffix, func(t *testing.T) {
				t.Parallel()
				o := newOrigin(t)
				ar := newArchive(t, "hello", noise(200_000, "hello"), 100_000)
				ar.info.References = []string{hashA + "-elsewhere"}
				ar.info.Deriver = hashA + "-hello.drv"
				p := o.add(t, ar, c)
				r := pullingFrom(t, o.upstream())
				w := r.get(ar.narinfo())
				n, err := narinfo.Parse(w.Body.Bytes())
				if err != nil || n.Compression != "zstd" || n.FileSize != 0 || "/"+n.URL != pulledNAR(ar, ".zst") ||
					n.NarHash != ar.info.NarHash || !slices.Equal(n.References, ar.info.References) || n.Deriver != ar.info.Deriver {
					t.Fatalf("%d %s, %v", w.Code, w.Body, err)
				}
				if ok, err := n.Signed(o.key.Public()); !ok || err != nil || len(n.Signatures) != 3 || !strings.HasPrefix(n.Signatures[0], "main-") {
					t.Errorf("signatures %q, %v", n.Signatures, err)
				}
				if old, err := narinfo.Parse(r.get(ar.narinfo() + "?compression=none").Body.Bytes()); err != nil || "/"+old.URL != pulledNAR(ar, "") {
					t.Errorf("for old clients: %+v, %v", old, err)
				}
				want(t, "HEAD", r.ask(http.MethodHead, pulledNAR(ar, suffix), nil), http.StatusOK)
				if r.stored(t, ar) || o.requests("/"+p.named) != 0 {
					t.Error("the NAR was fetched before anybody asked for it")
				}
				w = r.get(pulledNAR(ar, suffix))
				got := w.Body.Bytes()
				if suffix != "" {
					got = unzstd(t, got)
				}
				if w.Code != http.StatusOK || w.broken || !bytes.Equal(got, ar.plain) {
					t.Fatalf("the NAR: %d, broken off %v, %d bytes", w.Code, w.broken, len(got))
				}
				// From now on it is a path like others.
				n, err = narinfo.Parse(r.get(ar.narinfo()).Body.Bytes())
				if err != nil || n.FileSize == 0 || "/"+n.URL != pulledNAR(ar, ".zst") || len(n.Signatures) != 3 {
					t.Errorf("%+v, %v", n, err)
				}
				if w := r.get("/"+n.URL, "Range", "bytes=5-9"); w.Code != http.StatusPartialContent || w.Body.Len() != 5 {
					t.Errorf("a range: %d", w.Code)
				}
				want(t, "listing", r.get(strings.Replace(ar.narinfo(), ".narinfo", ".ls", 1)), http.StatusOK)
				if a, b := o.requests(ar.narinfo()), o.requests("/"+p.named); a != 1 || b != 1 {
					t.Errorf("%d requests for the narinfo and %d for the NAR", a, b)
				}
				if got, want := r.Pulled(), (nixcache.Pulled{Found: 1, NARs: 1, NARBytes: ar.info.NarSize}); got != want {
					t.Errorf("counted %+v", got)
				}
			})
		}
	}
}

// Clients remember narinfos for a month: they ask a server for the NAR that has
// never been asked for the narinfo, or has since collected the path.
func TestANARIsPulledWithoutItsNarinfo(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	ar := newArchive(t, "hello", noise(5000, "hello"), 10_000)
	o.add(t, ar, codecs[1])
	r := pullingFrom(t, o.upstream())
	for range 2 {
		if w := r.get(pulledNAR(ar, ".zst")); w.Code != http.StatusOK || !bytes.Equal(unzstd(t, w.Body.Bytes()), ar.plain) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		r.forget(t, ar)
	}
	// Nothing but what the upstream's narinfo names comes from there.
	other := newArchive(t, "other", noise(5000, "other"), 10_000)
	o.put(other.nar(), other.file())
	want(t, "another NAR", r.get(strings.Replace(pulledNAR(ar, ".zst"), ar.info.NarHash.Nix32(), other.info.NarHash.Nix32(), 1)), http.StatusNotFound)
	want(t, "a NAR of no path", r.get(other.nar()), http.StatusNotFound)
	if n := o.requests(other.nar()); n != 0 {
		t.Errorf("the client made the server fetch it %d times", n)
	}
}

func TestManyClientsMakeOneRequest(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	ar := newArchive(t, "hello", noise(6<<20, "hello"), 100_000)
	p := o.add(t, ar, codecs[0])
	r := pullingFrom(t, o.upstream())
	server := httptest.NewServer(r.Handler())
	defer server.Close()
	get := func(route string) ([]byte, error) {
		resp, err := http.Get(server.URL + route)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s %s", route, resp.Status, b)
		}
		return b, err
	}
	var clients errgroup.Group
	for range 20 {
		clients.Go(func() error {
			text, err := get(ar.narinfo())
			if err != nil {
				return err
			}
			n, err := narinfo.Parse(text)
			if err != nil {
				return err
			}
			b, err := get("/" + n.URL)
			if err == nil && !bytes.Equal(unzstd(t, b), ar.plain) {
				err = errors.New("another NAR")
			}
			return err
		})
	}
	must(t, clients.Wait())
	if a, b := o.requests(ar.narinfo()), o.requests("/"+p.named); a != 1 || b != 1 {
		t.Errorf("%d requests for the narinfo and %d for the NAR", a, b)
	}
}

func TestMissesOfUpstreamsAreRemembered(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	r := pullingFrom(t, o.upstream())
	for range 3 {
		want(t, "a miss", r.get("/"+hashA+".narinfo"), http.StatusNotFound)
		want(t, "its NAR", r.get("/nar/"+hashA+"-"+digest.Of(nil).Nix32()+".nar.zst"), http.StatusNotFound)
	}
	if n := o.requests("/" + hashA + ".narinfo"); n != 1 {
		t.Errorf("%d requests", n)
	}
	// What is pushed meanwhile is there at once.
	ar := newArchive(t, "hello", []byte("hello"), 1000)
	want(t, "before", r.get(ar.narinfo()), http.StatusNotFound)
	r.pushArchive(t, ar, 1)
	want(t, "after", r.get(ar.narinfo()), http.StatusOK)
	want(t, "its NAR", r.get(ar.nar()), http.StatusOK)
	// Another cache has no upstream.
	r.attic(t).create("other", defaults())
	want(t, "another cache", r.get("/other/"+strings.Repeat("0", 32)+".narinfo"), http.StatusNotFound)
	if n := o.requests("/" + strings.Repeat("0", 32) + ".narinfo"); n != 0 {
		t.Error("it was asked for what another cache lacks")
	}
}

// eventually waits for what another goroutine does.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		select {
		case <-t.Context().Done():
			t.Fatalf("not before the end of the test: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestAClientThatLeavesDoesNotEndThePull(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	ar := newArchive(t, "hello", noise(3<<20, "hello"), 100_000)
	p := o.add(t, ar, codecs[0])
	left := make(chan struct{})
	o.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/nar/") {
			return false
		}
		_, _ = w.Write(p.file[:2<<20])
		_ = http.NewResponseController(w).Flush()
		<-left
		_, _ = w.Write(p.file[2<<20:])
		return true
	})
	r := pullingFrom(t, o.upstream())
	server := httptest.NewServer(r.Handler())
	t.Cleanup(server.Close)
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+pulledNAR(ar, ".zst"), nil)
	must(t, err)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	_, err = io.ReadFull(resp.Body, make([]byte, 1000)) // it is sent while it comes
	must(t, err)
	leave()
	_ = resp.Body.Close()
	close(left)
	eventually(t, "the path is stored", func() bool { return r.stored(t, ar) })
	if w := r.get(pulledNAR(ar, ".zst")); w.Code != http.StatusOK || !bytes.Equal(unzstd(t, w.Body.Bytes()), ar.plain) {
		t.Errorf("%d", w.Code)
	}
	if n := o.requests("/" + p.named); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// waiting does not write before it is told to.
type waiting struct {
	http.ResponseWriter
	until func()
}

func (w *waiting) Write(b []byte) (int, error) {
	w.until()
	return w.ResponseWriter.Write(b)
}

// A client that is slower than the upstream holds up nobody, and is sent the rest
// from the store.
func TestASlowClientIsSentTheRestFromTheStore(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{".zst", ""} {
		o := newOrigin(t)
		ar := newArchive(t, "hello", noise(20<<20, "hello"), 1<<20)
		o.add(t, ar, codecs[0])
		r := pullingFrom(t, o.upstream())
		w := httptest.NewRecorder()
		slow := &waiting{w, func() { eventually(t, "the path is stored", func() bool { return r.stored(t, ar) }) }}
		r.Handler().ServeHTTP(slow, httptest.NewRequest(http.MethodGet, pulledNAR(ar, suffix), nil))
		got := w.Body.Bytes()
		if suffix != "" {
			got = unzstd(t, got)
		}
		if !bytes.Equal(got, ar.plain) {
			t.Errorf("%d bytes of %d", len(got), len(ar.plain))
		}
	}
}

// Caches over S3 redirect to it. What is told to the cache is not told to it.
func TestRedirectsOfUpstreamsAreFollowed(t *testing.T) {
	t.Parallel()
	o, s3 := newOrigin(t), newOrigin(t)
	ar := newArchive(t, "hello", noise(5000, "hello"), 10_000)
	o.add(t, ar, codecs[1])
	told := map[string]bool{}
	o.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		name, password, _ := r.BasicAuth()
		told[name+":"+password] = true
		http.Redirect(w, r, s3.URL+"/bucket"+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	for name, file := range o.files {
		s3.put("/bucket"+name, file)
	}
	s3.misbehave(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("told to %s", r.Host)
		}
		return false
	})
	u := o.upstream()
	u.URL = strings.Replace(u.URL, "http://", "http://me:secret@", 1)
	r := pullingFrom(t, u)
	if w := r.get(pulledNAR(ar, ".zst")); w.Code != http.StatusOK || !bytes.Equal(unzstd(t, w.Body.Bytes()), ar.plain) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if len(told) != 1 || !told["me:secret"] {
		t.Errorf("told %v", told)
	}
	o.Close()
	want(t, "a miss", r.get("/"+hashA+".narinfo"), http.StatusNotFound)
	if strings.Contains(r.log.String(), "secret") {
		t.Errorf("the password is in the log:\n%s", r.log)
	}
}

// Two servers that are each other's upstreams, of which one has the path.
func TestServersThatAreEachOthersUpstreams(t *testing.T) {
	t.Parallel()
	var at [2]net.Listener
	var rigs [2]*rig
	keys := [2]narinfo.SecretKey{newKey("one-1"), newKey("two-1")}
	for i := range at {
		var err error
		at[i], err = net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
	}
	for i := range rigs {
		other := 1 - i
		rigs[i] = openRigWith(t, nixcache.Config{Upstreams: map[string][]nixcache.Upstream{
			"team": {{URL: "http://" + at[other].Addr().String() + "/team", PublicKeys: []string{keys[other].Public()}}},
		}}, func(p packstore.Store) packstore.Store { return p })
		must(t, rigs[i].sqlite.Update(t.Context(), func(tx index.Tx) error {
			_, err := tx.AddCache(index.Cache{Name: "team", StoreDir: "/nix/store", SecretKeys: []string{keys[i].Reveal()}, Public: true, Retention: index.GlobalRetention})
			return err
		}))
		server := &httptest.Server{Listener: at[i], Config: &http.Server{Handler: rigs[i].Handler()}} //nolint:gosec // a test's
		server.Start()
		t.Cleanup(server.Close)
	}
	ar := newArchive(t, "hello", noise(500_000, "hello"), 100_000)
	a := rigs[1].attic(t)
	status, text := a.put("X-Attic-", false, ar.upload("team"), bytes.NewReader(ar.plain))
	a.want("upload", status, text, &uploaded{})
	for _, r := range rigs {
		want(t, "a miss of both", r.get("/team/"+hashA+".narinfo"), http.StatusNotFound)
		w := r.get("/team" + pulledNAR(ar, ".zst"))
		if w.Code != http.StatusOK || !bytes.Equal(unzstd(t, w.Body.Bytes()), ar.plain) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if log := r.log.String(); log != "" {
			t.Errorf("the log:\n%s", log)
		}
	}
	n, err := narinfo.Parse(rigs[0].get("/team" + ar.narinfo()).Body.Bytes())
	must(t, err)
	for _, k := range keys {
		if ok, err := n.Signed(k.Public()); !ok || err != nil {
			t.Errorf("not signed by %s", k.Name)
		}
	}
}

// The real client takes from this server, whose key alone it trusts, what nix copy
// put into a folder that some web server serves.
func TestNixPullsThroughFromAFolder(t *testing.T) {
	t.Parallel()
	key := newKey("folder-1")
	var asked sync.Map
	m := newMachineOf(t, func(dir string) nixcache.Config {
		files := http.FileServer(http.Dir(filepath.Join(dir, "folder")))
		folder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Store(r.URL.Path, true)
			files.ServeHTTP(w, r)
		}))
		t.Cleanup(folder.Close)
		return nixcache.Config{Upstreams: map[string][]nixcache.Upstream{"machine": {{URL: folder.URL, PublicKeys: []string{key.Public()}}}}}
	})
	secret := filepath.Join(m.dir, "secret")
	must(t, os.WriteFile(secret, []byte(key.Reveal()), 0o600))
	top := m.build(chain)
	m.run("nix", "copy", "--to", "file://"+filepath.Join(m.dir, "folder")+"?compression=xz&secret-key="+secret, top)
	substitute := []string{"--max-jobs", "0", "--option", "substituters", m.url, "--option", "require-sigs", "true"}
	for range 2 {
		m.wipe(true)
		if got := m.build(chain, append(substitute, m.trust()...)...); got != top {
			t.Errorf("built %s, not %s", got, top)
		}
		m.wantChain(top)
		// The second time it comes from here.
		must(t, os.RemoveAll(filepath.Join(m.dir, "folder")))
	}
	// Who trusts the upstream's key only takes it as well.
	m.wipe(true)
	if got := m.build(chain, append(substitute, "--option", "trusted-public-keys", key.Public())...); got != top {
		t.Errorf("built %s, not %s", got, top)
	}
}
