package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// What Subject.Check says.
var (
	// ErrUnauthorized: the subject has no right at all on the cache, and may not
	// even learn whether it exists (401).
	ErrUnauthorized = errors.New("not authorized")
	// ErrForbidden: the subject has rights on the cache, but not this one (403).
	ErrForbidden = errors.New("not permitted")
	// ErrIssuerUnavailable: the issuer of the token could not be asked for its
	// keys, so it is not known what the subject may do; it may be tried again
	// later (503).
	ErrIssuerUnavailable = errors.New("the issuer of the token cannot be reached to check it; try again later")
)

// What Subject.Problem says of a token that was not accepted. None of them
// quotes the token.
var (
	ErrHeader      = errors.New("the Authorization header is neither Bearer with a token nor Basic with a token as the password")
	ErrTooLarge    = errors.New("the token is too large")
	ErrMalformed   = errors.New("the token is malformed")
	ErrSignature   = errors.New("the token is not signed with a key that is trusted here")
	ErrExpired     = errors.New("the token has expired")
	ErrNotYetValid = errors.New("the token is not valid yet")
	ErrIssuer      = errors.New("the token is of another issuer than is trusted here")
	ErrAudience    = errors.New("the token is for another audience")
	// ErrNoRule: the token is good, but nothing says that its bearer may do
	// anything.
	ErrNoRule = errors.New("the token matches none of the rules of its issuer")
)

var errNoToken = errors.New("no token was sent")

// Subject is who makes a request. The zero Subject may do nothing.
type Subject struct {
	name    string
	all     bool
	rights  []Rights // these add up
	problem error
}

// Unrestricted may do everything.
func Unrestricted() Subject { return Subject{all: true} }

// Name says who it is, for logs and records: the subject of the token, for that
// of an OIDC issuer with the issuer's host. It is empty when nobody has said.
func (s Subject) Name() string { return s.name }

// Problem says why the token that was sent was not accepted, so that its bearer
// is nobody in particular; nil when it was, or when none was sent.
func (s Subject) Problem() error { return s.problem }

// Can says whether the subject has all the given rights, at least one, on a cache.
func (s Subject) Can(rights Right, cache string) bool {
	return s.all || rights != 0 && s.on(cache)&rights == rights
}

// Any says whether the subject has any right on a cache, and so may learn
// whether it exists.
func (s Subject) Any(cache string) bool { return s.all || s.on(cache) != 0 }

func (s Subject) on(cache string) Right {
	var sum Right
	for _, r := range s.rights {
		sum |= r.On(cache)
	}
	return sum
}

// With returns the subject with rights added, such as Pull on a cache that is
// public.
func (s Subject) With(rights Right, cache string) Subject {
	s.rights = append(slices.Clip(s.rights), Rights{{cache, rights}})
	return s
}

// Check returns nil when the subject has all the given rights on a cache, or an
// error that wraps ErrUnauthorized, ErrForbidden or ErrIssuerUnavailable and may
// be told to the client.
func (s Subject) Check(rights Right, cache string) error {
	why := s.problem
	switch {
	case s.Can(rights, cache):
		return nil
	case errors.Is(why, ErrIssuerUnavailable):
		return why
	case why == nil && s.name == "":
		why = errNoToken
	}
	verdict := ErrUnauthorized
	if s.Any(cache) {
		verdict = ErrForbidden
	}
	err := fmt.Errorf("%w: %s on cache %.80q", verdict, rights, cache)
	if why != nil {
		err = fmt.Errorf("%w: %w", err, why)
	}
	return err
}

type subjectKey struct{}

// WithSubject returns a context of a request by s.
func WithSubject(ctx context.Context, s Subject) context.Context {
	return context.WithValue(ctx, subjectKey{}, s)
}

// SubjectOf returns who makes the request of a context. Where nobody has decided
// that, it is a subject that may do nothing.
func SubjectOf(ctx context.Context) Subject {
	s, _ := ctx.Value(subjectKey{}).(Subject)
	return s
}
