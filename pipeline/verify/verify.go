// Package verify finds out whether a cache that was just deployed does what
// caches are for: it takes a path, signs it and gives it back. It asks from
// outside, as a build does.
package verify

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
)

// DefaultTimeout is how long a new deployment has for becoming healthy: a pod
// that is pulled, started and found by its route takes less.
const DefaultTimeout = 2 * time.Minute

// attemptTime bounds one attempt, so that a server that hangs is asked again.
const attemptTime = 10 * time.Second

// Options say which cache is looked at, and for what.
type Options struct {
	// URL of the cache: http or https, with the cache's name behind the host
	// where the server has several. A user and a password in it are sent.
	URL string
	// StoreDir is the store that the cache has to be for, such as /nix/store.
	StoreDir string
	// Timeout is how long a check may go on failing. An attempt that was begun
	// in time may take a second longer. With 0 there is one attempt.
	Timeout time.Duration
	// Token is shown as a bearer; empty for none.
	Token string
	// PublicKeys ("name:base64") are those of which one has to sign; when there
	// are none, those that the server tells.
	PublicKeys []string
	// ReadOnly leaves the round trip out.
	ReadOnly bool
	// GRPC is where Bazel's protocol has to be spoken, as grpcs://HOST; when
	// empty, it may be at the URL's own host.
	GRPC string
	// MaxLatency is what half of the lookups have to be answered in; 0: any time.
	MaxLatency time.Duration
	// Nix is the program that substitutes; empty where there is none.
	Nix string
}

// cache is what the checks look at.
type cache struct {
	base     *url.URL
	storeDir string
	client   *http.Client
	wait     waiting

	token      string
	keys       []string
	readOnly   bool
	grpc       string
	maxLatency time.Duration
	nixProgram string

	healthy bool  // it answered as a cache
	trip    *trip // what was pushed; nil before
}

// Checks returns what is looked at, in order. The error says what is wrong with
// the options.
func Checks(o Options) ([]check.Check, error) {
	c, err := newCache(o)
	if err != nil {
		return nil, err
	}
	return c.checks(), nil
}

func (c *cache) checks() []check.Check {
	checks := []check.Check{
		{Name: "nix-cache-info", Run: c.health()},
		{Name: "certificate", Run: c.afterHealth(c.certificate)},
	}
	if !c.readOnly {
		checks = append(checks,
			check.Check{Name: "push", Run: c.afterHealth(c.push)},
			check.Check{Name: "signature", Run: c.afterPush(attemptTime, c.signed)},
			check.Check{Name: "substitution", Run: c.afterPush(attemptTime, c.substitute)},
			check.Check{Name: "nix", Run: c.afterPush(nixTime, c.nix)},
			check.Check{Name: "delete", Run: c.afterPush(attemptTime, c.remove)},
		)
	}
	return append(checks,
		check.Check{Name: "bazel", Run: c.afterHealth(c.bazel)},
		check.Check{Name: "latency", Run: c.afterHealth(c.latency)},
	)
}

// run is check.Check's Run, and attempt one try of it that says what it found.
type (
	run     func(context.Context, io.Writer) error
	attempt func(context.Context) (string, error)
)

func (c *cache) health() run {
	return func(ctx context.Context, out io.Writer) error {
		err := c.retried(c.cacheInfo)(ctx, out)
		c.healthy = err == nil
		return err
	}
}

// afterHealth does not wait a second time for a cache that never answered.
func (c *cache) afterHealth(once attempt) run {
	return func(ctx context.Context, out io.Writer) error {
		if !c.healthy {
			return fmt.Errorf("%w: %w", check.ErrSkip, errUnhealthy)
		}
		return c.wait.patient(attemptTime).until(ctx, out, once)
	}
}

func (c *cache) afterPush(limit time.Duration, once attempt) run {
	return func(ctx context.Context, out io.Writer) error {
		if c.trip == nil {
			return fmt.Errorf("%w: nothing was pushed", check.ErrSkip)
		}
		return c.wait.patient(limit).until(ctx, out, once)
	}
}

// retried makes a check's Run of one attempt, which returns what it found.
func (c *cache) retried(once attempt) run {
	return func(ctx context.Context, out io.Writer) error { return c.wait.until(ctx, out, once) }
}

func newCache(o Options) (*cache, error) {
	base, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("cache URL: %w", err)
	}
	if (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return nil, fmt.Errorf("cache URL %q: want https://HOST[:PORT][/NAME] or http://…", base.Redacted())
	}
	if !strings.HasPrefix(o.StoreDir, "/") {
		return nil, fmt.Errorf("store directory %q: want an absolute path", o.StoreDir)
	}
	if o.Timeout < 0 {
		return nil, fmt.Errorf("timeout %v: is negative", o.Timeout)
	}
	for _, key := range o.PublicKeys {
		if _, err := (&narinfo.NarInfo{}).Signed(key); err != nil {
			return nil, fmt.Errorf("public key %q: %w", key, err)
		}
	}
	if _, _, err := grpcTarget(o.GRPC, base); err != nil {
		return nil, err
	}
	// Settings behind a question mark, which a substituter's URL may have, are
	// for nix; and people copy the whole address from their browser.
	base.RawQuery, base.Fragment = "", ""
	base = base.JoinPath()
	base.Path = strings.TrimSuffix(strings.TrimSuffix(base.Path, "/"), "/"+cacheInfoName)
	base.RawPath = ""
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// Every attempt is to meet what a new client would: the name resolved anew,
	// another replica, the certificate of now.
	transport.DisableKeepAlives = true
	transport.DisableCompression = true
	return &cache{
		base: base, storeDir: strings.TrimRight(o.StoreDir, "/"),
		client: &http.Client{Transport: transport},
		wait:   waiting{timeout: o.Timeout, attempt: attemptTime, last: time.Second, clock: realClock{}},
		token:  o.Token, keys: o.PublicKeys, readOnly: o.ReadOnly, grpc: o.GRPC, maxLatency: o.MaxLatency, nixProgram: o.Nix,
	}, nil
}
