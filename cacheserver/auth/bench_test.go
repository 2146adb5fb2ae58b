package auth_test

import (
	"crypto"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
)

func BenchmarkAuthenticate(b *testing.B) {
	i := newIssuer(b)
	i.publish(map[string]crypto.Signer{"a": rsaKeys()[0]})
	a, _ := open(b, i.trusting(rule("main", map[string]auth.Patterns{"project_path": {"bates/*"}})))
	hs := sign(b, jwt.SigningMethodHS256, secretBytes, nil, attic(nil))
	oidc := sign(b, jwt.SigningMethodRS256, rsaKeys()[0], map[string]any{"kid": "a"}, i.gitlab(nil))
	forged := sign(b, jwt.SigningMethodHS256, secretBytes[1:], nil, attic(nil))
	for _, test := range []struct {
		name, token string
		want        bool
	}{{"remembered", hs, true}, {"remembered of an issuer", oidc, true}, {"forged", forged, false}} {
		b.Run(test.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if a.Authenticate(b.Context(), "Bearer "+test.token).Can(auth.Push, "main") != test.want {
					b.Fatal("another verdict")
				}
			}
		})
	}
}
