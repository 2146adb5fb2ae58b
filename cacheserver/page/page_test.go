package page_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
)

func TestPagesGiveTheKeysAndURLsThatClientsNeed(t *testing.T) {
	t.Parallel()
	r := open(t)
	c, err := r.Cache(t.Context(), "main")
	must(t, err)
	keys, err := nixcache.PublicKeys(c)
	must(t, err)
	host := strings.TrimPrefix(r.url, "http://")
	a := r.get(t, "/")
	a.has(t, http.StatusOK, "extra-substituters = "+r.url+"/main", `extra-substituters = [ "`+r.url+`/main" ]`, "build --remote_cache=grpc://"+host)
	// The template writes the + of a key as a reference.
	if !strings.Contains(strings.ReplaceAll(a.body, "&#43;", "+"), "extra-trusted-public-keys = "+keys[0]) {
		t.Errorf("%s is not on the page", keys[0])
	}
}

func TestPagesForbidScriptsAndForeignContents(t *testing.T) {
	t.Parallel()
	r := open(t)
	r.fill(t)
	for _, path := range []string{"/", "/-/", "/-/cache/main", "/-/cache/main?q=", "/-/cache/main/" + base("openssl-3.4.1"), "/-/nothing"} {
		a := r.get(t, path)
		if got := a.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none';") {
			t.Errorf("%s: %s", path, got)
		}
		a.lacks(t, "<script", "javascript:", " style=", " onclick")
		for _, link := range regexp.MustCompile(`(?:src|href|action)="([^"]*)"`).FindAllStringSubmatch(a.body, -1) {
			if u, err := url.Parse(link[1]); err != nil || u.Host != "" || u.Scheme != "" {
				t.Errorf("%s leads elsewhere: %s", path, link[1])
			}
		}
	}
}

func TestWhatClientsSayIsEscaped(t *testing.T) {
	t.Parallel()
	r := open(t)
	const evil = `<script>alert("x")</script>`
	r.push(t, "main", "odd?name=1", 100, func(p *index.Path) {
		p.PushedBy, p.CA, p.Deriver = evil, evil, evil
		p.Signatures = []string{evil + ":" + evil}
	})
	for _, path := range []string{"/", "/-/cache/main", "/-/cache/main?q=" + url.QueryEscape(evil), "/-/cache/main/" + url.PathEscape(base("odd?name=1"))} {
		a := r.get(t, path)
		a.has(t, http.StatusOK)
		a.lacks(t, "<script")
	}
	// Its own link leads to it, whatever stands in its name.
	a := r.get(t, "/-/cache/main")
	a.has(t, http.StatusOK, url.PathEscape(base("odd?name=1")))
}

func TestOnlyWhatTheReaderMayPullIsShown(t *testing.T) {
	t.Parallel()
	r := openGuarded(t)
	r.addCache(t, "secret", false)
	r.push(t, "secret", "plans-1.0", 100, nil)
	r.push(t, "main", "public-1.0", 100, nil)
	bearer := []string{"Authorization", "Bearer " + r.token(t, "secret")}
	basic := []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+r.token(t, "secret")))}
	other := []string{"Authorization", "Bearer " + r.token(t, "other")}
	secret := "/-/cache/secret/" + base("plans-1.0")
	for _, c := range []struct {
		path   string
		header []string
		status int
		has    string
	}{
		{"/", nil, 200, "public-1.0"},
		{"/", other, 200, "public-1.0"},
		{"/", bearer, 200, "plans-1.0"},
		{"/-/cache/secret", nil, 401, ""},
		{"/-/cache/no-such", nil, 401, ""},
		{"/-/cache/secret", other, 401, ""},
		{"/-/cache/secret", bearer, 200, "plans-1.0"},
		{secret, nil, 401, ""},
		{secret, other, 401, ""},
		{secret, basic, 200, "plans-1.0"},
		{"/-/cache/main", nil, 200, "public-1.0"},
		{"/-/sign-in", nil, 401, ""},
		{"/-/sign-in", []string{"Authorization", "Bearer x.y.z"}, 401, ""},
		{"/-/sign-in", basic, 303, ""},
	} {
		a := r.get(t, c.path, c.header...)
		a.has(t, c.status, c.has)
		if c.status == http.StatusUnauthorized && !strings.Contains(a.Header.Get("WWW-Authenticate"), "Basic") {
			t.Errorf("%s: a browser does not learn that it may ask for a token", c.path)
		}
		if c.has != "plans-1.0" {
			a.lacks(t, "plans-1.0", `cache/secret"`)
		}
	}
	// Totals would tell of the secret cache.
	r.get(t, "/").lacks(t, "Hit ratio")
	r.get(t, "/", bearer...).has(t, http.StatusOK, "Hit ratio")
}

func TestSearchFindsByWhatPeopleHaveAtHand(t *testing.T) {
	t.Parallel()
	r := open(t)
	r.fill(t)
	page := "/-/cache/main/" + base("openssl-3.4.1")
	for _, query := range []string{
		base("openssl-3.4.1"), hash32("openssl-3.4.1"), "/nix/store/" + base("openssl-3.4.1"),
		"/nix/store/" + base("openssl-3.4.1") + "/lib/libssl.so", " " + hash32("openssl-3.4.1") + ".narinfo ",
	} {
		a := r.get(t, "/-/cache/main?q="+url.QueryEscape(query))
		if a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != page {
			t.Errorf("%q: %d %s", query, a.StatusCode, a.Header.Get("Location"))
		}
	}
	r.get(t, "/-/cache/main?q=OpenSSL").has(t, http.StatusOK, page)
	r.get(t, "/-/cache/main?q="+hash32("openssl-3.4.1")[:6]).has(t, http.StatusOK, page)
	for _, nothing := range []string{"no-such-name", "%00", "%ff%fe", strings.Repeat("x", 400), hash32("nobody")} {
		r.get(t, "/-/cache/main?q="+nothing).has(t, http.StatusOK, "No path of this cache")
	}
	r.get(t, "/-/cache/main?q=&after=nonsense").has(t, http.StatusNotFound)
}

func TestPagingShowsEveryPathOnce(t *testing.T) {
	t.Parallel()
	r := open(t)
	r.fill(t)
	item := regexp.MustCompile(`<li><a href="(/-/cache/main/[^"]+)"`)
	next := regexp.MustCompile(`<a href="([^"]+)" rel="next"`)
	seen := map[string]bool{}
	for at := "/-/cache/main?q="; at != ""; {
		a := r.get(t, at)
		a.has(t, http.StatusOK)
		for _, m := range item.FindAllStringSubmatch(a.body, -1) {
			if seen[m[1]] {
				t.Errorf("%s is there twice", m[1])
			}
			seen[m[1]] = true
		}
		at = ""
		if m := next.FindStringSubmatch(a.body); m != nil {
			at = strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	if len(seen) != 63 {
		t.Errorf("%d paths are listed, of 63", len(seen))
	}
}

func TestOtherDoorsKeepTheirRoutes(t *testing.T) {
	t.Parallel()
	r := open(t)
	html := []string{"Accept", "text/html,application/xhtml+xml,*/*;q=0.8"}
	for _, path := range []string{
		"/nix-cache-info", "/main/nix-cache-info", "/" + hash32("x") + ".narinfo", "/main/" + hash32("x") + ".narinfo",
		"/_api/v1/cache-config/main", "/_push/v1", "/cas/" + strings.Repeat("ab", 32), "/no-such-cache", "/main",
	} {
		r.get(t, path).has(t, http.StatusOK, "the next door")
		if path != "/main" {
			r.get(t, path, html...).has(t, http.StatusOK, "the next door")
		}
	}
	if a := r.get(t, "/main", html...); a.Header.Get("Location") != "/-/cache/main" {
		t.Errorf("a browser that asks for a cache is sent to %q", a.Header.Get("Location"))
	}
}

func TestPinsThatHaveExpiredAreNotShown(t *testing.T) {
	t.Parallel()
	r := open(t)
	r.fill(t)
	c, err := r.Cache(t.Context(), "main")
	must(t, err)
	r.change(t, func(tx index.Tx) error {
		return tx.AddPin(index.Pin{CacheID: c.ID, Name: "long-gone", Hash: hash32("openssl-3.4.1"), Created: time.Now().Add(-2 * day), Expires: time.Now().Add(-day)}, 1)
	})
	r.get(t, "/-/cache/main/"+base("openssl-3.4.1")).lacks(t, "long-gone")
	r.get(t, "/-/cache/main/"+base("web-frontend-4.2.1")).has(t, http.StatusOK, "release-4.2", "ci", "7m12s", "not in this cache")
}
