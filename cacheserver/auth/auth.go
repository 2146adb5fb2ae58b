// Package auth decides who may do what. It knows nothing of the doors that ask
// it: each request has a Subject, and a Subject has rights on caches.
//
// A Subject is found by a token: one that was made for this server, with the
// claims that Attic's have (Sign, Rights), or the ID token of an OIDC issuer,
// whose claims the configuration's rules turn into rights. A token that is not
// accepted is as none, except that Subject.Problem remembers why.
package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	lru "github.com/hashicorp/golang-lru/v2"
)

// Challenge is the WWW-Authenticate of an answer of 401.
const Challenge = `Bearer realm="cacheserver", Basic realm="cacheserver"`

// maxVerified bounds how many tokens are remembered to be good.
const maxVerified = 4 << 10

// Authenticator finds out who makes a request.
type Authenticator struct {
	enabled   bool
	anonymous []Rights
	own       source
	issuers   map[string]source // by the iss of their tokens
	verified  *lru.Cache[[sha256.Size]byte, verified]
	log       *slog.Logger
	clock     clock
}

// clock is time.Now, but in tests.
type clock struct{ now func() time.Time }

type verified struct {
	Subject
	issuer string
	until  time.Time // zero is for ever
}

// New reads the keys and checks the configuration. It does not wait for issuers:
// they are asked when the first of their tokens comes.
func New(c Config, log *slog.Logger) (*Authenticator, error) {
	a := &Authenticator{enabled: c.Enabled, issuers: map[string]source{}, log: log, clock: clock{time.Now}}
	if !c.Enabled {
		return a, nil
	}
	now := func() time.Time { return a.clock.now() }
	keys, err := c.OwnKeys()
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 && len(c.OIDC) == 0 {
		return nil, errors.New("auth: is enabled without keys and without OIDC issuers, so that nobody could make a token")
	}
	a.own = newOwn(keys, c.Issuer, c.Audiences, now)
	for i, allow := range c.Anonymous {
		rights, err := allow.rights()
		if err != nil {
			return nil, fmt.Errorf("auth.anonymous, number %d: %w", i+1, err)
		}
		a.anonymous = append(a.anonymous, rights)
	}
	for i, o := range c.OIDC {
		if err := o.check(); err != nil {
			return nil, fmt.Errorf("auth.oidc, number %d: %w", i+1, err)
		}
		if _, twice := a.issuers[o.Issuer]; twice {
			return nil, fmt.Errorf("auth.oidc, number %d: %s stands there twice", i+1, o.Issuer)
		}
		if a.issuers[o.Issuer], err = newIssuer(o, now, log); err != nil {
			return nil, fmt.Errorf("auth.oidc, number %d: %w", i+1, err)
		}
	}
	a.verified, err = lru.New[[sha256.Size]byte, verified](maxVerified)
	return a, err
}

// Enabled is false where everybody may do everything.
func (a *Authenticator) Enabled() bool { return a.enabled }

// Authenticate returns who sends an Authorization header; empty is none. It may
// take as long as an issuer takes to tell its keys, 5 s at most, and never fails:
// of what it could not accept or find out, the subject knows.
func (a *Authenticator) Authenticate(ctx context.Context, authorization string) Subject {
	if !a.enabled {
		return Unrestricted()
	}
	if authorization == "" {
		return Subject{rights: a.anonymous}
	}
	s, issuer, err := a.verify(ctx, authorization)
	if err != nil {
		s = Subject{problem: err}
	}
	if s.problem != nil {
		a.log.Debug("token gives no rights", "subject", s.name, "issuer", issuer, "reason", s.problem)
	}
	s.rights = append(slices.Clip(s.rights), a.anonymous...)
	return s
}

// verify returns the issuer that a token claims to have as well.
func (a *Authenticator) verify(ctx context.Context, authorization string) (_ Subject, issuer string, _ error) {
	token, err := tokenOf(authorization)
	if err != nil {
		return Subject{}, "", err
	}
	key := sha256.Sum256([]byte(token))
	if v, ok := a.verified.Get(key); ok {
		if v.until.IsZero() || a.clock.now().Before(v.until) {
			return v.Subject, v.issuer, nil
		}
		a.verified.Remove(key)
	}
	claims := jwt.MapClaims{}
	_, _, err = jwt.NewParser(jwt.WithJSONNumber(), jwt.WithStrictDecoding()).ParseUnverified(token, claims)
	if err != nil {
		return Subject{}, "", problemOf(err)
	}
	// What a token says of its issuer chooses among those that are configured,
	// and nothing else.
	name, _ := claims["iss"].(string)
	from, ok := a.issuers[name]
	if !ok {
		from = a.own
	}
	issuer = printable(name)
	s, until, err := from.verify(ctx, token)
	if err != nil {
		return Subject{}, issuer, err
	}
	a.verified.Add(key, verified{s, issuer, until})
	return s, issuer, nil
}

// FromMetadata is Authenticate for the values of authorization in the metadata
// of a gRPC call, or of any header: several are not accepted.
func (a *Authenticator) FromMetadata(ctx context.Context, authorization []string) Subject {
	switch len(authorization) {
	case 0:
		return a.Authenticate(ctx, "")
	case 1:
		return a.Authenticate(ctx, authorization[0])
	}
	if !a.enabled {
		return Unrestricted()
	}
	return Subject{rights: a.anonymous, problem: ErrHeader}
}

// Middleware finds out who makes a request before next answers it; SubjectOf
// tells next. It refuses nothing.
func (a *Authenticator) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := a.FromMetadata(r.Context(), r.Header["Authorization"])
		next.ServeHTTP(w, r.WithContext(WithSubject(r.Context(), s)))
	})
}
