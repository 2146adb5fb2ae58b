// Package verify finds out whether a cache that was just deployed does what
// caches are for. It asks from outside, as a build does.
package verify

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

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
}

// cache is what the checks look at.
type cache struct {
	base     *url.URL
	storeDir string
	client   *http.Client
	wait     waiting
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
	return []check.Check{
		{Name: "nix-cache-info", Run: c.retried(c.cacheInfo)},
	}
}

// retried makes a check's Run of one attempt, which returns what it found.
func (c *cache) retried(attempt func(context.Context) (string, error)) func(context.Context, io.Writer) error {
	return func(ctx context.Context, out io.Writer) error { return c.wait.until(ctx, out, attempt) }
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
		wait:   waiting{timeout: o.Timeout, attempt: attemptTime, clock: realClock{}},
	}, nil
}
