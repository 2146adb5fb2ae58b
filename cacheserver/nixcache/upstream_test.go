package nixcache

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
)

func TestUpstreamsThatAreRefused(t *testing.T) {
	t.Parallel()
	key, err := narinfo.GenerateKey("up-1")
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{key.Public()}
	for what, c := range map[string]struct {
		u    Upstream
		says string
	}{
		"good":                {Upstream{"https://cache.example.org", keys}, ""},
		"with path and name":  {Upstream{"http://me:secret@cache.example.org:8080/main/", keys}, ""},
		"no keys":             {Upstream{"https://me:secret@cache.example.org", nil}, "no public key"},
		"half a key":          {Upstream{"https://me:secret@cache.example.org", append(keys, "up-1:AAAA")}, "public key 2"},
		"its secret key":      {Upstream{"https://cache.example.org", []string{key.Reveal()}}, "public key 1"},
		"a file":              {Upstream{"file:///secret", keys}, "want http"},
		"no scheme":           {Upstream{"cache.example.org", keys}, "want http"},
		"no host":             {Upstream{"https:///main", keys}, "want http"},
		"with a query":        {Upstream{"https://me:secret@cache.example.org/?x=y", keys}, "want http"},
		"malformed, password": {Upstream{"https://me:secret@cache.example.org:port", keys}, "malformed"},
	} {
		err := c.u.Check()
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v; want %q", what, err, c.says)
		}
		if err != nil && (strings.Contains(err.Error(), "me:secret") || strings.Contains(err.Error(), key.Reveal())) {
			t.Errorf("%s: it quotes a secret: %v", what, err)
		}
	}
}

func TestAddressesThatAreNotPublic(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"8.8.8.8:443": true, "[2606:4700::1111]:443": true, "172.32.0.1:80": true,
		"127.0.0.1:80": false, "127.9.9.9:80": false, "[::1]:80": false, "0.0.0.0:80": false, "0.1.2.3:80": false, "[::]:80": false,
		"10.1.2.3:80": false, "172.16.0.1:80": false, "192.168.1.1:80": false, "[fd00::1]:80": false, "100.64.0.1:80": false,
		"169.254.169.254:80": false, "[fe80::1%eth0]:80": false, "224.0.0.1:80": false, "[ff02::1]:80": false, "255.255.255.255:80": false,
		"[::ffff:127.0.0.1]:80": false, "[::ffff:10.0.0.1]:80": false, "[64:ff9b::a00:1]:80": false, "[2002:7f00:1::]:80": false,
		"localhost:80": false, "": false,
	} {
		if got := isPublic(address); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

// A redirect of a cache on the Internet leads nowhere inside.
func TestARedirectIntoThisNetworkIsNotFollowed(t *testing.T) {
	t.Parallel()
	asked := false
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer inside.Close()
	outside := httptest.NewServer(http.RedirectHandler(inside.URL, http.StatusFound))
	defer outside.Close()
	key, err := narinfo.GenerateKey("up-1")
	if err != nil {
		t.Fatal(err)
	}
	u, err := newUpstream(Upstream{outside.URL, []string{key.Public()}}, "me", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	// As if it had been reached at a public address, which a test has none of.
	u.own = transport(nil)
	resp, err := u.get(context.Background(), u.root, "")
	if err == nil {
		_ = resp.Body.Close()
	}
	if !errors.Is(err, errUnusable) || !strings.Contains(err.Error(), "not public") || asked {
		t.Errorf("%v, asked: %v", err, asked)
	}
}
