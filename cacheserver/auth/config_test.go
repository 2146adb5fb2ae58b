package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
)

func TestConfigurationIsReadFromTOML(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/auth.toml")
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var file struct {
		Auth auth.Config `toml:"auth"`
	}
	m, err := toml.Decode(strings.ReplaceAll(string(text), "hs256.key", key), &file)
	if err != nil {
		t.Fatal(err)
	}
	if unknown := m.Undecoded(); len(unknown) > 0 {
		t.Errorf("not read: %v", unknown)
	}
	if _, err := auth.New(file.Auth, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	c := file.Auth
	if len(c.OIDC) != 2 || len(c.OIDC[0].Rules) != 2 || len(c.Anonymous) != 1 || c.Issuer != "bates" {
		t.Fatalf("%+v", c)
	}
	r := c.OIDC[0].Rules[0]
	if r.Claims["ref_protected"][0] != "true" || r.Claims["project_path"][0] != "bates/*" || r.Caches[0] != "main" || r.Rights[1] != auth.Push {
		t.Errorf("%+v", r)
	}
	if p := c.OIDC[0].Rules[1].Claims["project_path"]; len(p) != 2 || p[1] != "partner/app" {
		t.Errorf("%q", p)
	}
	if p := c.OIDC[1].Rules[0].Claims["repository_owner_id"]; len(p) != 1 || p[0] != "65" {
		t.Errorf("%q", p)
	}
	for name, bad := range map[string]string{
		"an unknown right":      `[[auth.anonymous]]` + "\n" + `rights = ["read"]`,
		"a claim with a number": `[[auth.oidc]]` + "\n" + `rules = [{ claims = { a = 1.5 } }]`,
		"a claim with a table":  `[[auth.oidc]]` + "\n" + `rules = [{ claims = { a = { b = 1 } } }]`,
	} {
		if _, err := toml.Decode(bad, &file); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestConfigurationThatLetsInTooManyIsRefused(t *testing.T) {
	t.Parallel()
	good := func() auth.Config {
		return auth.Config{Enabled: true, HS256Secrets: []auth.Secret{secret}, OIDC: []auth.OIDC{{
			Issuer: "https://gitlab.example.org", Audiences: []string{audience},
			Rules: []auth.Rule{rule("main", map[string]auth.Patterns{"project_path": {"bates/*"}})},
		}}}
	}
	ca := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(ca, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.New(good(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		spoil func(*auth.Config)
		want  string
	}{
		"nothing that checks":      {func(c *auth.Config) { *c = auth.Config{Enabled: true} }, "without keys"},
		"a short secret":           {func(c *auth.Config) { c.HS256Secrets = []auth.Secret{"c2hvcnQ="} }, "at least 32 bytes, not 5"},
		"a secret that is no key":  {func(c *auth.Config) { c.HS256Secrets = []auth.Secret{"päss wörd"} }, "auth.hs256_secrets, number 1: malformed key"},
		"an RSA key that is none":  {func(c *auth.Config) { c.RS256Keys = []auth.Secret{"päss wörd"} }, "auth.rs256_keys, number 1"},
		"a missing file":           {func(c *auth.Config) { c.HS256Files = []string{"/nonexistent/key"} }, "/nonexistent/key"},
		"a directory":              {func(c *auth.Config) { c.RS256Files = []string{"."} }, "."},
		"a file without end":       {func(c *auth.Config) { c.HS256Files = []string{"/dev/zero"} }, "longer than"},
		"nobody's anything":        {func(c *auth.Config) { c.Anonymous = []auth.Allow{{Caches: []string{"a"}}} }, "no rights"},
		"a bad pattern":            {func(c *auth.Config) { c.Anonymous = []auth.Allow{{Caches: []string{"a b"}, Rights: []auth.Right{1}}} }, `"a b"`},
		"no issuer":                {func(c *auth.Config) { c.OIDC[0].Issuer = "" }, "want a URL"},
		"no URL":                   {func(c *auth.Config) { c.OIDC[0].Issuer = "gitlab.example.org" }, "want a URL"},
		"a password in it":         {func(c *auth.Config) { c.OIDC[0].Issuer = "https://u:p@gitlab.example.org" }, "want a URL"},
		"http":                     {func(c *auth.Config) { c.OIDC[0].Issuer = "http://gitlab.example.org" }, "want https"},
		"keys by http":             {func(c *auth.Config) { c.OIDC[0].JWKSURL = "http://gitlab.example.org/keys" }, "jwks_url"},
		"keys in a file":           {func(c *auth.Config) { c.OIDC[0].JWKSURL = "file:///etc/passwd" }, "jwks_url"},
		"no audience":              {func(c *auth.Config) { c.OIDC[0].Audiences = nil }, "no audiences"},
		"an empty audience":        {func(c *auth.Config) { c.OIDC[0].Audiences = []string{""} }, "empty"},
		"no rules":                 {func(c *auth.Config) { c.OIDC[0].Rules = nil }, "no rules"},
		"a rule for all":           {func(c *auth.Config) { c.OIDC[0].Rules[0].Claims = nil }, "no claims"},
		"a claim without patterns": {func(c *auth.Config) { c.OIDC[0].Rules[0].Claims = map[string]auth.Patterns{"a": nil} }, `"a"`},
		"a rule without rights":    {func(c *auth.Config) { c.OIDC[0].Rules[0].Rights = nil }, "rule 1"},
		"the same issuer twice":    {func(c *auth.Config) { c.OIDC = append(c.OIDC, c.OIDC[0]) }, "twice"},
		"no authority":             {func(c *auth.Config) { c.OIDC[0].CAFile = ca }, "no certificate"},
		"a missing authority":      {func(c *auth.Config) { c.OIDC[0].CAFile = ca + "x" }, "no such file"},
	} {
		c := good()
		test.spoil(&c)
		_, err := auth.New(c, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want it to say %q", name, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "wörd") {
			t.Errorf("%s: it shows the key: %v", name, err)
		}
	}
}

func TestKeysThatAreTooWeakOrOfAnotherKindAreRefused(t *testing.T) {
	t.Parallel()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"weak":   string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(weak)})),
		"EC":     string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: ecDER})),
		"empty":  "",
		"broken": "-----BEGIN RSA PRIVATE KEY-----\n",
		"base64": base64.StdEncoding.EncodeToString([]byte("no PEM")),
	} {
		if _, err := auth.ParseRS256(auth.Secret(text)); !errors.Is(err, auth.ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"", "!", "c2hvcnQ="} {
		if _, err := auth.ParseHS256(auth.Secret(text)); !errors.Is(err, auth.ErrKey) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestKeysOfTheEnvironment(t *testing.T) {
	t.Parallel()
	rs := auth.Secret(base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKeys()[0])})))
	env := map[string]string{
		"ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64": string(rs),
		"ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64": string(auth.GenerateHS256()),
		"CACHESERVER_TOKEN_HS256_SECRET_BASE64":  string(secret),
	}
	keys, err := auth.KeysFrom(func(name string) string { return env[name] })
	if err != nil || len(keys) != 3 {
		t.Fatalf("%v, %v", keys, err)
	}
	if keys[0].Algorithm() != "HS256" || keys[2].Algorithm() != "RS256" {
		t.Errorf("in the order %v", keys)
	}
	token, err := auth.Sign(auth.Claims{Subject: "x"}, hs256(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := keys[0].Checks(token); err != nil {
		t.Errorf("the server's own is not the first: %v", err)
	}
	for name := range maps.Keys(env) {
		_, err := auth.KeysFrom(func(asked string) string {
			if asked == name {
				return "päss wörd"
			}
			return ""
		})
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "wörd") {
			t.Errorf("%s malformed: %v", name, err)
		}
	}
}

func TestGeneratedKeysAreGood(t *testing.T) {
	t.Parallel()
	if a, b := auth.GenerateHS256(), auth.GenerateHS256(); a == b || len(a) < 80 {
		t.Error("two keys are alike, or short")
	}
	text, err := auth.GenerateRS256()
	if err != nil {
		t.Fatal(err)
	}
	k, err := auth.ParseRS256(text)
	if err != nil {
		t.Fatal(err)
	}
	token, err := auth.Sign(auth.Claims{Subject: "x"}, k)
	if err != nil || k.Checks(token) != nil {
		t.Errorf("it does not sign: %v", err)
	}
	half, err := k.Public()
	if err != nil {
		t.Fatal(err)
	}
	public, err := auth.ParseRS256(auth.Secret(half))
	if err != nil || public.Checks(token) != nil {
		t.Errorf("its public half does not check: %v", err)
	}
	if _, err := hs256(t).Public(); err == nil {
		t.Error("an HS256 key has a public half")
	}
}
