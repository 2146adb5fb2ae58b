package target

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/pusher"
)

const (
	// copyJobs is how many paths wait for one `nix copy` together.
	copyJobs = 64
	// perCopy bounds the paths of one, which are arguments of a process.
	perCopy = 500
	askers  = 16
)

// copyTarget is a store that nix itself writes to: `nix copy --to`. Such a store
// takes no path without its references, so those go with it, whoever signed
// them.
type copyTarget struct {
	url   string
	token string
	nix   *nix.Nix

	mu      sync.Mutex
	waiting []*copyRequest
	running bool
}

type copyRequest struct {
	path string
	done chan error
}

func newCopy(cache, token string, n *nix.Nix) *copyTarget {
	return &copyTarget{url: cache, token: token, nix: n}
}

func (t *copyTarget) URL() string    { return t.url }
func (*copyTarget) Kind() Kind       { return Copy }
func (*copyTarget) Jobs() int        { return copyJobs }
func (*copyTarget) SentBytes() int64 { return 0 }
func (*copyTarget) Close()           {}

// Probe implements pusher.Target.
func (t *copyTarget) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if strings.HasPrefix(t.url, "http") {
		_, err := cacheInfo(ctx, t.url, t.token)
		return err
	}
	return t.nix.PingStore(ctx, t.url)
}

// MissingPaths implements pusher.Target. Where only nix can look, it says all:
// `nix copy` looks itself.
func (t *copyTarget) MissingPaths(ctx context.Context, hashes []string) ([]string, error) {
	has := t.has()
	if has == nil {
		return hashes, nil
	}
	held := make([]bool, len(hashes))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(askers)
	for i, h := range hashes {
		g.Go(func() (err error) {
			held[i], err = has(ctx, h+".narinfo")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("asking which paths are missing: %w", err)
	}
	var missing []string
	for i, h := range hashes {
		if !held[i] {
			missing = append(missing, h)
		}
	}
	return missing, nil
}

func (t *copyTarget) has() func(ctx context.Context, file string) (bool, error) {
	u, err := url.Parse(t.url)
	switch {
	case err != nil:
	case u.Scheme == "file":
		return func(_ context.Context, file string) (bool, error) {
			_, err := os.Stat(filepath.Join(u.Path, file))
			if errors.Is(err, os.ErrNotExist) {
				return false, nil
			}
			return err == nil, err
		}
	case u.Scheme == "http", u.Scheme == "https":
		return func(ctx context.Context, file string) (bool, error) { return Holds(ctx, t.url, file, t.token) }
	}
	return nil
}

// Holds asks a plain HTTP cache for a file, such as a narinfo. As for Nix, 403
// means that it is not there: so say stores that cannot be listed.
func Holds(ctx context.Context, cache, file, token string) (bool, error) {
	status, _, err := do(ctx, http.MethodHead, at(cache, file), token, nil)
	switch {
	case err != nil:
		return false, err
	case status == http.StatusOK:
		return true, nil
	case status == http.StatusNotFound, status == http.StatusForbidden, status == http.StatusGone:
		return false, nil
	}
	return false, fmt.Errorf("%s: HTTP %d %s", file, status, http.StatusText(status))
}

// Send implements pusher.Target. Paths that wait at the same time go with one
// run of nix, whoever comes first running it for all.
func (t *copyTarget) Send(ctx context.Context, p pusher.Path) error {
	r := &copyRequest{path: p.StorePath, done: make(chan error, 1)}
	t.mu.Lock()
	t.waiting = append(t.waiting, r)
	lead := !t.running
	t.running = true
	t.mu.Unlock()
	if lead {
		t.run(ctx)
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run copies until nobody waits.
func (t *copyTarget) run(ctx context.Context) {
	for {
		t.mu.Lock()
		n := min(perCopy, len(t.waiting))
		batch := t.waiting[:n:n]
		t.waiting = t.waiting[n:]
		t.running = n > 0
		t.mu.Unlock()
		if n == 0 {
			return
		}
		t.copyAll(ctx, batch)
	}
}

// copyAll copies a batch. Where that fails, each path is tried by itself, so that
// one that cannot be copied holds up no other.
func (t *copyTarget) copyAll(ctx context.Context, batch []*copyRequest) {
	paths := make([]string, len(batch))
	for i, r := range batch {
		paths[i] = r.path
	}
	err := t.nix.Copy(ctx, t.url, paths)
	alone := err != nil && len(batch) > 1 && ctx.Err() == nil && t.Probe(ctx) == nil
	for _, r := range batch {
		if alone {
			err = t.nix.Copy(ctx, t.url, []string{r.path})
		}
		r.done <- err
	}
}
