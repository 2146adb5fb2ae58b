package auth_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
)

var kidA = map[string]any{"kid": "a"}

// rs256 signs with the RSA key 0 as the kid a.
func rs256(t *testing.T, claims map[string]any) string {
	t.Helper()
	return "Bearer " + sign(t, jwt.SigningMethodRS256, rsaKeys()[0], kidA, claims)
}

func issuerWithRSA(t *testing.T) *issuer {
	t.Helper()
	i := newIssuer(t)
	i.publish(map[string]crypto.Signer{"a": rsaKeys()[0]})
	return i
}

func TestRulesTurnClaimsIntoRights(t *testing.T) {
	t.Parallel()
	i := issuerWithRSA(t)
	type claims = map[string]auth.Patterns
	for _, test := range []struct {
		name   string
		rule   claims
		gitlab map[string]any // nil: the token is of GitHub
		github map[string]any
		want   bool
	}{
		{"a GitLab project", claims{"project_path": {"bates/app"}}, map[string]any{}, nil, true},
		{"another project", claims{"project_path": {"bates/app"}}, map[string]any{"project_path": "bates/app2"}, nil, false},
		{"the projects of a group", claims{"project_path": {"bates/*"}}, map[string]any{}, nil, true},
		{"those of its subgroups", claims{"project_path": {"bates/*"}}, map[string]any{"project_path": "bates/sub/app"}, nil, true},
		{"not those of a group that begins alike", claims{"project_path": {"bates/*"}}, map[string]any{"project_path": "bates-evil/app"}, nil, false},
		{"not in another's group of that name", claims{"project_path": {"bates/*"}}, map[string]any{"project_path": "evil/bates/app"}, nil, false},
		{"case counts", claims{"project_path": {"bates/*"}}, map[string]any{"project_path": "Bates/app"}, nil, false},
		{"a protected ref", claims{"project_path": {"bates/*"}, "ref_protected": {"true"}}, map[string]any{}, nil, true},
		{"an unprotected ref", claims{"project_path": {"bates/*"}, "ref_protected": {"true"}}, map[string]any{"ref_protected": "false"}, nil, false},
		{"protected as a truth value", claims{"ref_protected": {"true"}}, map[string]any{"ref_protected": true}, nil, true},
		{"an environment", claims{"environment": {"staging", "production"}}, map[string]any{}, nil, true},
		{"no environment", claims{"environment": {"*"}}, map[string]any{"environment": nil}, nil, false},
		{"an environment that is null", claims{"environment": {"*"}}, map[string]any{"environment": json.RawMessage("null")}, nil, false},
		{"one of a list", claims{"groups_direct": {"bates/ops"}}, map[string]any{}, nil, true},
		{"none of a list", claims{"groups_direct": {"bates/dev"}}, map[string]any{}, nil, false},
		{"a number", claims{"runner_id": {"1"}}, map[string]any{}, nil, true},
		{"an object", claims{"user_identities": {"*"}}, map[string]any{}, nil, false},
		{"a claim in another case", claims{"Project_Path": {"*"}}, map[string]any{}, nil, false},
		{"all claims, not one", claims{"project_path": {"bates/*"}, "ref": {"release"}}, map[string]any{}, nil, false},
		{"a GitHub repository", claims{"repository": {"octo-org/octo-repo"}, "ref": {"refs/heads/main"}}, nil, map[string]any{}, true},
		{"a fork", claims{"repository": {"octo-org/octo-repo"}}, nil, map[string]any{"repository": "fork/octo-repo"}, false},
		{"an environment of GitHub", claims{"repository_owner": {"octo-org"}, "environment": {"prod"}}, nil, map[string]any{}, true},
		{"a reusable workflow", claims{"job_workflow_ref": {"octo-org/octo-automation/.github/workflows/*@refs/heads/main"}}, nil, map[string]any{}, true},
		{
			"one of another branch",
			claims{"job_workflow_ref": {"octo-org/octo-automation/.github/workflows/*@refs/heads/main"}},
			nil,
			map[string]any{"job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/evil"},
			false,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a, _ := open(t, i.trusting(rule("main", test.rule)))
			claims := i.github(test.github)
			if test.gitlab != nil {
				claims = i.gitlab(test.gitlab)
			}
			s := a.Authenticate(t.Context(), rs256(t, claims))
			if got := s.Can(auth.Push|auth.Pull, "main"); got != test.want {
				t.Errorf("may push: %v, want %v; problem %v", got, test.want, s.Problem())
			}
			if want := test.want; (s.Problem() == nil) != want || !want && !errors.Is(s.Problem(), auth.ErrNoRule) {
				t.Errorf("problem %v", s.Problem())
			}
			if s.Can(auth.Delete, "main") || s.Any("other") {
				t.Error("it may do more than the rule says")
			}
			if sub, _ := claims["sub"].(string); s.Name() != sub+" ("+strings.TrimPrefix(i.URL, "http://")+")" {
				t.Errorf("it is %q", s.Name())
			}
		})
	}
}

func TestMatchingRulesAddUp(t *testing.T) {
	t.Parallel()
	i := issuerWithRSA(t)
	mine := map[string]auth.Patterns{"project_path": {"bates/*"}}
	reads := auth.Rule{Claims: mine, Allow: auth.Allow{Caches: []string{"*"}, Rights: []auth.Right{auth.Pull}}}
	deletes := auth.Rule{Claims: mine, Allow: auth.Allow{Caches: []string{"main", "tmp-*"}, Rights: []auth.Right{auth.Delete}}}
	others := rule("other", map[string]auth.Patterns{"project_path": {"elsewhere/*"}})
	a, _ := open(t, i.trusting(reads, rule("main", mine), deletes, others))
	s := a.Authenticate(t.Context(), rs256(t, i.gitlab(nil)))
	for cache, want := range map[string]auth.Right{
		"main": auth.Pull | auth.Push | auth.Delete, "tmp-1": auth.Pull | auth.Delete, "other": auth.Pull,
	} {
		for _, r := range auth.AllRights() {
			if got := s.Can(r, cache); got != (want&r != 0) {
				t.Errorf("%v on %s: %v", r, cache, got)
			}
		}
	}
}

func TestBadIDTokenIsNobody(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	p384 := ecKey(t, elliptic.P384())
	i.publish(map[string]crypto.Signer{"a": rsaKeys()[0], "p384": p384})
	i.mu.Lock()
	i.keys = append(i.keys, jose.JSONWebKey{Key: secretBytes, KeyID: "oct"},
		jose.JSONWebKey{Key: rsaKeys()[2].Public(), KeyID: "enc", Use: "enc"},
		jose.JSONWebKey{Key: rsaKeys()[2].Public(), KeyID: "ps", Use: "sig", Algorithm: "PS256"})
	i.mu.Unlock()
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: rsaKeys()[0].N.Bytes()})
	rs, hs := jwt.SigningMethodRS256, jwt.SigningMethodHS256
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).Unix() }
	for _, test := range []struct {
		name, token string
		want        error
	}{
		{"expired", sign(t, rs, rsaKeys()[0], kidA, i.gitlab(map[string]any{"exp": ago(2 * time.Minute)})), auth.ErrExpired},
		{"not yet valid", sign(t, rs, rsaKeys()[0], kidA, i.gitlab(map[string]any{"nbf": ago(-2 * time.Minute)})), auth.ErrNotYetValid},
		{"without an end", sign(t, rs, rsaKeys()[0], kidA, i.gitlab(map[string]any{"exp": nil})), auth.ErrMalformed},
		{"another audience", sign(t, rs, rsaKeys()[0], kidA, i.gitlab(map[string]any{"aud": "https://vault.example.org"})), auth.ErrAudience},
		{"other audiences", sign(t, rs, rsaKeys()[0], kidA, i.gitlab(map[string]any{"aud": []string{"x", "y"}})), auth.ErrAudience},
		{"no audience", sign(t, rs, rsaKeys()[0], kidA, i.gitlab(map[string]any{"aud": nil})), auth.ErrMalformed},
		{"an unknown issuer", sign(t, rs, rsaKeys()[0], kidA, i.gitlab(map[string]any{"iss": i.URL + "/"})), auth.ErrSignature},
		{"no issuer", sign(t, rs, rsaKeys()[0], kidA, i.gitlab(map[string]any{"iss": nil})), auth.ErrSignature},
		{"another key under a known kid", sign(t, rs, rsaKeys()[1], kidA, i.gitlab(nil)), auth.ErrSignature},
		{"an unknown kid", sign(t, rs, rsaKeys()[1], map[string]any{"kid": "b"}, i.gitlab(nil)), auth.ErrSignature},
		{"an unknown key without a kid", sign(t, rs, rsaKeys()[1], nil, i.gitlab(nil)), auth.ErrSignature},
		{"a known key under an unknown kid", sign(t, rs, rsaKeys()[0], map[string]any{"kid": "b"}, i.gitlab(nil)), auth.ErrSignature},
		{"alg none", sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, kidA, i.gitlab(nil)), auth.ErrSignature},
		{"the public key as an HS256 secret", sign(t, hs, publicPEM, kidA, i.gitlab(nil)), auth.ErrSignature},
		{"the modulus as an HS256 secret", sign(t, hs, rsaKeys()[0].N.Bytes(), kidA, i.gitlab(nil)), auth.ErrSignature},
		{"a published symmetric key", sign(t, hs, secretBytes, map[string]any{"kid": "oct"}, i.gitlab(nil)), auth.ErrSignature},
		{"this server's own key in the issuer's name", sign(t, hs, secretBytes, nil, attic(map[string]any{"iss": i.URL})), auth.ErrSignature},
		{"a key for encryption", sign(t, rs, rsaKeys()[2], map[string]any{"kid": "enc"}, i.gitlab(nil)), auth.ErrSignature},
		{"a key for another algorithm", sign(t, rs, rsaKeys()[2], map[string]any{"kid": "ps"}, i.gitlab(nil)), auth.ErrSignature},
		{"an RSA key's kid with ES256", sign(t, jwt.SigningMethodES256, ecKey(t, elliptic.P256()), kidA, i.gitlab(nil)), auth.ErrSignature},
		{"a key in the header", sign(t, rs, rsaKeys()[1], map[string]any{"jwk": jose.JSONWebKey{Key: rsaKeys()[1].Public()}}, i.gitlab(nil)), auth.ErrSignature},
		{"a critical extension", sign(t, rs, rsaKeys()[0], map[string]any{"kid": "a", "crit": []string{"x"}}, i.gitlab(nil)), auth.ErrMalformed},
		{"Attic's rights from outside", sign(t, rs, rsaKeys()[0], kidA, i.gitlab(map[string]any{
			"project_path": "evil/app",
			namespace:      json.RawMessage(`{"caches":{"*":{"r":1,"w":1}}}`),
		})), auth.ErrNoRule},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a, _ := open(t, i.trusting(rule("main", map[string]auth.Patterns{"project_path": {"bates/*"}})))
			s := a.Authenticate(t.Context(), "Bearer "+test.token)
			if !errors.Is(s.Problem(), test.want) || s.Any("main") {
				t.Errorf("problem %v, want %v", s.Problem(), test.want)
			}
		})
	}
}

func TestIssuersSignWithManyKindsOfKeys(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	keys := map[string]crypto.Signer{
		"rsa": rsaKeys()[0], "p256": ecKey(t, elliptic.P256()), "p384": ecKey(t, elliptic.P384()), "p521": ecKey(t, elliptic.P521()), "ed": edKey(t),
	}
	i.publish(keys)
	a, _ := open(t, i.trusting(rule("main", map[string]auth.Patterns{"project_path": {"bates/*"}})))
	for _, test := range []struct {
		method jwt.SigningMethod
		kid    string
	}{
		{jwt.SigningMethodRS256, "rsa"},
		{jwt.SigningMethodRS512, "rsa"},
		{jwt.SigningMethodPS256, "rsa"},
		{jwt.SigningMethodES256, "p256"},
		{jwt.SigningMethodES384, "p384"},
		{jwt.SigningMethodES512, "p521"},
		{jwt.SigningMethodEdDSA, "ed"},
	} {
		for _, header := range []map[string]any{{"kid": test.kid}, nil} {
			token := sign(t, test.method, keys[test.kid], header, i.gitlab(nil))
			if s := a.Authenticate(t.Context(), "Bearer "+token); !s.Can(auth.Push, "main") {
				t.Errorf("%s, %v: %v", test.method.Alg(), header, s.Problem())
			}
		}
	}
	if n := i.asked.Load(); n != 2 {
		t.Errorf("the issuer was asked %d times, want once for its configuration and once for its keys", n)
	}
}

func TestRotatedKeysAreFound(t *testing.T) {
	t.Parallel()
	i := issuerWithRSA(t)
	a, clk := open(t, i.trusting(rule("main", map[string]auth.Patterns{"project_path": {"bates/*"}})))
	before := rs256(t, i.gitlab(nil))
	if s := a.Authenticate(t.Context(), before); s.Problem() != nil {
		t.Fatal(s.Problem())
	}
	i.publish(map[string]crypto.Signer{"b": rsaKeys()[1]})
	after := "Bearer " + sign(t, jwt.SigningMethodRS256, rsaKeys()[1], map[string]any{"kid": "b"}, i.gitlab(nil))
	clk.advance(auth.FetchPause)
	if s := a.Authenticate(t.Context(), after); !s.Can(auth.Push, "main") {
		t.Fatalf("with the new key: %v", s.Problem())
	}
	// A key may have been withdrawn because it leaked.
	clk.advance(auth.KeysAge + time.Second)
	if s := a.Authenticate(t.Context(), before); !errors.Is(s.Problem(), auth.ErrSignature) {
		t.Errorf("with the withdrawn key: %v", s.Problem())
	}
}

func TestForgedTokensDoNotHaveTheIssuerAskedEachTime(t *testing.T) {
	t.Parallel()
	i := issuerWithRSA(t)
	a, _ := open(t, i.trusting(rule("main", map[string]auth.Patterns{"project_path": {"bates/*"}})))
	forged := "Bearer " + sign(t, jwt.SigningMethodRS256, rsaKeys()[1], map[string]any{"kid": "nonesuch"}, i.gitlab(nil))
	start := time.Now()
	a.SetClock(func() time.Time { return start })
	for range 100 {
		if s := a.Authenticate(t.Context(), forged); !errors.Is(s.Problem(), auth.ErrSignature) {
			t.Fatal(s.Problem())
		}
	}
	if n := i.asked.Load(); n != 2 {
		t.Errorf("the issuer was asked %d times for 100 forged tokens, want 2", n)
	}
	if s := a.Authenticate(t.Context(), rs256(t, i.gitlab(nil))); s.Problem() != nil {
		t.Errorf("a good token among them: %v", s.Problem())
	}
}

func TestIssuerThatIsDownIsNoVerdictOnItsTokens(t *testing.T) {
	t.Parallel()
	i := issuerWithRSA(t)
	var log safeBuffer
	c := i.trusting(rule("main", map[string]auth.Patterns{"project_path": {"bates/*"}}))
	c.Enabled, c.Anonymous = true, []auth.Allow{{Caches: []string{"open"}, Rights: []auth.Right{auth.Pull}}}
	a, err := auth.New(c, logTo(&log))
	if err != nil {
		t.Fatal(err)
	}
	clk := &clock{}
	a.SetClock(clk.now)
	down := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "proxy error", http.StatusBadGateway) }
	i.answer(down, down)
	token := rs256(t, i.gitlab(nil))
	for range 3 {
		s := a.Authenticate(t.Context(), token)
		for _, cache := range []string{"main", "open"} {
			if err := s.Check(auth.Push, cache); !errors.Is(err, auth.ErrIssuerUnavailable) || errors.Is(err, auth.ErrUnauthorized) {
				t.Errorf("%s: %v", cache, err)
			}
		}
		if err := s.Check(auth.Pull, "open"); err != nil {
			t.Errorf("what is open to all: %v", err)
		}
	}
	if n := strings.Count(log.String(), "cannot be had"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}

	i.answer(nil, nil)
	clk.advance(auth.FetchPause)
	if s := a.Authenticate(t.Context(), token); !s.Can(auth.Push, "main") {
		t.Fatalf("once it is back: %v", s.Problem())
	}
	if !strings.Contains(log.String(), "can be had again") {
		t.Errorf("its return is not logged:\n%s", log.String())
	}

	// Down again: the keys that are here go on working, however old.
	i.answer(down, down)
	for range 3 {
		clk.advance(auth.KeysAge + time.Second)
		fresh := rs256(t, i.gitlab(map[string]any{"exp": clk.now().Add(time.Minute).Unix(), "jti": clk.now().String()}))
		if s := a.Authenticate(t.Context(), fresh); !s.Can(auth.Push, "main") {
			t.Errorf("with keys from before: %v", s.Problem())
		}
	}
}

func TestSlowIssuerHoldsNobodyForLong(t *testing.T) {
	t.Parallel()
	i := issuerWithRSA(t)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) }) // before the issuer is closed, which waits for its handlers
	i.answer(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}, nil)
	a, _ := open(t, i.trusting(rule("main", map[string]auth.Patterns{"project_path": {"bates/*"}})))
	a.SetPatience(20 * time.Millisecond)
	start := time.Now()
	a.SetClock(func() time.Time { return start })
	token := rs256(t, i.gitlab(nil))
	var g sync.WaitGroup
	for range 50 {
		g.Go(func() {
			if s := a.Authenticate(t.Context(), token); !errors.Is(s.Problem(), auth.ErrIssuerUnavailable) {
				t.Error(s.Problem())
			}
		})
	}
	g.Wait()
	if n := i.asked.Load(); n > 1 {
		t.Errorf("it was asked %d times by 50 requests", n)
	}
}

// A client that hangs up must not end what others wait for.
func TestFetchOutlivesTheRequestThatBeganIt(t *testing.T) {
	t.Parallel()
	i := issuerWithRSA(t)
	asked, release := make(chan struct{}), make(chan struct{})
	i.answer(nil, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		i.mu.Lock()
		defer i.mu.Unlock()
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: i.keys})
	})
	a, _ := open(t, i.trusting(rule("main", map[string]auth.Patterns{"project_path": {"bates/*"}})))
	token := rs256(t, i.gitlab(nil))
	ctx, hangUp := context.WithCancel(t.Context())
	var g sync.WaitGroup
	g.Go(func() { a.Authenticate(ctx, token) })
	<-asked
	hangUp()
	// One who waits and hangs up does not wait on.
	if s := a.Authenticate(ctx, token); !errors.Is(s.Problem(), context.Canceled) {
		t.Errorf("problem %v", s.Problem())
	}
	g.Go(func() {
		if s := a.Authenticate(t.Context(), token); !s.Can(auth.Push, "main") {
			t.Errorf("another who waits: %v", s.Problem())
		}
	})
	close(release)
	g.Wait()
}

func TestIssuersAnswersAreNotTrusted(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("another host was asked")
	}))
	t.Cleanup(elsewhere.Close)
	endless := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"keys":["`)
		for {
			if _, err := w.Write([]byte(strings.Repeat("x", 64<<10))); err != nil {
				return
			}
		}
	}
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
	}
	redirect := func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weakKeys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: weak.Public(), KeyID: "a"}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, answers := range map[string]struct{ discovery, jwks http.HandlerFunc }{
		"an endless configuration":  {endless, nil},
		"endless keys":              {nil, endless},
		"a configuration elsewhere": {redirect, nil},
		"keys elsewhere":            {nil, redirect},
		"keys at another host":      {text(`{"issuer":"ISSUER","jwks_uri":"` + elsewhere.URL + `/keys"}`), nil},
		"keys in a file":            {text(`{"issuer":"ISSUER","jwks_uri":"file:///etc/passwd"}`), nil},
		"no place of keys":          {text(`{"issuer":"ISSUER"}`), nil},
		"another issuer":            {text(`{"issuer":"https://other.example.org","jwks_uri":"ISSUER/oauth/discovery/keys"}`), nil},
		"no JSON":                   {text(`<html>`), nil},
		"keys that are no JSON":     {nil, text(`<html>`)},
		"no keys":                   {nil, text(`{"keys":[]}`)},
		"keys of unknown kinds":     {nil, text(`{"keys":[{"kty":"new"},{"kty":"RSA"},7,null,{}]}`)},
		"too many keys":             {nil, text(`{"keys":[` + strings.Repeat(`{},`, 1000) + `{}]}`)},
		"weak keys":                 {nil, text(string(weakKeys))},
		"no success":                {nil, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := issuerWithRSA(t)
			discovery := answers.discovery
			if discovery != nil {
				discovery = func(w http.ResponseWriter, r *http.Request) {
					rec := httptest.NewRecorder()
					if name == "an endless configuration" || name == "a configuration elsewhere" {
						answers.discovery(w, r)
						return
					}
					answers.discovery(rec, r)
					_, _ = io.WriteString(w, strings.ReplaceAll(rec.Body.String(), "ISSUER", i.URL))
				}
			}
			i.answer(discovery, answers.jwks)
			a, _ := open(t, i.trusting(rule("main", map[string]auth.Patterns{"project_path": {"bates/*"}})))
			s := a.Authenticate(t.Context(), rs256(t, i.gitlab(nil)))
			if !errors.Is(s.Problem(), auth.ErrIssuerUnavailable) || s.Any("main") {
				t.Errorf("problem %v", s.Problem())
			}
		})
	}
}

func TestTokenCannotHaveAnyURLFetched(t *testing.T) {
	t.Parallel()
	evil := newIssuer(t)
	evil.publish(map[string]crypto.Signer{"a": rsaKeys()[1]})
	i := issuerWithRSA(t)
	a, _ := open(t, i.trusting(rule("main", map[string]auth.Patterns{"project_path": {"bates/*"}})))
	for _, header := range []map[string]any{
		{"kid": "a"},
		{"kid": "a", "jku": evil.URL + "/oauth/discovery/keys"},
		{"kid": evil.URL + "/oauth/discovery/keys"},
		{"kid": "a", "x5u": evil.URL},
	} {
		for _, claims := range []map[string]any{evil.gitlab(nil), i.gitlab(nil), i.gitlab(map[string]any{
			"_claim_names": map[string]string{"project_path": "e"}, "_claim_sources": map[string]any{"e": map[string]string{"endpoint": evil.URL}},
		})} {
			s := a.Authenticate(t.Context(), "Bearer "+sign(t, jwt.SigningMethodRS256, rsaKeys()[1], header, claims))
			if s.Any("main") {
				t.Errorf("%v has rights", header)
			}
		}
	}
	if n := evil.asked.Load(); n != 0 {
		t.Errorf("a URL of the token's choosing was asked %d times", n)
	}
}

func TestIssuerWithItsOwnCertificateAuthority(t *testing.T) {
	t.Parallel()
	i := &issuer{}
	i.Server = httptest.NewUnstartedServer(i)
	i.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of handshakes that fail as they should
	i.StartTLS()
	t.Cleanup(i.Close)
	i.publish(map[string]crypto.Signer{"a": rsaKeys()[0]})
	token := rs256(t, i.gitlab(nil))
	c := i.trusting(rule("main", map[string]auth.Patterns{"project_path": {"bates/*"}}))
	untrusting, _ := open(t, c)
	if s := untrusting.Authenticate(t.Context(), token); !errors.Is(s.Problem(), auth.ErrIssuerUnavailable) {
		t.Errorf("without its authority: %v", s.Problem())
	}
	c.OIDC[0].CAFile = filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw})
	if err := os.WriteFile(c.OIDC[0].CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	c.OIDC[0].JWKSURL = i.URL + "/oauth/discovery/keys"
	a, _ := open(t, c)
	if s := a.Authenticate(t.Context(), token); !s.Can(auth.Push, "main") {
		t.Errorf("with its authority: %v", s.Problem())
	}
	if n := i.asked.Load(); n != 1 {
		t.Errorf("asked %d times; where the keys are was said", n)
	}
}
