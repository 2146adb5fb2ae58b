package page_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/page"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

const day = 24 * time.Hour

// rig is the pages over an index, on a free port.
type rig struct {
	*index.SQLite
	url string
	key auth.Key // of tokens, where they are needed
}

// open opens pages over an empty index with the cache main, for everyone.
func open(t testing.TB) *rig { return openWith(t, auth.Config{}) }

// openGuarded opens pages that want tokens.
func openGuarded(t testing.TB) *rig {
	secret := auth.GenerateHS256()
	r := openWith(t, auth.Config{Enabled: true, HS256Secrets: []auth.Secret{secret}})
	var err error
	r.key, err = auth.ParseHS256(secret)
	must(t, err)
	return r
}

func openWith(t testing.TB, c auth.Config) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	sqlite, err := index.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "index.sqlite"))
	must(t, err)
	t.Cleanup(func() { must(t, sqlite.Close()) })
	_, err = nixcache.EnsureCache(t.Context(), sqlite, "main", "/nix/store")
	must(t, err)
	callers, err := auth.New(c, log)
	must(t, err)
	pages := page.New(sqlite, page.Config{
		DefaultCache: "main", Retention: 90 * day, Log: log,
		URL: func(r *http.Request) string { return "http://" + r.Host + "/" },
		Usage: func(ctx context.Context) (index.Usage, bool) {
			u, err := sqlite.Usage(ctx)
			return u, err == nil
		},
	})
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the next door") })
	hs := httptest.NewServer(callers.Middleware(pages.Handler(next)))
	t.Cleanup(hs.Close)
	return &rig{SQLite: sqlite, url: hs.URL}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) change(t testing.TB, change func(index.Tx) error) {
	t.Helper()
	must(t, r.Update(t.Context(), change))
}

// addCache makes a cache besides main.
func (r *rig) addCache(t testing.TB, name string, public bool) index.Cache {
	t.Helper()
	key, err := narinfo.GenerateKey(name + "-1")
	must(t, err)
	r.change(t, func(tx index.Tx) error {
		_, err := tx.AddCache(index.Cache{
			Name: name, StoreDir: "/nix/store", Priority: 30, SecretKeys: []string{key.Reveal()}, Retention: 30 * day, Public: public,
		})
		return err
	})
	c, err := r.Cache(t.Context(), name)
	must(t, err)
	return c
}

func hash32(name string) string { return digest.Of([]byte(name)).Nix32()[:storepath.HashLen] }

func base(name string) string { return hash32(name) + "-" + name }

// push records a path. Of its NAR, only the index knows.
func (r *rig) push(t testing.TB, cache, name string, size int64, change func(*index.Path)) {
	t.Helper()
	c, err := r.Cache(t.Context(), cache)
	must(t, err)
	chunk := digest.Chunk{Hash: digest.Of([]byte(cache + name)), Size: uint32(size)}
	r.change(t, func(tx index.Tx) error {
		packed := uint32(size/3 + 1)
		if err := tx.AddPack(chunk.Hash.String()[:40], int64(packed)+100, []pack.Entry{{Kind: pack.KindChunk, Chunk: chunk, Offset: 10, Length: packed}}); err != nil {
			return err
		}
		blob, err := tx.AddBlob(index.Blob{
			Digest: digest.Digest{Hash: chunk.Hash, Size: size}, FileHash: digest.Of([]byte(name)), FileSize: int64(packed),
		}, []digest.Chunk{chunk}, time.Now().Add(time.Hour))
		if err != nil {
			return err
		}
		p := index.Path{CacheID: c.ID, Hash: hash32(name), Name: name, NAR: blob}
		if change != nil {
			change(&p)
		}
		_, err = tx.PutPath(p)
		return err
	})
}

// fill makes the index look like that of a team that has worked for a while.
func (r *rig) fill(t testing.TB) {
	t.Helper()
	r.addCache(t, "toolchains", true)
	r.push(t, "main", "glibc-2.40-66", 30<<20, nil)
	r.push(t, "main", "openssl-3.4.1", 7<<20, func(p *index.Path) {
		p.References, p.Signatures = []string{base("glibc-2.40-66")}, []string{"cache.nixos.org-1:" + strings.Repeat("A", 86) + "=="}
	})
	for i := range 60 {
		r.push(t, "main", fmt.Sprintf("nodejs-package-%02d-with-a-rather-long-name-1.%d.0", i, i), int64(i+1)<<15, func(p *index.Path) {
			p.References = []string{base("glibc-2.40-66"), base("not-in-this-cache-1.0")}
		})
	}
	r.push(t, "toolchains", "rustc-1.89.0", 700<<20, func(p *index.Path) { p.PushedBy = "project_path:bates-ils/toolchains:ref_type:branch:ref:main" })
	r.push(t, "main", "web-frontend-4.2.1", 120<<20, func(p *index.Path) {
		p.References = []string{base("glibc-2.40-66"), base("openssl-3.4.1"), base("not-in-this-cache-1.0"), base("web-frontend-4.2.1")}
		p.Deriver, p.PushedBy, p.BuildTime = base("web-frontend-4.2.1.drv"), "ci", 7*time.Minute+12*time.Second
	})
	main, err := r.Cache(t.Context(), "main")
	must(t, err)
	r.change(t, func(tx index.Tx) error {
		return tx.AddPin(index.Pin{CacheID: main.ID, Name: "release-4.2", Hash: hash32("web-frontend-4.2.1"), Created: time.Now(), Expires: time.Now().Add(365 * day)}, 3)
	})
	now := time.Now().Truncate(time.Second)
	r.change(t, func(tx index.Tx) error {
		for at := now.Add(-9 * day); at.Before(now); at = at.Add(30 * time.Minute) {
			grown := float64(at.Sub(now.Add(-12*day))) / float64(12*day)
			busy := math.Max(0, math.Sin(float64(at.Unix()%86400)/86400*2*math.Pi-1.5))
			for name, value := range map[string]float64{
				"pack-bytes": grown * 210e9, "chunk-bytes": grown * 540e9, "blob-bytes": grown * grown * 1500e9,
				"hits": math.Round(400*busy) + 3, "misses": math.Round(60*busy*(1.2-grown)) + 1,
			} {
				if err := tx.AddSample(name, index.Sample{At: at, Value: value}, time.Time{}); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// reply is an answer, read to its end.
type reply struct {
	*http.Response
	body string
}

func (r *rig) get(t testing.TB, path string, header ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+path, nil)
	must(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	once := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := once.Do(req)
	must(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(t, err)
	return reply{res, string(body)}
}

// token is one of a caller who may pull from a cache.
func (r *rig) token(t testing.TB, cache string) string {
	t.Helper()
	text, err := auth.Sign(auth.Claims{Subject: "tester", Expires: time.Now().Add(time.Hour), Rights: auth.Rights{{Pattern: cache, Rights: auth.Pull}}}, r.key)
	must(t, err)
	return text
}

// has checks that a page is there with some texts on it.
func (a reply) has(t testing.TB, status int, texts ...string) {
	t.Helper()
	if a.StatusCode != status {
		t.Fatalf("%s: %d, want %d: %.300s", a.Request.URL, a.StatusCode, status, a.body)
	}
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			t.Errorf("%s: %q is not on the page", a.Request.URL, text)
		}
	}
}

// lacks checks that texts are not on a page.
func (a reply) lacks(t testing.TB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(a.body, text) {
			t.Errorf("%s: %q is on the page", a.Request.URL, text)
		}
	}
}
