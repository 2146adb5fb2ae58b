package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/credential"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nixconf"
)

const (
	// askTime is how long a cache may take for an answer of some lines.
	askTime = 10 * time.Second
	// skew is how far clocks may be apart: ID tokens live for minutes.
	skew = 30 * time.Second
)

// lookAtCache looks at one cache, and no further than it answers.
func (e *examination) lookAtCache(ctx context.Context, cache string) {
	name := func(what string) string { return what + " " + cache }
	finder := e.Credentials
	if e.Cache == "" {
		finder = credential.Finder{NetrcFiles: finder.NetrcFiles}
	}
	var err error
	if e.token, err = finder.For(ctx, cache); err != nil {
		e.problem(name("token"), err.Error(), "mend what it names")
		return
	}
	if !e.reach(ctx, cache) {
		return
	}
	found, err := nixconf.Ask(ctx, cache, e.token)
	switch {
	case errors.Is(err, nixconf.ErrNoKey):
		// A path's signature tells whether one of Nix's own keys is the cache's.
	case err != nil:
		e.problem(name("key"), err.Error(), "ask whoever runs the cache")
		return
	default:
		e.ok(name("key"), "%s", strings.Join(found.PublicKeys, " "))
	}
	e.lookAtUse(found)
	e.lookAtPath(ctx, cache, found)
	e.lookAtPushing(ctx, cache)
}

// reach asks for the one file that each cache has.
func (e *examination) reach(ctx context.Context, cache string) bool {
	began := time.Now()
	got, err := e.get(ctx, cache+"/nix-cache-info")
	took := time.Since(began)
	if err != nil {
		e.problem("reach "+cache, plainly(ctx, err), unreachable(cache+"/nix-cache-info", err)...)
		return false
	}
	switch got.code {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		e.problem("reach "+cache, "HTTP "+got.status, "give a token that may pull: in "+credential.TokenVariable+", and to Nix with flywheel use --token-file FILE "+cache)
		return false
	default:
		todo := "compare the address with what whoever runs the cache says: it ends with the cache's name, as in https://cache.example.org/main"
		if got.code >= http.StatusInternalServerError {
			todo = "look at the server's log, and, where a proxy is in front of it, whether the server runs"
		}
		e.problem("reach "+cache, "nix-cache-info: HTTP "+got.status, todo)
		return false
	}
	var dir string
	for line := range strings.Lines(string(got.body)) {
		if value, ok := strings.CutPrefix(line, "StoreDir:"); ok {
			dir = strings.TrimSpace(value)
		}
	}
	switch {
	case dir == "":
		e.problem("reach "+cache, fmt.Sprintf("its nix-cache-info names no store: %.60q", got.body), "something else answers there: compare the address")
		return false
	case e.nix != nil && e.store.Dir != "" && dir != e.store.Dir:
		e.problem("reach "+cache, fmt.Sprintf("it is for the store %s, this machine's is %s", dir, e.store.Dir), "use a cache that was made for this store")
		return false
	}
	e.ok("reach "+cache, "answers in %v", took.Round(time.Millisecond))
	e.lookAtClock(cache, got.date, began.Add(took/2))
	return true
}

// unreachable says what to do about a connection to an address that was not made.
func unreachable(address string, err error) []string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return []string{"look whether the name is right, and this machine on the network (VPN) that knows it"}
	case strings.Contains(err.Error(), "certificate"):
		return []string{"let this machine trust the server's authority, and Nix by NIX_SSL_CERT_FILE or `ssl-cert-file`"}
	}
	return []string{"look whether the server runs, and whether a firewall or proxy is in between: curl -v " + address}
}

func (e *examination) lookAtClock(cache, date string, here time.Time) {
	there, err := http.ParseTime(date)
	if err != nil {
		e.skip("clock "+cache, "the server does not tell the time")
		return
	}
	// Date has whole seconds.
	apart := here.Sub(there).Round(time.Second)
	if apart.Abs() > skew {
		e.problem("clock "+cache, fmt.Sprintf("this machine's clock is %v apart from the server's", apart.Abs()), "set it (timedatectl set-ntp true): tokens and certificates have a time from and until which they hold")
		return
	}
	e.ok("clock "+cache, "no more than %v apart from the server's", max(apart.Abs(), time.Second))
}

// lookAtUse says whether Nix would pull from the cache.
func (e *examination) lookAtUse(c nixconf.Cache) {
	if e.mine == nil {
		return
	}
	var reasons []nixconf.Reason
	for _, r := range nixconf.Ignored(e.mine, e.machine, e.user, c) {
		// Without the cache's word, its key is known from a signature only.
		if len(c.PublicKeys) > 0 || !strings.Contains(r.What, "no key of") {
			reasons = append(reasons, r)
		}
	}
	for _, r := range reasons {
		e.problem("use "+c.URL, r.What, r.Do...)
	}
	if len(reasons) == 0 {
		e.ok("use "+c.URL, "Nix pulls from it")
	}
}

// lookAtPushing asks what is missing in the cache, for which one needs the right
// to push.
func (e *examination) lookAtPushing(ctx context.Context, cache string) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	client, err := push.NewClient(cache)
	if err != nil {
		e.skip("push "+cache, "%v", err)
		return
	}
	defer client.Close()
	client.SetToken(e.token)
	if _, err := client.Info(ctx); errors.Is(err, push.ErrNotSpoken) {
		e.skip("push "+cache, "the server is not one of this project's: whether pushes are taken is not known before one")
		return
	}
	_, err = client.MissingPaths(ctx, []string{strings.Repeat("0", storepath.HashLen)})
	var status *push.StatusError
	switch {
	case err == nil:
		e.ok("push "+cache, "pushes are taken")
	case errors.As(err, &status) && (status.Status == http.StatusUnauthorized || status.Status == http.StatusForbidden):
		e.add(Finding{"push " + cache, Hint, "pushes are not taken: " + err.Error(), []string{"to push, give a token with that right in " + credential.TokenVariable + "; pulling works without"}})
	default:
		e.problem("push "+cache, err.Error(), "look at the server's log")
	}
}

// answer is a short one, which was read.
type answer struct {
	code   int
	status string
	date   string
	body   []byte
}

// get reads at most 1 MiB.
func (e *examination) get(ctx context.Context, from string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	resp, err := e.open(ctx, from)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return answer{resp.StatusCode, resp.Status, resp.Header.Get("Date"), body}, err
}

// open begins to read; the caller closes the body.
func (e *examination) open(ctx context.Context, from string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	if e.token != "" {
		req.Header.Set("Authorization", "Bearer "+e.token)
	}
	return e.http.Do(req)
}

// plainly is an error without what http puts around it.
func plainly(ctx context.Context, err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return fmt.Sprintf("no answer within %v", askTime)
	case errors.As(err, &dns):
		return "the name " + dns.Name + " cannot be resolved"
	}
	return err.Error()
}

// hashesOf returns the hashes by which caches know store paths.
func hashesOf(paths []string) []string {
	var hashes []string
	for _, p := range paths {
		if base := path.Base(p); len(base) > storepath.HashLen && !slices.Contains(hashes, base[:storepath.HashLen]) {
			hashes = append(hashes, base[:storepath.HashLen])
		}
	}
	return hashes
}
