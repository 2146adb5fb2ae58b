package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// namespace is the claim in which a token of Attic has its rights.
	namespace = "https://jwt.attic.rs/v1"
	// skew is how far the clocks of an issuer and of this server may be apart.
	skew = time.Minute
)

// Claims are what a token of this server says. Times are in whole seconds, and
// zero where the token names none.
type Claims struct {
	Subject  string
	Issuer   string
	Audience []string
	Issued   time.Time
	Starts   time.Time // not valid before
	Expires  time.Time
	Rights   Rights // nil: the token has no such claim, as those of OIDC issuers
}

// Sign makes a token.
func Sign(c Claims, k Key) (string, error) {
	if k.sign == nil {
		return "", errors.New("signing a token: this is a public key, which only checks")
	}
	if c.Subject == "" {
		return "", errors.New("signing a token: it needs a subject")
	}
	for _, g := range c.Rights {
		if err := checkPattern(g.Pattern); err != nil {
			return "", fmt.Errorf("signing a token: %w", err)
		}
	}
	claims := jwt.MapClaims{"sub": c.Subject, namespace: map[string]Rights{"caches": c.Rights}}
	for name, t := range map[string]time.Time{"iat": c.Issued, "nbf": c.Starts, "exp": c.Expires} {
		if !t.IsZero() {
			claims[name] = t.Unix()
		}
	}
	if c.Issuer != "" {
		claims["iss"] = c.Issuer
	}
	if len(c.Audience) > 0 {
		claims["aud"] = c.Audience
	}
	token, err := jwt.NewWithClaims(k.method, claims).SignedString(k.sign)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	if len(token) > maxToken {
		return "", fmt.Errorf("signing a token: with so many caches, %w: it has %d bytes, and servers take %d", ErrTooLarge, len(token), maxToken)
	}
	return token, nil
}

// Checks says whether the key has signed the token; whether the token is valid
// now is another question.
func (k Key) Checks(token string) error {
	parser := jwt.NewParser(jwt.WithValidMethods([]string{k.method.Alg()}), jwt.WithJSONNumber(), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())
	_, err := parser.Parse(token, func(*jwt.Token) (any, error) { return k.check, nil })
	return problemOf(err)
}

// Info is what a token says of itself, whoever has signed it.
type Info struct {
	Claims
	Algorithm string
	// Values are all claims as the rules of an OIDC issuer see them.
	Values map[string][]string
}

// Inspect reads a token without checking it.
func Inspect(token string) (Info, error) {
	if len(token) > maxToken {
		return Info{}, ErrTooLarge
	}
	claims := jwt.MapClaims{}
	t, _, err := jwt.NewParser(jwt.WithJSONNumber(), jwt.WithStrictDecoding()).ParseUnverified(token, claims)
	if err != nil && t == nil || errors.Is(err, jwt.ErrTokenMalformed) {
		return Info{}, ErrMalformed
	}
	info := Info{Values: map[string][]string{}}
	info.Algorithm, _ = t.Header["alg"].(string)
	for name := range claims {
		info.Values[name] = valuesOf(claims[name])
	}
	if info.Claims, err = read(token, claims); err != nil {
		return Info{}, err
	}
	return info, nil
}

// read takes the claims of a token apart.
func read(token string, claims jwt.MapClaims) (Claims, error) {
	var c Claims
	var errs [6]error
	c.Subject, errs[0] = claims.GetSubject()
	c.Issuer, errs[1] = claims.GetIssuer()
	c.Audience, errs[2] = claims.GetAudience()
	for i, t := range []struct {
		get  func() (*jwt.NumericDate, error)
		time *time.Time
	}{{claims.GetIssuedAt, &c.Issued}, {claims.GetNotBefore, &c.Starts}, {claims.GetExpirationTime, &c.Expires}} {
		var at *jwt.NumericDate
		if at, errs[3+i] = t.get(); at != nil {
			*t.time = at.Time
		}
	}
	if err := errors.Join(errs[:]...); err != nil {
		return Claims{}, ErrMalformed
	}
	if _, ok := claims[namespace]; !ok {
		return c, nil
	}
	// A map does not keep the order of the caches, which counts.
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	text, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return Claims{}, ErrMalformed
	}
	c.Rights, err = rightsIn(text)
	return c, err
}

// rightsIn returns the rights in the claims of a token.
func rightsIn(claims []byte) (Rights, error) {
	// The fields of a struct would match keys in any case.
	var all, ours map[string]json.RawMessage
	if err := json.Unmarshal(claims, &all); err != nil {
		return nil, ErrMalformed
	}
	if err := json.Unmarshal(all[namespace], &ours); err != nil || ours == nil {
		return nil, fmt.Errorf("%w: claim %s: want an object", ErrMalformed, namespace)
	}
	r := Rights{}
	if text, ok := ours["caches"]; ok {
		if err := json.Unmarshal(text, &r); err != nil {
			return nil, fmt.Errorf("%w: claim %s: %w", ErrMalformed, namespace, err)
		}
	}
	return r, nil
}

// source checks the tokens of one origin.
type source interface {
	// verify returns whose token it is and until when it may be trusted without
	// another look; zero is for ever.
	verify(ctx context.Context, token string) (s Subject, until time.Time, err error)
}

// own checks the tokens that are signed with this server's keys.
type own struct {
	parser *jwt.Parser
	keys   map[string]jwt.VerificationKeySet // by algorithm
}

func newOwn(keys []Key, issuer string, audiences []string, now func() time.Time) *own {
	o := &own{keys: map[string]jwt.VerificationKeySet{}}
	methods := []string{}
	for _, k := range keys {
		alg := k.method.Alg()
		set, known := o.keys[alg]
		if !known {
			methods = append(methods, alg)
		}
		set.Keys = append(set.Keys, k.check)
		o.keys[alg] = set
	}
	options := append(parserOptions(now), jwt.WithValidMethods(methods))
	if issuer != "" {
		options = append(options, jwt.WithIssuer(issuer))
	}
	if len(audiences) > 0 {
		options = append(options, jwt.WithAudience(audiences...))
	}
	o.parser = jwt.NewParser(options...)
	return o
}

func parserOptions(now func() time.Time) []jwt.ParserOption {
	return []jwt.ParserOption{jwt.WithTimeFunc(now), jwt.WithLeeway(skew), jwt.WithJSONNumber(), jwt.WithStrictDecoding()}
}

func (o *own) verify(_ context.Context, token string) (Subject, time.Time, error) {
	claims := jwt.MapClaims{}
	_, err := o.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		return o.keys[t.Method.Alg()], checkHeader(t)
	})
	if err != nil {
		return Subject{}, time.Time{}, problemOf(err)
	}
	c, err := read(token, claims)
	if err != nil {
		return Subject{}, time.Time{}, err
	}
	if c.Rights == nil {
		return Subject{}, time.Time{}, fmt.Errorf("%w: it has no claim %s", ErrMalformed, namespace)
	}
	return Subject{name: printable(c.Subject), rights: []Rights{c.Rights}}, endOf(c.Expires), nil
}

// checkHeader refuses extensions that the signer wants to be understood (RFC
// 7515, 4.1.11): none are here.
func checkHeader(t *jwt.Token) error {
	if _, ok := t.Header["crit"]; ok {
		return jwt.ErrTokenMalformed
	}
	return nil
}

// endOf returns when a token that expires then is not accepted any more.
func endOf(expires time.Time) time.Time {
	if expires.IsZero() {
		return expires
	}
	return expires.Add(skew)
}

// problemOf says what is wrong with a token in words that hold nothing of it.
func problemOf(err error) error {
	if err == nil {
		return nil
	}
	for _, p := range []struct{ is, problem error }{
		{ErrIssuerUnavailable, ErrIssuerUnavailable},
		{context.Canceled, context.Canceled},
		{context.DeadlineExceeded, context.DeadlineExceeded},
		{jwt.ErrTokenMalformed, ErrMalformed},
		{jwt.ErrTokenSignatureInvalid, ErrSignature},
		{jwt.ErrTokenUnverifiable, ErrSignature},
		{jwt.ErrTokenExpired, ErrExpired},
		{jwt.ErrTokenNotValidYet, ErrNotYetValid},
		{jwt.ErrTokenInvalidIssuer, ErrIssuer},
		{jwt.ErrTokenInvalidAudience, ErrAudience},
	} {
		if errors.Is(err, p.is) {
			return p.problem
		}
	}
	return fmt.Errorf("%w: a claim that it must have is missing or of another type", ErrMalformed)
}

// printable makes what a token says fit for one line of a log.
func printable(text string) string {
	const most = 256
	if len(text) > most {
		text = text[:most]
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, text)
}
