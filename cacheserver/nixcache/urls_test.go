package nixcache_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// change changes the index behind the server's back.
func (r *rig) change(t testing.TB, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(r.dir, "index.sqlite"))
	must(t, err)
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(t.Context(), statement)
	must(t, err)
}

// URLs that other servers gave out go on to answer here.
func TestURLsOfOtherServers(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := newArchive(t, "hello", noise(5000, "1"), 1000)
	r.pushArchive(t, a, 10)
	store, hash := storepath.Hash(a.info.StorePath), a.info.NarHash
	for _, stem := range []string{hash.Nix32(), hash.String(), store + "-" + hash.Nix32(), store + "-" + hash.String()} {
		for _, query := range []string{"", "?hash=" + store} {
			for _, prefix := range []string{"/nar/", "/main/nar/"} {
				plain := r.get(prefix + stem + ".nar" + query)
				if plain.Code != http.StatusOK || !bytes.Equal(plain.Body.Bytes(), a.plain) || plain.Header().Get("Accept-Ranges") != "" {
					t.Errorf("%s%s.nar%s: %d, %v", prefix, stem, query, plain.Code, plain.Header())
				}
				if got := plain.Header().Get("Content-Length"); got != "5112" {
					t.Errorf("%s%s.nar: Content-Length %s", prefix, stem, got)
				}
				packed := r.get(prefix + stem + ".nar.zst" + query)
				if packed.Code != http.StatusOK || !bytes.Equal(packed.Body.Bytes(), a.file()) || packed.Header().Get("Accept-Ranges") != "bytes" {
					t.Errorf("%s%s.nar.zst%s: %d, %v", prefix, stem, query, packed.Code, packed.Header())
				}
				if again := r.get(prefix+stem+".nar"+query, "If-None-Match", plain.Header().Get("Etag")); again.Code != http.StatusNotModified {
					t.Errorf("%s%s.nar again: %d", prefix, stem, again.Code)
				}
				if plain.Header().Get("Etag") == packed.Header().Get("Etag") {
					t.Errorf("one Etag for two files: %s", plain.Header().Get("Etag"))
				}
			}
		}
	}
	for _, name := range []string{"x.nar", "%00.nar", "%ff.nar.zst", "a%20b.nar", hash.Nix32(), hash.Nix32() + ".nar.xz", hash.Nix32() + ".nar.rar", "x-" + hash.Nix32() + ".nar", ".nar.zst"} {
		want(t, name, r.get("/nar/"+name), http.StatusNotFound)
	}
}

func TestNarinfosForClientsWithoutZstd(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := newArchive(t, "hello", noise(5000, "1"), 1000)
	r.pushArchive(t, a, 10)
	key := r.get("/_api/v1/cache-config/main")
	_, rest, _ := strings.Cut(key.Body.String(), `"public_key":"`)
	public, _, _ := strings.Cut(rest, `"`)
	for _, c := range []struct{ route, nar string }{
		{a.narinfo() + "?compression=none", "/"},
		{"/main" + a.narinfo() + "?compression=none", "/main/"},
		{"/compression=none" + a.narinfo(), "/compression=none/"},
		{"/main/compression=none" + a.narinfo(), "/main/compression=none/"},
	} {
		w := r.get(c.route)
		n, err := narinfo.Parse(w.Body.Bytes())
		if err != nil || n.Compression != "none" || n.FileHash != n.NarHash || n.FileSize != n.NarSize {
			t.Errorf("%s: %d %s, %v", c.route, w.Code, w.Body, err)
			continue
		}
		if ok, err := n.Signed(public); err != nil || !ok {
			t.Errorf("%s is not signed: %v", c.route, err)
		}
		if got := r.get(c.nar + n.URL); !bytes.Equal(got.Body.Bytes(), a.plain) {
			t.Errorf("%s%s: %d", c.nar, n.URL, got.Code)
		}
	}
	if n, err := narinfo.Parse(r.get(a.narinfo() + "?compression=zstd").Body.Bytes()); err != nil || n.Compression != "zstd" {
		t.Errorf("%+v, %v", n, err)
	}
	want(t, "cache info", r.get("/main/compression=none/nix-cache-info"), http.StatusOK)
}

// What is read lives on: the last use of a file beside the NARs is written down.
func TestUsesOfObjectsAreWrittenDown(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	name := "log/" + hashA + "-x.drv"
	want(t, "PUT", r.put("/"+name, []byte("x")), http.StatusNoContent)
	c, err := r.sqlite.Cache(t.Context(), "main")
	must(t, err)
	r.change(t, "UPDATE objects SET used = used - 100000")
	before, err := r.sqlite.Object(t.Context(), c.ID, name)
	must(t, err)
	want(t, "GET", r.get("/"+name), http.StatusOK)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, r.RecordUses(ctx))
	after, err := r.sqlite.Object(t.Context(), c.ID, name)
	if err != nil || !after.Used.After(before.Used.Add(time.Hour)) {
		t.Errorf("used %v, before %v, %v", after.Used, before.Used, err)
	}
}

// A blob of which it is not known what its file hashes to, as Bazel's door makes
// them, is a NAR like another.
func TestANARWhoseFileHashIsNotKnown(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := newArchive(t, "hello", noise(5000, "1"), 10_000)
	r.pushArchive(t, a, 10)
	r.change(t, "UPDATE blobs SET file_hash = zeroblob(32)")
	fresh := r.again()
	n, err := narinfo.Parse(fresh.get(a.narinfo()).Body.Bytes())
	if err != nil || n.FileSize != 0 || strings.Contains(string(n.Text()), "FileHash") {
		t.Errorf("%+v, %v", n, err)
	}
	w := fresh.get("/" + n.URL)
	z, err := zstd.NewReader(nil)
	must(t, err)
	defer z.Close()
	if got, err := z.DecodeAll(w.Body.Bytes(), nil); err != nil || !bytes.Equal(got, a.plain) || strings.Contains(w.Header().Get("Etag"), strings.Repeat("0", 20)) {
		t.Errorf("%d bytes, %v, %v", len(got), err, w.Header())
	}
}

// A cache that was destroyed and made again has nothing of what it had.
func TestACacheThatIsMadeAgainIsEmpty(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	at := r.attic(t)
	at.create("team", defaults())
	a := newArchive(t, "hello", noise(5000, "1"), 10_000)
	status, text := at.put("X-Attic-", false, a.upload("team"), bytes.NewReader(a.plain))
	at.want("upload", status, text, &uploaded{})
	want(t, "narinfo", r.get("/team"+a.narinfo()), http.StatusOK)
	want(t, "NAR", r.get("/team"+a.nar()), http.StatusOK)
	status, text = at.do(http.MethodDelete, "_api/v1/cache-config/team", nil, nil)
	at.want("destroy", status, text, nil)
	want(t, "narinfo of a destroyed cache", r.get("/team"+a.narinfo()), http.StatusNotFound)
	at.create("team", defaults())
	want(t, "narinfo of the new cache", r.get("/team"+a.narinfo()), http.StatusNotFound)
	want(t, "NAR of the new cache", r.get("/team"+a.nar()), http.StatusNotFound)
	c, err := r.sqlite.Cache(t.Context(), "team")
	if err != nil || c.Retention != index.GlobalRetention {
		t.Errorf("%+v, %v", c, err)
	}
}

// Another server has destroyed the cache, which this one still believes to be
// there.
func TestPushesToACacheThatAnotherServerDestroyed(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := newArchive(t, "hello", noise(5000, "1"), 10_000)
	p := a.copied(t, codecs[1])
	info, err := json.Marshal(a.upload("team"))
	must(t, err)
	for what, ask := range map[string]func() answer{
		"upload": func() answer {
			return r.ask(http.MethodPut, "/_api/v1/upload-path", a.plain, "X-Attic-Nar-Info", string(info))
		},
		"NAR":     func() answer { return r.put("/team/"+p.named, p.file) },
		"log":     func() answer { return r.put("/team/log/"+hashA+"-x.drv", []byte("x")) },
		"commit":  func() answer { return r.ask(http.MethodPost, "/team/_push/v1/paths", a.commit()) },
		"destroy": func() answer { return r.ask(http.MethodDelete, "/_api/v1/cache-config/team", nil) },
	} {
		r.attic(t).create("team", defaults())
		r.pushArchive(t, a, 10) // so that its chunks are there
		want(t, "a path that is not there", r.get("/team"+a.narinfo()), http.StatusNotFound)
		c, err := r.sqlite.Cache(t.Context(), "team")
		must(t, err)
		must(t, r.sqlite.Update(t.Context(), func(tx index.Tx) error { return tx.RemoveCache(c.ID) }))
		if w := ask(); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "no cache") {
			t.Errorf("%s: %d %s", what, w.Code, w.Body)
		}
		want(t, "after the "+what+", nothing is remembered of the cache", r.get("/team/nix-cache-info"), http.StatusNotFound)
	}
	if strings.Contains(r.log.String(), "request failed") {
		t.Errorf("it is in the log:\n%s", r.log)
	}
}
