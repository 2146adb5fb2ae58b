package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

const (
	// keysAge is how long an issuer's keys are used before they are asked for
	// again. Where it does not answer, they go on being used, and it is asked
	// every keysRetry.
	keysAge   = 15 * time.Minute
	keysRetry = time.Minute
	// fetchPause is between two times that an issuer is asked, so that nobody
	// can have it asked at will by sending tokens with keys that do not exist.
	fetchPause = 5 * time.Second
	fetchTime  = 5 * time.Second
	maxAnswer  = 1 << 20 // bytes
	maxKeys    = 128
)

// keySet keeps the keys of an issuer.
type keySet struct {
	issuer, jwksURL string
	client          *http.Client
	patience        time.Duration // fetchTime, but in tests
	now             func() time.Time
	log             *slog.Logger

	mu       sync.Mutex
	keys     keys
	fetched  time.Time     // when keys came
	tried    time.Time     // when they were last asked for
	err      error         // what came of that
	fetching chan struct{} // closed when the fetch under way is through; nil without one
}

func newKeySet(c OIDC, now func() time.Time, log *slog.Logger) (*keySet, error) {
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("the default HTTP transport was replaced")
	}
	transport = transport.Clone()
	transport.DisableKeepAlives = true // it is asked too seldom to hold a connection
	if c.CAFile != "" {
		text, err := readSmall(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading a certificate authority: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s: holds no certificate as PEM", c.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &keySet{
		issuer: c.Issuer, jwksURL: c.JWKSURL, now: now, log: log,
		client: &http.Client{Transport: bounded{transport}}, patience: fetchTime,
	}, nil
}

// bounded takes small answers of status 200, and so follows no redirects: only
// where the configuration says are keys to be had.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("status %s", resp.Status)
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	return resp, nil
}

// current returns the keys, which it fetches when there are none. Old ones are
// fetched anew by one of those who ask.
func (k *keySet) current(ctx context.Context) (keys, error) {
	k.mu.Lock()
	there := k.keys
	old := k.now().Sub(k.fetched) > keysAge && k.now().Sub(k.tried) > keysRetry && k.fetching == nil
	k.mu.Unlock()
	if there != nil && !old {
		return there, nil
	}
	fresh, err := k.newer(ctx)
	if err != nil && there != nil {
		return there, nil
	}
	return fresh, err
}

// newer returns the issuer's keys of now, or of a moment ago.
func (k *keySet) newer(ctx context.Context) (keys, error) {
	k.mu.Lock()
	if done := k.fetching; done != nil {
		k.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.keys, k.err
	}
	if k.now().Sub(k.tried) < fetchPause {
		defer k.mu.Unlock()
		return k.keys, k.err
	}
	done := make(chan struct{})
	k.fetching = done
	k.mu.Unlock()

	// Others wait for this as well: it does not end with the request that
	// happened to be the first.
	fetchCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.patience)
	defer cancel()
	fresh, err := k.fetch(fetchCtx)

	k.mu.Lock()
	defer k.mu.Unlock()
	k.fetching = nil
	close(done)
	k.tried = k.now()
	switch failed := k.err != nil; {
	case err != nil:
		if !failed {
			k.log.Warn("the keys of an issuer of tokens cannot be had", "issuer", k.issuer, "error", err)
		}
		k.err = ErrIssuerUnavailable
	default:
		if failed {
			k.log.Info("the keys of an issuer of tokens can be had again", "issuer", k.issuer)
		}
		k.keys, k.fetched, k.err = fresh, k.tried, nil
	}
	return k.keys, k.err
}

func (k *keySet) fetch(ctx context.Context) (keys, error) {
	from := k.jwksURL
	if from == "" {
		provider, err := oidc.NewProvider(oidc.ClientContext(ctx, k.client), k.issuer)
		if err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
		var discovered struct {
			JWKS string `json:"jwks_uri"`
		}
		if err := provider.Claims(&discovered); err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
		from = discovered.JWKS
		if !sameOrigin(from, k.issuer) {
			return nil, fmt.Errorf("discovery: the keys are at %.200q, which is not the issuer's host: jwks_url would allow it", from)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, fmt.Errorf("fetching keys: %w", err)
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetching keys: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("fetching keys: %w", err)
	}
	return parseKeys(text)
}

func sameOrigin(a, b string) bool {
	ua, errA := url.Parse(a)
	ub, errB := url.Parse(b)
	return errA == nil && errB == nil && ua.Scheme == ub.Scheme && ua.Host == ub.Host
}

// keys are public keys that check signatures.
type keys []jose.JSONWebKey

// parseKeys reads a JWK set (RFC 7517). Keys of kinds that are not known here
// are left out.
func parseKeys(text []byte) (keys, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("reading keys: there are %d, more than %d", len(set.Keys), maxKeys)
	}
	var good keys
	for _, one := range set.Keys {
		var key jose.JSONWebKey
		if err := json.Unmarshal(one, &key); err != nil || !key.Valid() || !key.IsPublic() || key.Use != "" && key.Use != "sig" {
			continue
		}
		if k, ok := key.Key.(*rsa.PublicKey); ok && k.N.BitLen() < minRSA {
			continue
		}
		good = append(good, key)
	}
	if good == nil {
		return nil, fmt.Errorf("reading keys: none of %d can check a signature", len(set.Keys))
	}
	return good, nil
}

// of returns the keys that a token may be signed with, by its header.
func (k keys) of(t *jwt.Token) jwt.VerificationKeySet {
	id, _ := t.Header["kid"].(string)
	var set jwt.VerificationKeySet
	for _, key := range k {
		if (id == "" || key.KeyID == id) && (key.Algorithm == "" || key.Algorithm == t.Method.Alg()) && fits(key.Key, t.Method) {
			set.Keys = append(set.Keys, key.Key)
		}
	}
	return set
}

// fits says whether a key is of the kind that a method signs with.
func fits(key any, method jwt.SigningMethod) bool {
	switch m := method.(type) {
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		_, ok := key.(*rsa.PublicKey)
		return ok
	case *jwt.SigningMethodECDSA:
		k, ok := key.(*ecdsa.PublicKey)
		return ok && k.Curve.Params().BitSize == m.CurveBits
	case *jwt.SigningMethodEd25519:
		_, ok := key.(ed25519.PublicKey)
		return ok
	}
	return false
}
