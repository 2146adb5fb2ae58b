package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/pusher"
)

const (
	// copyJobs is how many paths wait for one `nix copy` together.
	copyJobs = 64
	// perCopy bounds the paths of one, which are arguments of a process.
	perCopy = 500
	askers  = 16
	// strikes is how many of a batch may fail one after the other, each by itself.
	// A pusher leaves a store alone after as many.
	strikes = 3
	// One nix copy may take copyBase, timeEach for each path, and the transferTime of
	// what is copied.
	copyBase = 60 * time.Second
	timeEach = time.Second
	// stalled is what nix says, in libcurl's words, when a server has let it wait for
	// stalled-download-timeout.
	stalled = "Timeout was reached"
)

// copyTarget is a store that nix itself writes to: `nix copy --to`. Such a store
// takes no path without its references, so those go with it, whoever signed
// them.
type copyTarget struct {
	url   string
	token string
	nix   *nix.Nix

	patience time.Duration // copyBase, but in tests

	mu      sync.Mutex
	waiting []*copyRequest
	running bool
}

type copyRequest struct {
	path string
	size int64 // of the NAR
	done chan error
}

func newCopy(cache, token string, n *nix.Nix) *copyTarget {
	return &copyTarget{url: cache, token: token, nix: n, patience: copyBase}
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
	ctx, cancel := context.WithTimeoutCause(ctx, t.patience+time.Duration(len(hashes))*timeEach/askers, push.ErrTooSlow)
	defer cancel()
	g, asking := errgroup.WithContext(ctx)
	g.SetLimit(askers)
	for i, h := range hashes {
		g.Go(func() (err error) {
			held[i], err = has(asking, h)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		if slow := context.Cause(ctx); errors.Is(slow, push.ErrTooSlow) {
			err = slow
		}
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

// has returns what looks for a path by its hash, or nil where only nix can.
func (t *copyTarget) has() func(ctx context.Context, hash string) (bool, error) {
	u, err := url.Parse(t.url)
	switch {
	case err != nil:
	case u.Scheme == "file":
		return func(_ context.Context, hash string) (bool, error) {
			_, err := os.Stat(filepath.Join(u.Path, hash+".narinfo"))
			if errors.Is(err, os.ErrNotExist) {
				return false, nil
			}
			return err == nil, err
		}
	case u.Scheme == "http", u.Scheme == "https":
		return func(ctx context.Context, hash string) (bool, error) { return Holds(ctx, t.url, hash, t.token) }
	}
	return nil
}

// Holds asks a plain HTTP cache for a path, by its 32-character hash. As for Nix,
// 403 means that it is not there: so say stores that cannot be listed. The narinfo is
// read, because a login page is there under any name.
func Holds(ctx context.Context, cache, hash, token string) (bool, error) {
	file := hash + ".narinfo"
	status, text, err := do(ctx, http.MethodGet, at(cache, file), token, nil)
	switch {
	case err != nil:
		return false, err
	case status == http.StatusOK && describesPath(text, hash):
		return true, nil
	case status == http.StatusNotFound, status == http.StatusForbidden, status == http.StatusGone:
		return false, nil
	case succeeded(status):
		return false, fmt.Errorf("a narinfo: %w", &push.ForeignError{Status: status, Body: text})
	}
	return false, fmt.Errorf("%s: HTTP %d %s", file, status, http.StatusText(status))
}

func describesPath(narinfo []byte, hash string) bool {
	for line := range bytes.Lines(narinfo) {
		if path, ok := bytes.CutPrefix(line, []byte("StorePath:")); ok {
			return bytes.Contains(path, []byte("/"+hash+"-"))
		}
	}
	return false
}

// Send implements pusher.Target. Paths that wait at the same time go with one
// run of nix, whoever comes first running it for all.
func (t *copyTarget) Send(ctx context.Context, p pusher.Path) error {
	r := &copyRequest{path: p.StorePath, size: p.NarSize, done: make(chan error, 1)}
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

// run copies until nobody waits. A store that is too slow for one batch is not tried
// with what waits already: each would take as long.
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
		if err := t.copyAll(ctx, batch); errors.Is(err, push.ErrTooSlow) {
			t.mu.Lock()
			late := t.waiting
			t.waiting = nil
			t.mu.Unlock()
			for _, r := range late {
				r.done <- err
			}
		}
	}
}

// copyAll copies a batch. Where that fails, each path is tried by itself, so that
// one that cannot be copied holds up no other; but not on and on where none can. It
// returns the last error.
func (t *copyTarget) copyAll(ctx context.Context, batch []*copyRequest) error {
	err := t.copy(ctx, batch)
	alone := err != nil && len(batch) > 1 && !errors.Is(err, push.ErrTooSlow) && ctx.Err() == nil && t.Probe(ctx) == nil
	struck := 0
	for i, r := range batch {
		if alone {
			err = t.copy(ctx, batch[i:i+1])
			struck++
			if err == nil {
				struck = 0
			}
			alone = struck < strikes && !errors.Is(err, push.ErrTooSlow)
		}
		r.done <- err
	}
	return err
}

var errNotKept = errors.New("nix copy reported success, but the store does not hold what it was sent: " +
	"look for a proxy in between, or ask whoever runs the store")

// copy copies a batch, and sees that the store holds it: nix takes any success of a
// proxy for the store's, and does not send what it remembers having seen there.
func (t *copyTarget) copy(ctx context.Context, batch []*copyRequest) error {
	paths, hashes := make([]string, len(batch)), make([]string, len(batch))
	for i, r := range batch {
		paths[i], hashes[i] = r.path, storepath.Hash(r.path)
	}
	for _, fresh := range []bool{false, true} {
		if err := t.inTime(ctx, batch, paths, fresh); err != nil {
			return err
		}
		if t.has() == nil {
			return nil
		}
		missing, err := t.MissingPaths(ctx, hashes)
		if err != nil || len(missing) == 0 {
			return err
		}
	}
	return errNotKept
}

// inTime ends a nix copy that takes too long. nix does not tell how far it is; where
// its time is up, it gets once more what the paths would take that the store lacks
// still, which may be many more than those of the batch.
func (t *copyTarget) inTime(ctx context.Context, batch []*copyRequest, paths []string, fresh bool) error {
	copying, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- t.nix.Copy(copying, t.url, paths, fresh) }()

	limit := t.patience
	for _, r := range batch {
		limit += timeEach + transferTime(r.size)
	}
	select {
	case err := <-ended:
		if err != nil && strings.Contains(err.Error(), stalled) {
			return fmt.Errorf("%w: %w", push.ErrTooSlow, err)
		}
		return err
	case <-time.After(limit):
	}
	more := t.timeLeft(ctx, paths)
	select {
	case err := <-ended:
		return err
	case <-time.After(more):
	}
	cancel()
	<-ended
	return fmt.Errorf("%w: nix copy did not end within %v", push.ErrTooSlow, (limit + more).Round(time.Second))
}

// timeLeft is how long what the store lacks of a closure may take; 0 where neither
// the closure nor the store can be asked.
func (t *copyTarget) timeLeft(ctx context.Context, paths []string) time.Duration {
	closure, err := t.nix.Closure(ctx, paths)
	if err != nil {
		return 0
	}
	hashes := make([]string, len(closure))
	for i, p := range closure {
		hashes[i] = storepath.Hash(p.Path)
	}
	missing, err := t.MissingPaths(ctx, hashes)
	if err != nil {
		return 0
	}
	lacks := make(map[string]bool, len(missing))
	for _, h := range missing {
		lacks[h] = true
	}
	var left time.Duration
	for i, p := range closure {
		if lacks[hashes[i]] {
			left += timeEach + transferTime(p.NarSize)
		}
	}
	return left
}
