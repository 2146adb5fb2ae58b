package auth

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// issuerMethods are what an issuer may sign with: public keys only.
var issuerMethods = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// issuer checks the ID tokens of one OIDC issuer.
type issuer struct {
	host   string
	parser *jwt.Parser
	keys   *keySet
	rules  []rule
	now    func() time.Time
}

// rule is a Rule with its rights in order.
type rule struct {
	claims map[string]Patterns
	rights Rights
}

// newIssuer makes the issuer of a configuration that was checked.
func newIssuer(c OIDC, now func() time.Time, log *slog.Logger) (*issuer, error) {
	u, err := url.Parse(c.Issuer)
	if err != nil {
		return nil, err
	}
	options := append(parserOptions(now), jwt.WithValidMethods(issuerMethods),
		jwt.WithIssuer(c.Issuer), jwt.WithAudience(c.Audiences...), jwt.WithExpirationRequired())
	i := &issuer{host: u.Host, parser: jwt.NewParser(options...), now: now}
	for _, r := range c.Rules {
		rights, err := r.rights()
		if err != nil {
			return nil, err
		}
		i.rules = append(i.rules, rule{r.Claims, rights})
	}
	i.keys, err = newKeySet(c, now, log)
	return i, err
}

func (i *issuer) verify(ctx context.Context, token string) (Subject, time.Time, error) {
	keys, err := i.keys.current(ctx)
	if err != nil {
		return Subject{}, time.Time{}, err
	}
	claims, unknownKey, err := i.parse(token, keys)
	if unknownKey {
		// The issuer may have new keys.
		if keys, err = i.keys.newer(ctx); err == nil {
			claims, _, err = i.parse(token, keys)
		}
	}
	if err != nil {
		return Subject{}, time.Time{}, problemOf(err)
	}
	c, err := read(token, claims)
	if err != nil {
		return Subject{}, time.Time{}, err
	}
	s := Subject{name: printable(c.Subject) + " (" + i.host + ")"}
	for _, r := range i.rules {
		if r.applies(claims) {
			s.rights = append(s.rights, r.rights)
		}
	}
	if s.rights == nil {
		s.problem = ErrNoRule
	}
	until := endOf(c.Expires)
	// A key that the issuer has withdrawn is not to be trusted for longer than
	// the keys are.
	if limit := i.now().Add(keysAge); limit.Before(until) {
		until = limit
	}
	return s, until, nil
}

// parse checks a token with keys. unknownKey says that it is well-formed but
// that none of them has signed it.
func (i *issuer) parse(token string, keys keys) (_ jwt.MapClaims, unknownKey bool, _ error) {
	claims := jwt.MapClaims{}
	asked := false
	_, err := i.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		if err := checkHeader(t); err != nil {
			return nil, err
		}
		asked = true
		return keys.of(t), nil
	})
	unknownKey = asked && (errors.Is(err, jwt.ErrTokenSignatureInvalid) || errors.Is(err, jwt.ErrTokenUnverifiable))
	return claims, unknownKey, err
}

func (r rule) applies(claims jwt.MapClaims) bool {
	for name, patterns := range r.claims {
		if !patterns.match(valuesOf(claims[name])) {
			return false
		}
	}
	return true
}
