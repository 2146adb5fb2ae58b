package auth_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
)

func TestTokenThatWasMadeIsAccepted(t *testing.T) {
	t.Parallel()
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKeys()[0])})
	public, err := x509.MarshalPKIXPublicKey(rsaKeys()[0].Public())
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(rsaKeys()[0])
	if err != nil {
		t.Fatal(err)
	}
	rs, err := auth.ParseRS256(auth.Secret(private))
	if err != nil {
		t.Fatal(err)
	}
	asPEM := func(kind string, der []byte) auth.Secret {
		return auth.Secret(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	for _, test := range []struct {
		name string
		by   auth.Key
		at   auth.Config
	}{
		{"HS256", hs256(t), auth.Config{HS256Secrets: []auth.Secret{secret}}},
		{"HS256 in the second place", hs256(t), auth.Config{HS256Secrets: []auth.Secret{auth.GenerateHS256(), secret + "\n"}}},
		{"RS256, the private key", rs, auth.Config{RS256Keys: []auth.Secret{asPEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKeys()[0]))}}},
		{"RS256, PKCS #8", rs, auth.Config{RS256Keys: []auth.Secret{asPEM("PRIVATE KEY", pkcs8)}}},
		{"RS256, as Attic has it", rs, auth.Config{RS256Keys: []auth.Secret{auth.Secret(base64.StdEncoding.EncodeToString(private))}}},
		{"RS256, PKIX", rs, auth.Config{RS256Keys: []auth.Secret{asPEM("PUBLIC KEY", public)}}},
		{"RS256, PKCS #1 public", rs, auth.Config{RS256Keys: []auth.Secret{asPEM("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKeys()[0].PublicKey))}}},
		{"a key of the environment", hs256(t), auth.Config{HS256Secrets: []auth.Secret{auth.GenerateHS256()}, Keys: []auth.Key{hs256(t)}}},
		{"the issuer and one of the audiences", hs256(t), auth.Config{Issuer: "me", Audiences: []string{"a", "b"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			token, err := auth.Sign(auth.Claims{
				Subject: "ci", Issuer: "me", Audience: []string{"b", "c"},
				Issued: time.Now(), Expires: time.Now().Add(time.Hour),
				Rights: auth.Rights{{Pattern: "main*", Rights: auth.Pull}, {Pattern: "*", Rights: auth.Push}},
			}, test.by)
			if err != nil {
				t.Fatal(err)
			}
			a, _ := open(t, test.at)
			for range 2 { // once verified, once remembered
				s := a.Authenticate(t.Context(), "bearer "+token)
				if s.Problem() != nil || s.Name() != "ci" {
					t.Fatalf("%q: %v", s.Name(), s.Problem())
				}
				if !s.Can(auth.Pull, "main-1") || s.Can(auth.Push, "main-1") || !s.Can(auth.Push, "other") || s.Can(auth.Push|auth.Pull, "other") {
					t.Error("the order of the caches was lost")
				}
			}
		})
	}
}

func TestBadTokenIsNobody(t *testing.T) {
	t.Parallel()
	public, err := x509.MarshalPKIXPublicKey(rsaKeys()[0].Public())
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	now := time.Now()
	hs, rs := jwt.SigningMethodHS256, jwt.SigningMethodRS256
	good := sign(t, hs, secretBytes, nil, attic(nil))
	parts := strings.Split(good, ".")
	wider := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"x","` + namespace + `":{"caches":{"*":{"w":1}}}}`))
	for _, test := range []struct {
		name, token string
		want        error
		at          auth.Config
	}{
		{"expired", sign(t, hs, secretBytes, nil, attic(map[string]any{"exp": now.Add(-2 * time.Minute).Unix()})), auth.ErrExpired, auth.Config{}},
		{"expired in 1970", sign(t, hs, secretBytes, nil, attic(map[string]any{"exp": 0})), auth.ErrExpired, auth.Config{}},
		{"expires with text", sign(t, hs, secretBytes, nil, attic(map[string]any{"exp": "never"})), auth.ErrMalformed, auth.Config{}},
		{"expires with null", sign(t, hs, secretBytes, nil, attic(map[string]any{"exp": json.RawMessage("null")})), auth.ErrMalformed, auth.Config{}},
		{"not yet valid", sign(t, hs, secretBytes, nil, attic(map[string]any{"nbf": now.Add(2 * time.Minute).Unix()})), auth.ErrNotYetValid, auth.Config{}},
		{"another secret", sign(t, hs, append([]byte{1}, secretBytes...), nil, attic(nil)), auth.ErrSignature, auth.Config{}},
		{"another RSA key", sign(t, rs, rsaKeys()[1], nil, attic(nil)), auth.ErrSignature, auth.Config{}},
		{"alg none", sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, attic(nil)), auth.ErrSignature, auth.Config{}},
		{"alg None", strings.Join([]string{base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"None"}`)), parts[1], ""}, "."), auth.ErrSignature, auth.Config{}},
		{"no alg", strings.Join([]string{base64.RawURLEncoding.EncodeToString([]byte(`{}`)), parts[1], parts[2]}, "."), auth.ErrSignature, auth.Config{}},
		{"HS384", sign(t, jwt.SigningMethodHS384, secretBytes, nil, attic(nil)), auth.ErrSignature, auth.Config{}},
		{"HS512", sign(t, jwt.SigningMethodHS512, secretBytes, nil, attic(nil)), auth.ErrSignature, auth.Config{}},
		{"PS256", sign(t, jwt.SigningMethodPS256, rsaKeys()[0], nil, attic(nil)), auth.ErrSignature, auth.Config{}},
		{"ES256", sign(t, jwt.SigningMethodES256, ecKey(t, elliptic.P256()), nil, attic(nil)), auth.ErrSignature, auth.Config{}},
		{"the RSA public key as an HS256 secret", sign(t, hs, publicPEM, nil, attic(nil)), auth.ErrSignature, auth.Config{}},
		{"the DER of it", sign(t, hs, public, nil, attic(nil)), auth.ErrSignature, auth.Config{}},
		{"an empty HS256 secret", sign(t, hs, []byte{}, nil, attic(nil)), auth.ErrSignature, auth.Config{}},
		{"other claims under a good signature", parts[0] + "." + wider + "." + parts[2], auth.ErrSignature, auth.Config{}},
		{"no signature", parts[0] + "." + parts[1] + ".", auth.ErrSignature, auth.Config{}},
		{"half a signature", good[:len(good)-23], auth.ErrSignature, auth.Config{}},
		{"two parts", parts[0] + "." + parts[1], auth.ErrMalformed, auth.Config{}},
		{"four parts", good + ".x", auth.ErrMalformed, auth.Config{}},
		{"padding", good + "=", auth.ErrMalformed, auth.Config{}},
		{"garbage", "garbage", auth.ErrMalformed, auth.Config{}},
		{"dots", "..", auth.ErrMalformed, auth.Config{}},
		{"no JSON", "e30.bm90LWpzb24.e30", auth.ErrMalformed, auth.Config{}},
		{"a critical extension", sign(t, hs, secretBytes, map[string]any{"crit": []string{"exp"}}, attic(nil)), auth.ErrMalformed, auth.Config{}},
		{"huge", sign(t, hs, secretBytes, nil, attic(map[string]any{"sub": strings.Repeat("x", auth.MaxToken)})), auth.ErrTooLarge, auth.Config{}},
		{"no audience", good, auth.ErrMalformed, auth.Config{Audiences: []string{"me"}}},
		{"another audience", sign(t, hs, secretBytes, nil, attic(map[string]any{"aud": "you"})), auth.ErrAudience, auth.Config{Audiences: []string{"me"}}},
		{"another issuer", sign(t, hs, secretBytes, nil, attic(map[string]any{"iss": "you"})), auth.ErrIssuer, auth.Config{Issuer: "me"}},
		{"no issuer", good, auth.ErrMalformed, auth.Config{Issuer: "me"}},
		{"no rights", sign(t, hs, secretBytes, nil, attic(map[string]any{namespace: nil})), auth.ErrMalformed, auth.Config{}},
		{"malformed rights", sign(t, hs, secretBytes, nil, attic(map[string]any{namespace: map[string]any{"caches": map[string]any{"main": map[string]any{"r": true}}}})), auth.ErrMalformed, auth.Config{}},
		{"a subject that is a number", sign(t, hs, secretBytes, nil, attic(map[string]any{"sub": 7})), auth.ErrMalformed, auth.Config{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.at.RS256Keys = []auth.Secret{auth.Secret(publicPEM)}
			test.at.Anonymous = []auth.Allow{{Caches: []string{"open"}, Rights: []auth.Right{auth.Pull}}}
			a, _ := open(t, test.at)
			s := a.Authenticate(t.Context(), "Bearer "+test.token)
			if !errors.Is(s.Problem(), test.want) {
				t.Errorf("problem %v, want %v", s.Problem(), test.want)
			}
			if s.Any("main") || s.Name() != "" {
				t.Errorf("it is %q and has rights", s.Name())
			}
			if !s.Can(auth.Pull, "open") {
				t.Error("it has less than somebody without a token")
			}
			if err := s.Check(auth.Pull, "main"); !errors.Is(err, auth.ErrUnauthorized) || !errors.Is(err, test.want) {
				t.Errorf("checked: %v", err)
			}
			if err := s.Check(auth.Push, "open"); !errors.Is(err, auth.ErrForbidden) {
				t.Errorf("checked for a cache of which it has a right: %v", err)
			}
			if len(test.token) > 10 && strings.Contains(s.Check(auth.Pull, "main").Error(), test.token[:10]) {
				t.Error("the error shows the token")
			}
			if a.Remembered() != 0 {
				t.Error("it was remembered")
			}
		})
	}
}

func TestClocksMayBeAMinuteApart(t *testing.T) {
	t.Parallel()
	a, _ := open(t, auth.Config{})
	for _, claims := range []map[string]any{
		{"exp": time.Now().Add(-30 * time.Second).Unix()},
		{"nbf": time.Now().Add(30 * time.Second).Unix()},
		{"exp": nil}, // Attic's may live for ever
	} {
		s := a.Authenticate(t.Context(), "Bearer "+sign(t, jwt.SigningMethodHS256, secretBytes, nil, attic(claims)))
		if !s.Can(every, "main") {
			t.Errorf("%v: %v", claims, s.Problem())
		}
	}
}

func TestRememberedTokenExpires(t *testing.T) {
	t.Parallel()
	a, clk := open(t, auth.Config{})
	header := "Bearer " + sign(t, jwt.SigningMethodHS256, secretBytes, nil, attic(nil))
	if s := a.Authenticate(t.Context(), header); !s.Can(auth.Pull, "main") {
		t.Fatal(s.Problem())
	}
	if a.Remembered() != 1 {
		t.Fatal("it was not remembered")
	}
	clk.advance(2 * time.Hour)
	s := a.Authenticate(t.Context(), header)
	if !errors.Is(s.Problem(), auth.ErrExpired) || s.Any("main") {
		t.Errorf("problem %v", s.Problem())
	}
	if a.Remembered() != 0 {
		t.Error("it is still remembered")
	}
}

func TestSignRefusesWhatNoServerWouldTake(t *testing.T) {
	t.Parallel()
	public := auth.Secret(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKeys()[0].PublicKey)}))
	checksOnly, err := auth.ParseRS256(public)
	if err != nil {
		t.Fatal(err)
	}
	many := make(auth.Rights, 600)
	for i := range many {
		many[i] = auth.Grant{Pattern: strings.Repeat("a", 40), Rights: every}
	}
	main := auth.Rights{{Pattern: "main", Rights: auth.Pull}}
	for name, test := range map[string]struct {
		claims auth.Claims
		key    auth.Key
	}{
		"a public key":  {auth.Claims{Subject: "x", Rights: main}, checksOnly},
		"no subject":    {auth.Claims{Rights: main}, hs256(t)},
		"a bad pattern": {auth.Claims{Subject: "x", Rights: auth.Rights{{Pattern: "a b", Rights: auth.Pull}}}, hs256(t)},
		"too large":     {auth.Claims{Subject: "x", Rights: many}, hs256(t)},
	} {
		if token, err := auth.Sign(test.claims, test.key); err == nil || token != "" {
			t.Errorf("%s: %q, %v", name, token, err)
		}
	}
}

func TestInspectShowsWhatIsSaid(t *testing.T) {
	t.Parallel()
	want := auth.Claims{
		Subject: "ci", Issuer: "me", Audience: []string{"b"}, Issued: time.Unix(1_700_000_000, 0), Starts: time.Unix(1_700_000_001, 0),
		Expires: time.Unix(1_700_000_002, 0), Rights: auth.Rights{{Pattern: "z", Rights: auth.Pull}, {Pattern: "a*", Rights: every}},
	}
	token, err := auth.Sign(want, hs256(t))
	if err != nil {
		t.Fatal(err)
	}
	info, err := auth.Inspect(token)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(info.Claims)
	expect, _ := json.Marshal(want)
	if string(got) != string(expect) || info.Algorithm != "HS256" {
		t.Errorf("%s %s\nwant %s", info.Algorithm, got, expect)
	}
	if err := hs256(t).Checks(token); err != nil {
		t.Errorf("the signature of an expired token: %v", err)
	}
	other, err := auth.ParseHS256(auth.GenerateHS256())
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Checks(token); !errors.Is(err, auth.ErrSignature) {
		t.Errorf("another key: %v", err)
	}
	for _, bad := range []string{"", "x", "a.b.c", strings.Repeat("x", auth.MaxToken+1)} {
		if _, err := auth.Inspect(bad); err == nil {
			t.Errorf("%.10q was read", bad)
		}
	}
}
