package flywheel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/user"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nixconf"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/setup"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/target"
)

// probeTime is how long a cache may take to say that it is there.
const probeTime = 5 * time.Second

// source is a cache that was asked what it is.
type source struct {
	target.Answer
	url string
	err error // it does not answer
}

// probe asks every cache what it is, all at once.
func (r *run) probe(ctx context.Context, urls []string) []source {
	sources := make([]source, len(urls))
	var mu sync.Mutex
	var g errgroup.Group
	for i, u := range urls {
		g.Go(func() error {
			s := source{url: strings.TrimSuffix(u, "/")}
			ctx, cancel := context.WithTimeout(ctx, probeTime)
			defer cancel()
			token, err := r.token(ctx, u)
			if err != nil {
				r.fault("cache %s: %v", s.url, err)
			}
			mu.Lock()
			r.tokens[s.url] = token
			mu.Unlock()
			if s.Answer, err = target.Ask(ctx, u, token, r.nix); err != nil {
				s.err = inTime(ctx, err)
			}
			sources[i] = s
			return nil
		})
	}
	_ = g.Wait() // none returns an error
	return sources
}

// answers says whether there is a binary cache at the URL, by the one file that
// each has.
func answers(ctx context.Context, cache string) error {
	// A substituter's URL may carry settings behind a question mark.
	bare, _, _ := strings.Cut(cache, "?")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(bare, "/")+"/nix-cache-info", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return inTime(ctx, err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10)) // to use the connection again
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("nix-cache-info: HTTP %s", resp.Status)
	}
	return nil
}

func inTime(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %v", probeTime)
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return fmt.Errorf("the name %s cannot be resolved", dns.Name)
	}
	return err
}

// token finds the token of a cache. The server in this process wants none.
func (r *run) token(ctx context.Context, cache string) (string, error) {
	if r.embedded != nil {
		return "", nil
	}
	return r.Credentials.For(ctx, cache)
}

// substituters probes the caches and composes nix's settings for this run.
func (r *run) substituters(ctx context.Context, caches []string) {
	began := r.console.begin("substituters")
	configured := r.settings.Substituters
	var own, foreign []source
	var g errgroup.Group
	g.Go(func() error { own = r.probe(ctx, caches); return nil })
	g.Go(func() error { foreign = r.probeConfigured(ctx, configured, caches); return nil })
	_ = g.Wait() // neither returns an error

	var urls, keys []string
	for i := range own {
		s := &own[i]
		if s.err != nil {
			r.fault("cache %s: %v", s.url, s.err)
			continue
		}
		urls = append(urls, s.url)
		for _, key := range s.PublicKeys {
			if err := nixconf.CheckKey(key); err != nil {
				r.fault("cache %s: %v", s.url, err)
				continue
			}
			keys = append(keys, key)
		}
		r.choose(s)
	}
	keys = append(keys, r.PublicKeys...)
	left := without(configured, foreign)
	r.nix.Configure(r.compose(urls, keys, left)...)
	r.pulls, r.configured = urls, configured
	if left != nil {
		r.configured = left
	}

	switch {
	case len(urls) == 0:
		r.console.step("substituters", began, "no cache answers: going on without")
	case r.target == nil:
		r.console.step("substituters", began, "pulling from %s; pushing to none", strings.Join(urls, " "))
	default:
		r.console.step("substituters", began, "pulling from %s; pushing to %s", strings.Join(urls, " "), r.target.URL())
	}
	for _, s := range foreign {
		if s.err != nil {
			r.console.note("left out for this run: %s (%v)", s.url, s.err)
		}
	}
	for _, f := range r.faults {
		r.console.note("%s", f)
	}
	if err := r.useToken(urls); err != nil {
		r.fault("%v", err)
	}
	r.checkTrust(urls, keys)
	r.checkSandbox()
}

// choose takes the first cache that can be pushed to as the target.
func (r *run) choose(s *source) {
	switch {
	case r.target != nil:
		if s.Target != nil {
			s.Target.Close()
		}
	case s.Target == nil:
		r.readOnly = append(r.readOnly, fmt.Sprintf("cache %s: %v", s.url, s.ReadOnly))
		r.console.note("%s is only pulled from: %v", s.url, s.ReadOnly)
	case s.StoreDir != "" && s.StoreDir != r.store.Dir:
		r.fault("cache %s: it is for the store %s, this one is %s", s.url, s.StoreDir, r.store.Dir)
		s.Target.Close()
	default:
		r.target = s.Target
		// What the cache's owner says that everybody has anyway.
		r.UpstreamKeys = append(slices.Clone(r.UpstreamKeys), s.UpstreamKeys...)
	}
}

// pullLess leaves out of the rest of the run the caches that were named, then, if
// they are out already, nix.conf's; it returns false when there are none.
//
// Nix 2.8 with fallback crashes (SubstituterDisabled leaves a function that is
// noexcept) when a substituter fails while it is asked what it has.
func (r *run) pullLess(why string) bool {
	r.lessMu.Lock()
	defer r.lessMu.Unlock()
	from := r.pulls
	switch {
	case len(r.pulls) > 0:
		r.pulls = nil
	case len(r.configured) > 0:
		from, r.configured = r.configured, nil
	default:
		return false
	}
	// Of settings that stand twice, the later one holds, extra- ones included.
	r.nix.Configure("substituters = " + strings.Join(r.configured, " "))
	r.fault("%s while it pulled from %s: the build goes on without", why, strings.Join(from, " "))
	r.console.note("%s", r.faults[len(r.faults)-1])
	return true
}

// compose returns the lines of nix.conf with which a build uses the caches,
// and cannot fail because of them. configured are the substituters of nix.conf
// that are left; nil leaves them as they are.
func (r *run) compose(urls, keys, configured []string) []string {
	var lines []string
	if configured != nil {
		// Before extra-substituters, which adds to it: nix reads in order.
		lines = append(lines, "substituters = "+strings.Join(configured, " "))
	}
	lines = append(lines,
		"fallback = true",
		"connect-timeout = 5",
		"download-attempts = 2",
		"stalled-download-timeout = 20",
		"narinfo-cache-negative-ttl = 0",
	)
	if len(urls) > 0 {
		lines = append(lines, "extra-substituters = "+strings.Join(urls, " "))
	}
	if len(keys) > 0 {
		lines = append(lines, "extra-trusted-public-keys = "+strings.Join(keys, " "))
	}
	if shell := setup.SandboxShell(); shell != "" && r.lacksSandboxShell() {
		lines = append(lines, "extra-sandbox-paths = /bin/sh="+shell)
	}
	return lines
}

// lacksSandboxShell is true of Debian's nix: derivations whose builder is
// /bin/sh, which upstream's sandbox holds, would not build.
func (r *run) lacksSandboxShell() bool {
	return r.settings.Sandbox && !r.store.Daemon && !r.settings.HasSandboxShell()
}

// probeConfigured probes those of nix.conf's substituters that can be.
func (r *run) probeConfigured(ctx context.Context, configured, caches []string) []source {
	var sources []source
	for _, u := range configured {
		if strings.HasPrefix(u, "http") && !slices.Contains(caches, strings.TrimSuffix(u, "/")) {
			sources = append(sources, source{url: u})
		}
	}
	var g errgroup.Group
	for i := range sources {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, probeTime)
			defer cancel()
			sources[i].err = answers(ctx, sources[i].url)
			return nil
		})
	}
	_ = g.Wait() // none returns an error
	return sources
}

// without returns the configured substituters but for those that do not answer,
// or nil where all do: nix would ask each of them again and again, for seconds,
// at every start.
func without(configured []string, probed []source) []string {
	left := slices.Clone(configured)
	for _, s := range probed {
		if s.err != nil {
			left = slices.DeleteFunc(left, func(u string) bool { return u == s.url })
		}
	}
	if len(left) == len(configured) {
		return nil
	}
	return left
}

// checkTrust says so when a daemon will not listen to this run's settings.
func (r *run) checkTrust(urls, keys []string) {
	if !r.store.Daemon || len(urls) == 0 {
		return
	}
	u, err := user.Current()
	if err != nil || r.settings.Trusts(u) {
		return
	}
	trusted := slices.Concat(r.settings.TrustedSubstituters, r.settings.Substituters)
	refused := slices.DeleteFunc(slices.Clone(urls), func(u string) bool { return slices.Contains(trusted, u) })
	if len(refused) == 0 {
		return
	}
	for _, url := range refused {
		r.fault("the Nix daemon does not trust %s and will not pull from %s", u.Username, url)
		r.console.note("%s", r.faults[len(r.faults)-1])
	}
	r.console.note("add to /etc/nix/nix.conf and restart the daemon: `trusted-users = root %s`, or", u.Username)
	r.console.note("  extra-trusted-substituters = %s", strings.Join(refused, " "))
	r.console.note("  extra-trusted-public-keys = %s", strings.Join(keys, " "))
}

// checkSandbox says so when derivations whose builder is /bin/sh cannot build.
func (r *run) checkSandbox() {
	if r.lacksSandboxShell() && setup.SandboxShell() == "" {
		r.console.note("this nix has no /bin/sh in its sandbox: install busybox-static (`--setup` does), or set `sandbox = false`")
	}
}
