package auth_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
)

const namespace = "https://jwt.attic.rs/v1"

// secretBytes are an HS256 key, which secret is the base64 of.
var secretBytes = []byte("a key for tests that is longer than 32 bytes")

var secret = auth.Secret(base64.StdEncoding.EncodeToString(secretBytes))

var rsaKeys = sync.OnceValue(func() []*rsa.PrivateKey {
	keys := make([]*rsa.PrivateKey, 3)
	for i := range keys {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[i] = k
	}
	return keys
})

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func edKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func hs256(t testing.TB) auth.Key {
	t.Helper()
	k, err := auth.ParseHS256(secret)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// open makes an authenticator with the key of secret and a clock to turn.
func open(t testing.TB, c auth.Config) (*auth.Authenticator, *clock) {
	t.Helper()
	c.Enabled = true
	if len(c.HS256Secrets) == 0 {
		c.HS256Secrets = []auth.Secret{secret}
	}
	a, err := auth.New(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	clk := &clock{}
	a.SetClock(clk.now)
	return a, clk
}

// clock is the time, and what was added to it.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// sign makes a token of any claims, with any method and header.
func sign(t testing.TB, method jwt.SigningMethod, key any, header map[string]any, claims any) string {
	t.Helper()
	all := map[string]any{"typ": "JWT", "alg": method.Alg()}
	maps.Copy(all, header)
	h, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(payload)
	signature, err := method.Sign(text, key)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// but returns claims with others in place of some; nil removes one.
func but(claims, others map[string]any) map[string]any {
	for k, v := range others {
		if v == nil {
			delete(claims, k)
		} else {
			claims[k] = v
		}
	}
	return claims
}

// attic are claims with all rights on the cache main.
func attic(more map[string]any) map[string]any {
	c := map[string]any{
		"sub": "ci", "exp": time.Now().Add(time.Hour).Unix(),
		namespace: json.RawMessage(`{"caches":{"main":{"r":1,"w":1,"d":1,"cc":1,"cr":1,"cq":1,"cd":1}}}`),
	}
	return but(c, more)
}

// issuer is an OIDC issuer on this machine.
type issuer struct {
	*httptest.Server
	asked atomic.Int64 // for anything

	mu        sync.Mutex
	keys      []jose.JSONWebKey
	discovery func(w http.ResponseWriter, r *http.Request) // nil: the usual
	jwks      func(w http.ResponseWriter, r *http.Request)
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	i := &issuer{}
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.asked.Add(1)
	i.mu.Lock()
	keys, discovery, jwks := i.keys, i.discovery, i.jwks
	i.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		if discovery != nil {
			discovery(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": i.URL, "jwks_uri": i.URL + "/oauth/discovery/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"},
		})
	case "/oauth/discovery/keys":
		if jwks != nil {
			jwks(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: keys})
	default:
		http.NotFound(w, r)
	}
}

// publish makes these the issuer's keys, by kid.
func (i *issuer) publish(keys map[string]crypto.Signer) {
	var all []jose.JSONWebKey
	for kid, k := range keys {
		all = append(all, jose.JSONWebKey{Key: k.Public(), KeyID: kid, Use: "sig"})
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = all
}

func (i *issuer) answer(discovery, jwks http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.discovery, i.jwks = discovery, jwks
}

const audience = "https://cache.example.org"

// gitlab are the claims of an ID token of a GitLab job.
func (i *issuer) gitlab(more map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"namespace_id": "72", "namespace_path": "bates", "project_id": "20", "project_path": "bates/app",
		"user_id": "1", "user_login": "someone", "user_email": "someone@example.org",
		"user_access_level": "developer", "user_identities": []any{map[string]any{"provider": "github", "extern_uid": "2435223452345"}},
		"groups_direct": []string{"bates", "bates/ops"},
		"pipeline_id":   "574", "pipeline_source": "push", "job_id": "302",
		"ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true",
		"environment": "production", "environment_protected": "true", "deployment_tier": "production",
		"runner_id": 1, "runner_environment": "self-hosted", "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
		"project_visibility": "private", "ci_config_ref_uri": "gitlab.example.org/bates/app//.gitlab-ci.yml@refs/heads/main",
		"jti": "235b3a54-b797-45c7-ae9a-f72d7bc6ef5b", "iss": i.URL, "aud": audience,
		"iat": now.Unix(), "nbf": now.Add(-5 * time.Second).Unix(), "exp": now.Add(time.Hour).Unix(),
		"sub": "project_path:bates/app:ref_type:branch:ref:main",
	}
	return but(c, more)
}

// github are the claims of an ID token of a job of GitHub Actions.
func (i *issuer) github(more map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"jti": "example-id", "sub": "repo:octo-org/octo-repo:environment:prod", "environment": "prod",
		"aud": audience, "ref": "refs/heads/main", "sha": "example-sha",
		"repository": "octo-org/octo-repo", "repository_owner": "octo-org", "actor_id": "12",
		"repository_visibility": "private", "repository_id": "74", "repository_owner_id": "65",
		"run_id": "example-run-id", "run_number": "10", "run_attempt": "2", "runner_environment": "github-hosted",
		"actor": "octocat", "workflow": "example-workflow", "head_ref": "", "base_ref": "",
		"event_name": "workflow_dispatch", "ref_type": "branch",
		"job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
		"iss":              i.URL, "nbf": now.Add(-10 * time.Minute).Unix(), "exp": now.Add(5 * time.Minute).Unix(), "iat": now.Unix(),
	}
	return but(c, more)
}

// rule is one rule with rights to push and pull.
func rule(cache string, claims map[string]auth.Patterns) auth.Rule {
	return auth.Rule{Claims: claims, Allow: auth.Allow{Caches: []string{cache}, Rights: []auth.Right{auth.Pull, auth.Push}}}
}

// trusting is a configuration that trusts an issuer, with these rules.
func (i *issuer) trusting(rules ...auth.Rule) auth.Config {
	return auth.Config{OIDC: []auth.OIDC{{Issuer: i.URL, Audiences: []string{audience, "second"}, Rules: rules}}}
}

// logTo is a logger of everything.
func logTo(b *safeBuffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
