package nixcache_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
)

// guarded is a rig whose requests need tokens.
type guarded struct {
	*rig
	handler http.Handler
	key     auth.Key
}

func openGuarded(t testing.TB) *guarded {
	t.Helper()
	g := &guarded{rig: openRig(t)}
	secret := auth.GenerateHS256()
	a, err := auth.New(auth.Config{Enabled: true, HS256Secrets: []auth.Secret{secret}}, slog.New(slog.DiscardHandler))
	must(t, err)
	g.key, err = auth.ParseHS256(secret)
	must(t, err)
	g.handler = a.Middleware(g.Door.Handler())
	for _, name := range []string{"private", "public"} {
		key, err := narinfo.GenerateKey(name)
		must(t, err)
		must(t, g.sqlite.Update(t.Context(), func(tx index.Tx) error {
			_, err := tx.AddCache(index.Cache{
				Name: name, StoreDir: "/nix/store", SecretKeys: []string{key.Reveal()}, Public: name == "public", Retention: index.GlobalRetention,
			})
			return err
		}))
	}
	return g
}

// token makes one for some rights on a cache.
func (g *guarded) token(t testing.TB, cache string, rights auth.Right, expires time.Time) string {
	t.Helper()
	text, err := auth.Sign(auth.Claims{Subject: "tester", Expires: expires, Rights: auth.Rights{{Pattern: cache, Rights: rights}}}, g.key)
	must(t, err)
	return text
}

func (g *guarded) as(token, method, route string, body []byte, header ...string) answer {
	a := answer{ResponseRecorder: httptest.NewRecorder()}
	req := httptest.NewRequest(method, route, bytes.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if token != "" {
		req.Header.Set("Authorization", "bearer "+token)
	}
	g.handler.ServeHTTP(a, req)
	return a
}

// request is one to each route, and the rights of which it needs one.
type request struct {
	method, route string
	body          []byte
	header        []string
	rights        []auth.Right
	attic         bool
}

// requests are what can be asked of a cache. The paths and files in them are there
// where they are read.
func requests(t testing.TB, cache string) []request {
	t.Helper()
	p := newArchive(t, "hello", noise(3000, "hello"), 1000).copied(t, codecs[1])
	n := *p.info
	drv := hashA + "-hello.drv"
	info, err := json.Marshal(p.upload(cache))
	must(t, err)
	missing, err := json.Marshal(map[string]any{"cache": cache, "store_path_hashes": []string{hashA}})
	must(t, err)
	create, err := json.Marshal(defaults())
	must(t, err)
	pull, push := []auth.Right{auth.Pull}, []auth.Right{auth.Push}
	in := func(route string) string { return "/" + cache + route }
	return []request{
		{method: "PUT", route: in("/nix-cache-info"), body: []byte("StoreDir: /nix/store\n"), rights: push},
		{method: "PUT", route: in("/" + p.named), body: p.file, rights: push},
		{method: "PUT", route: in(p.narinfo()), body: n.Text(), rights: push},
		{method: "PUT", route: in("/" + hashA + ".ls"), body: []byte("{}"), rights: push},
		{method: "PUT", route: in("/log/" + drv), body: []byte("x"), rights: push},
		{method: "PUT", route: in("/realisations/sha256:ab!out.doi"), body: []byte("{}"), rights: push},
		{method: "PUT", route: in("/build-trace-v2/" + drv + "/out.doi"), body: []byte("{}"), rights: push},
		{method: "PUT", route: in("/debuginfo/" + strings.Repeat("0", 40)), body: []byte("{}"), rights: push},
		{method: "GET", route: in("/nix-cache-info"), rights: pull},
		{method: "GET", route: in(p.narinfo()), rights: pull},
		{method: "GET", route: in(strings.Replace(p.narinfo(), ".narinfo", ".ls", 1)), rights: pull},
		{method: "GET", route: in("/" + p.named), rights: pull},
		{method: "GET", route: in(p.nar()), rights: pull},
		{method: "GET", route: in(strings.TrimSuffix(p.nar(), ".zst")), rights: pull},
		{method: "GET", route: in("/log/" + drv), rights: pull},
		{method: "GET", route: in("/realisations/sha256:ab!out.doi"), rights: pull},
		{method: "GET", route: in("/build-trace-v2/" + drv + "/out.doi"), rights: pull},
		{method: "GET", route: in("/debuginfo/" + strings.Repeat("0", 40)), rights: pull},
		{method: "GET", route: in("/_push/v1"), rights: []auth.Right{auth.Pull, auth.Push}},
		{method: "POST", route: in("/_push/v1/missing-paths"), body: []byte(`{"hashes":[]}`), rights: push},
		{method: "POST", route: in("/_push/v1/missing-chunks"), rights: push},
		{method: "POST", route: in("/_push/v1/chunks"), rights: push},
		{method: "POST", route: in("/_push/v1/paths"), body: p.commit(), rights: push},
		{method: "DELETE", route: in(p.narinfo()), rights: []auth.Right{auth.Delete}},
		{method: "GET", route: in("/attic-cache-info"), rights: pull, attic: true},
		{method: "GET", route: "/_api/v1/cache-config/" + cache, rights: pull, attic: true},
		{method: "POST", route: "/_api/v1/get-missing-paths", body: missing, rights: push, attic: true},
		{method: "PUT", route: "/_api/v1/upload-path", body: p.plain, header: []string{"X-Attic-Nar-Info", string(info)}, rights: push, attic: true},
		{method: "PATCH", route: "/_api/v1/cache-config/" + cache, body: []byte(`{"priority":3,"retention_period":"Global"}`), rights: []auth.Right{auth.Configure}, attic: true},
		{method: "DELETE", route: "/_api/v1/cache-config/" + cache, rights: []auth.Right{auth.Destroy}, attic: true},
		{method: "POST", route: "/_api/v1/cache-config/" + cache, body: create, rights: []auth.Right{auth.Create}, attic: true},
	}
}

// Every route asks for its right, and says what is wrong in the way that its
// clients understand.
func TestEveryRouteAsksForItsRight(t *testing.T) {
	t.Parallel()
	g := openGuarded(t)
	stranger := openGuarded(t) // another server, with another key
	later, before := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	var all auth.Right
	for _, r := range auth.AllRights() {
		all |= r
	}
	for _, cache := range []string{"private", "public", "main"} {
		public := cache != "private"
		for _, q := range requests(t, cache) {
			var own auth.Right
			for _, r := range q.rights {
				own |= r
			}
			open := public && own&auth.Pull != 0
			check := func(who, token string, want int) {
				t.Helper()
				if open {
					want = http.StatusOK
				}
				w := g.as(token, q.method, q.route, q.body, q.header...)
				ok := w.Code == want || want == http.StatusOK && w.Code == http.StatusNoContent
				if want == http.StatusOK && w.Code == http.StatusNotFound && w.Body.String() == "not in this cache\n" {
					ok = true // it was not refused
				}
				if !ok {
					t.Errorf("%s %s, %s: %d %.200s; want %d", q.method, q.route, who, w.Code, w.Body, want)
				}
				if challenged := w.Header().Get("WWW-Authenticate") != ""; challenged != (w.Code == http.StatusUnauthorized) {
					t.Errorf("%s %s, %s: %d with headers %v", q.method, q.route, who, w.Code, w.Header())
				}
				if q.attic && w.Code >= 400 {
					var e struct {
						Code  int
						Error string
					}
					names := map[int]string{http.StatusUnauthorized: "Unauthorized", http.StatusForbidden: "AccessError"}
					if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Code != w.Code || e.Error != names[w.Code] {
						t.Errorf("%s %s, %s: %s", q.method, q.route, who, w.Body)
					}
				}
				if visible := w.Header().Get("X-Attic-Cache-Visibility") == "public"; visible != (public && !q.attic && q.rights[0] == auth.Pull) {
					t.Errorf("%s %s, %s: headers %v", q.method, q.route, who, w.Header())
				}
			}
			// Of a public cache everyone has a right, so it is no secret.
			none := http.StatusUnauthorized
			if public && own != auth.Create {
				none = http.StatusForbidden
			}
			check("without a token", "", none)
			check("with a token that is none", "x.y.z", none)
			check("with an expired token", g.token(t, cache, all, before), none)
			check("with another server's token", stranger.token(t, cache, all, later), none)
			check("with a token for another cache", g.token(t, cache+"x", all, later), none)
			check("with all other rights", g.token(t, cache, all&^own, later), http.StatusForbidden)
			for _, right := range q.rights {
				check(fmt.Sprint("with ", right), g.token(t, cache, right, later), http.StatusOK)
			}
			if q.method != http.MethodGet {
				continue
			}
			// HEAD is as GET.
			w := g.as("", http.MethodHead, q.route, nil)
			if want := map[bool]int{true: http.StatusOK, false: http.StatusUnauthorized}[public]; w.Code != want && w.Code != http.StatusNotFound {
				t.Errorf("HEAD %s: %d; want %d", q.route, w.Code, want)
			}
			if w := g.as(g.token(t, cache, auth.Pull, later), http.MethodHead, q.route, nil); w.Code != http.StatusOK && w.Code != http.StatusNotFound {
				t.Errorf("HEAD %s with its right: %d", q.route, w.Code)
			}
		}
	}
}

// Who has no right on a name does not learn whether there is a cache of it; who has
// one is told that there is none.
func TestCachesThatAreNotThere(t *testing.T) {
	t.Parallel()
	g := openGuarded(t)
	later := time.Now().Add(time.Hour)
	for _, q := range requests(t, "none") {
		if len(q.rights) == 1 && q.rights[0] == auth.Create {
			continue
		}
		if w := g.as("", q.method, q.route, q.body, q.header...); w.Code != http.StatusUnauthorized {
			t.Errorf("%s %s without a token: %d %s", q.method, q.route, w.Code, w.Body)
		}
		if w := g.as(g.token(t, "no*", auth.Delete, later), q.method, q.route, q.body, q.header...); w.Code != http.StatusNotFound {
			t.Errorf("%s %s with a right on the name: %d %s", q.method, q.route, w.Code, w.Body)
		}
	}
	// A path that is not there is a 404 for whoever may read.
	reader := g.token(t, "private", auth.Pull, later)
	for _, route := range []string{"/private/" + hashA + ".narinfo", "/private/nar/x.nar.zst", "/private/" + hashA + ".ls", "/private/log/" + hashA + "-x.drv"} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			if w := g.as(reader, method, route, nil); w.Code != http.StatusNotFound {
				t.Errorf("%s %s: %d", method, route, w.Code)
			}
		}
	}
}

// Attic's client says Global whenever it configures something.
func TestRetentionNeedsARightOfItsOwn(t *testing.T) {
	t.Parallel()
	g := openGuarded(t)
	later := time.Now().Add(time.Hour)
	configure, both := g.token(t, "private", auth.Configure, later), g.token(t, "private", auth.Configure|auth.ConfigureRetention, later)
	const route = "/_api/v1/cache-config/private"
	for i, c := range []struct {
		token, body string
		want        int
	}{
		{configure, `{"priority":1,"retention_period":"Global"}`, http.StatusOK},
		{configure, `{"retention_period":{"Period":60}}`, http.StatusForbidden},
		{both, `{"retention_period":{"Period":60}}`, http.StatusOK},
		{configure, `{"priority":2,"retention_period":{"Period":60}}`, http.StatusOK}, // what it is
		{configure, `{"priority":3,"retention_period":"Global"}`, http.StatusForbidden},
		{g.token(t, "private", auth.ConfigureRetention, later), `{"retention_period":"Global"}`, http.StatusForbidden},
		{both, `{"retention_period":"Global"}`, http.StatusOK},
	} {
		if w := g.as(c.token, http.MethodPatch, route, []byte(c.body)); w.Code != c.want {
			t.Errorf("%d, %s: %d %s; want %d", i, c.body, w.Code, w.Body, c.want)
		}
	}
	there, err := g.sqlite.Cache(t.Context(), "private")
	if err != nil || there.Priority != 2 || there.Retention != index.GlobalRetention {
		t.Errorf("%+v, %v", there, err)
	}
}

// A request of which nobody has found out who makes it may do nothing.
func TestWithoutASubjectNothingIsDone(t *testing.T) {
	t.Parallel()
	g := openGuarded(t)
	g.handler = g.Door.Handler()
	for _, q := range requests(t, "private") {
		if w := g.as(g.token(t, "private", auth.Pull|auth.Push, time.Now().Add(time.Hour)), q.method, q.route, q.body, q.header...); w.Code != http.StatusUnauthorized {
			t.Errorf("%s %s: %d", q.method, q.route, w.Code)
		}
	}
}

func TestWhoPushedIsRecorded(t *testing.T) {
	t.Parallel()
	g := openGuarded(t)
	c, err := g.sqlite.Cache(t.Context(), "private")
	must(t, err)
	token, err := auth.Sign(auth.Claims{Subject: strings.Repeat("é", 150), Rights: auth.Rights{{Pattern: "private", Rights: auth.Push}}}, g.key)
	must(t, err)
	for i, push := range []func(ar *archive) answer{
		func(ar *archive) answer {
			info, err := json.Marshal(ar.upload("private"))
			must(t, err)
			return g.as(token, http.MethodPut, "/_api/v1/upload-path", ar.plain, "X-Attic-Nar-Info", string(info))
		},
		func(ar *archive) answer {
			p := ar.copied(t, codecs[0])
			want(t, "NAR", g.as(token, http.MethodPut, "/private/"+p.named, p.file), http.StatusNoContent)
			return g.as(token, http.MethodPut, "/private"+p.narinfo(), p.info.Text())
		},
		func(ar *archive) answer {
			info, err := json.Marshal(ar.upload("private"))
			must(t, err)
			want(t, "NAR", g.as(token, http.MethodPut, "/_api/v1/upload-path", ar.plain, "X-Attic-Nar-Info", string(info)), http.StatusOK)
			return g.as(token, http.MethodPost, "/private/_push/v1/paths", ar.commit())
		},
	} {
		ar := newArchive(t, fmt.Sprint("path-", i), []byte("contents"), 1<<20)
		if w := push(ar); w.Code/100 != 2 {
			t.Errorf("%d: %d %s", i, w.Code, w.Body)
			continue
		}
		p, err := g.sqlite.Path(t.Context(), c.ID, strings.TrimSuffix(strings.TrimPrefix(ar.narinfo(), "/"), ".narinfo"))
		if err != nil || p.PushedBy != strings.Repeat("é", 100) {
			t.Errorf("%d: pushed by %q, %v", i, p.PushedBy, err)
		}
	}
}
