package flywheel

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/target"
)

// Selection says which paths are not pushed. The zero value leaves out none.
type Selection struct {
	// UpstreamKeys are names of keys; what they signed is not pushed.
	UpstreamKeys []string
	// Upstreams are URLs of caches; what they hold is not pushed.
	Upstreams []string
	// Exclude leaves out paths one of which matches, such as -source$.
	Exclude []*regexp.Regexp
	// MaxNarSize leaves out larger paths, in bytes; 0 is no limit.
	MaxNarSize int64
}

// Reasons for which a path is left out, as the summary tells them.
const (
	leftSigned   = "signed by an upstream key"
	leftUpstream = "held by an upstream cache"
	leftExcluded = "excluded"
	leftTooLarge = "larger than allowed"
)

// reason returns why a path is left out, or "", without asking anybody.
func (s *Selection) reason(p nix.PathInfo) string {
	signed := slices.ContainsFunc(p.Signatures, func(sig string) bool {
		key, _, _ := strings.Cut(sig, ":")
		return slices.Contains(s.UpstreamKeys, key)
	})
	switch {
	case signed:
		return leftSigned
	case slices.ContainsFunc(s.Exclude, func(e *regexp.Regexp) bool { return e.MatchString(p.Path) }):
		return leftExcluded
	case s.MaxNarSize > 0 && p.NarSize > s.MaxNarSize:
		return leftTooLarge
	}
	return ""
}

const (
	// askUpstream is how many questions upstream caches are asked at a time.
	askUpstream = 32
	// upstreamTime is how long each answer may take.
	upstreamTime = 5 * time.Second
)

// upstreams asks caches what they hold, and remembers it. One that fails is not
// asked again: to push too much costs less than to wait.
type upstreams struct {
	urls  []string
	fault func(format string, args ...any)

	mu     sync.Mutex
	failed map[string]bool
	holds  map[string]bool // by hash
}

// held returns those of the paths that an upstream cache holds.
func (u *upstreams) held(ctx context.Context, infos []nix.PathInfo) map[string]bool {
	held := map[string]bool{}
	if len(u.urls) == 0 {
		return held
	}
	var g errgroup.Group
	g.SetLimit(askUpstream)
	for _, p := range infos {
		g.Go(func() error {
			if u.ask(ctx, storepath.Hash(p.Path)) {
				u.mu.Lock()
				defer u.mu.Unlock()
				held[p.Path] = true
			}
			return nil
		})
	}
	_ = g.Wait() // none returns an error
	return held
}

func (u *upstreams) ask(ctx context.Context, hash string) bool {
	u.mu.Lock()
	holds, known := u.holds[hash]
	u.mu.Unlock()
	if known {
		return holds
	}
	for _, url := range u.urls {
		u.mu.Lock()
		failed := u.failed[url]
		u.mu.Unlock()
		if failed {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, upstreamTime)
		has, err := target.Holds(asking, url, hash, "")
		cancel()
		if err != nil {
			u.fail(url, err)
			continue
		}
		if holds = has; holds {
			break
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.holds == nil {
		u.holds = map[string]bool{}
	}
	u.holds[hash] = holds
	return holds
}

// fail tells of a cache that does not answer, once.
func (u *upstreams) fail(url string, err error) {
	u.mu.Lock()
	if u.failed == nil {
		u.failed = map[string]bool{}
	}
	first := !u.failed[url]
	u.failed[url] = true
	u.mu.Unlock()
	if first {
		u.fault("upstream cache %s: %v; what it may hold is pushed", url, err)
	}
}

// selected returns those of the paths that are to be pushed, in their order, and
// counts the others by their reasons.
func (r *run) selected(ctx context.Context, infos []nix.PathInfo) (kept []nix.PathInfo, left map[string]int) {
	left = map[string]int{}
	for _, p := range infos {
		if reason := r.reason(p); reason != "" {
			left[reason]++
			continue
		}
		kept = append(kept, p)
	}
	held := r.upstream.held(ctx, kept)
	kept = slices.DeleteFunc(kept, func(p nix.PathInfo) bool { return held[p.Path] })
	if len(held) > 0 {
		left[leftUpstream] += len(held)
	}
	return kept, left
}

// leftOut writes what selected counted.
func leftOut(left map[string]int) string {
	var parts []string
	for _, reason := range []string{leftSigned, leftUpstream, leftExcluded, leftTooLarge} {
		if n := left[reason]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, reason))
		}
	}
	return strings.Join(parts, ", ")
}
