package auth_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
)

// Whatever the header is, it gives no rights, and every word of it is bounded.
func FuzzAuthorization(f *testing.F) {
	for _, seed := range []string{
		"", "bearer a.b.c", "Bearer  x", "Basic Og==", basic("u", "a.b.c"), "Digest x", "Basic !", "Bearer eyJhbGciOiJub25lIn0.e30.",
		"Bearer " + sign(f, jwt.SigningMethodHS384, secretBytes, nil, attic(nil)),
		"Bearer " + sign(f, jwt.SigningMethodHS256, []byte("x"), map[string]any{"kid": 7}, attic(nil)),
	} {
		f.Add(seed)
	}
	a, err := auth.New(auth.Config{Enabled: true, HS256Secrets: []auth.Secret{auth.GenerateHS256()}}, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, header string) {
		token, err := auth.TokenOf(header)
		if (err == nil) == (token == "") || len(token) > auth.MaxToken {
			t.Fatalf("%q, %v", token, err)
		}
		s := a.Authenticate(t.Context(), header)
		if s.Any("main") || s.Name() != "" || (s.Problem() == nil) != (header == "") {
			t.Fatalf("%v: %v", s, s.Problem())
		}
		if _, err := auth.Inspect(token); err != nil && !errors.Is(err, auth.ErrMalformed) && !errors.Is(err, auth.ErrTooLarge) {
			t.Fatal(err)
		}
	})
}

// What is read out of signed claims is written and read back the same, and gives
// no right that is not there.
func FuzzClaims(f *testing.F) {
	for _, seed := range []string{
		`{"caches":{"a":{"r":1},"b*":{"w":1,"zz":7}}}`, `{"caches":{}}`, `{}`, `null`, `{"caches":{"a":{"r":2}}}`, `{"caches":{"a":{"r":1},"a":{"r":0}}}`,
		`{"caches":{"*":{"r":1,"w":1,"d":1,"cc":1,"cr":1,"cq":1,"cd":1}}}`, `{"Caches":{"a":{"r":1}}}`,
	} {
		f.Add([]byte(`{"sub":"x","`+namespace+`":`+seed+`}`), "a")
	}
	f.Add([]byte(`{"exp":1e400,"nbf":-1,"iat":null,"aud":[1]}`), "*")
	key := hs256(f)
	a, _ := open(f, auth.Config{})
	f.Fuzz(func(t *testing.T, claims []byte, cache string) {
		r, err := auth.RightsIn(claims)
		if err == nil {
			text, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			var back auth.Rights
			if err := json.Unmarshal(text, &back); err != nil || !slices.Equal(r, back) {
				t.Fatalf("%s is %v, was %v; error %v", text, back, r, err)
			}
		}
		text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims)
		signature, signErr := jwt.SigningMethodHS256.Sign(text, secretBytes)
		if signErr != nil {
			t.Fatal(signErr)
		}
		token := text + "." + base64.RawURLEncoding.EncodeToString(signature)
		s := a.Authenticate(t.Context(), "Bearer "+token)
		switch {
		case err != nil && s.Any(cache):
			t.Fatalf("rights on %q by %s", cache, claims)
		case s.Problem() == nil && s.Any(cache) != (r.On(cache) != 0):
			t.Fatalf("rights on %q by %s: %v", cache, claims, r)
		case strings.Contains(cache, "*") && s.Any(cache):
			t.Fatalf("rights on the pattern %q", cache)
		}
		info, err := auth.Inspect(token)
		if s.Problem() == nil && (err != nil || !slices.Equal(info.Rights, r)) {
			t.Fatalf("%v: %v, inspected %v", err, r, info.Rights)
		}
		if len(token) <= auth.MaxToken && err == nil {
			if err := key.Checks(token); err != nil {
				t.Fatal(err)
			}
		}
	})
}
