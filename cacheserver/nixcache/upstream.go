package nixcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
)

const (
	// upstreamTime bounds each step of a request to an upstream: the connection, its
	// TLS handshake, and the wait for the answer's header.
	upstreamTime = 5 * time.Second
	// narinfoTime bounds a whole request for a narinfo.
	narinfoTime = 10 * time.Second
	// stallTime is how long a NAR may keep its reader waiting.
	stallTime = 30 * time.Second
	// leftOut is how long an upstream that failed is not asked.
	leftOut = 30 * time.Second

	maxRedirects = 5
	// hotAbsent bounds the paths of which it is remembered, for hotFor, that an
	// upstream has them not.
	hotAbsent = 64 << 10
)

// Upstream is a binary cache at which those paths are looked up that a cache lacks.
type Upstream struct {
	// URL is its root, http or https. A user name and password in it are sent to its
	// own origin only. It is reached directly: proxies in the environment are not
	// used, for they would hide which address a redirect leads to.
	URL string
	// PublicKeys are those by one of which its narinfos must be signed, each as it
	// stands in trusted-public-keys.
	PublicKeys []string
}

// Check says what is wrong with an upstream's settings.
func (u Upstream) Check() error {
	_, err := u.root()
	if err != nil {
		return err
	}
	if len(u.PublicKeys) == 0 {
		return fmt.Errorf("upstream %s: no public key is given, so that nothing of it could be trusted", u.name())
	}
	for i, key := range u.PublicKeys {
		if _, err := new(narinfo.NarInfo).Signed(key); err != nil {
			return fmt.Errorf("upstream %s: public key %d: %w", u.name(), i+1, err)
		}
	}
	return nil
}

func (u Upstream) root() (*url.URL, error) {
	root, err := url.Parse(u.URL)
	switch {
	case err != nil:
		return nil, errors.New("upstream: the URL is malformed") // the error of url.Parse would quote a password
	case root.Scheme != "http" && root.Scheme != "https", root.Host == "", root.RawQuery != "", root.Fragment != "":
		return nil, fmt.Errorf("upstream %s: want http://host/path or https://host/path", u.name())
	}
	return root.JoinPath("/"), nil
}

// name is the URL as it may stand in logs.
func (u Upstream) name() string {
	root, err := url.Parse(u.URL)
	if err != nil {
		return "?"
	}
	root.User = nil
	return strings.TrimSuffix(root.String(), "/")
}

// What an upstream answers that is no fault of its connection.
var (
	errAbsent = errors.New("the upstream does not have it")
	// errUnusable: the upstream has it, but not so that it could be served.
	errUnusable = errors.New("the upstream's answer cannot be used")
)

// upstream is an Upstream that is asked.
type upstream struct {
	name string
	root *url.URL // ends in a slash
	user *url.Userinfo
	keys []string
	// loop is what this server calls itself in CDN-Loop.
	loop string
	log  *slog.Logger

	// own reaches the upstream's own origin, others where that redirects to.
	own, others *http.Transport
	// private is whether the upstream was reached at an address that is not public.
	private atomic.Bool

	absent hot[string, struct{}]
	// out is until when it is not asked, in Unix nanoseconds; 0: it answered last.
	out atomic.Int64

	stall time.Duration // stallTime, but in tests
}

func newUpstream(u Upstream, loop string, log *slog.Logger) (*upstream, error) {
	if err := u.Check(); err != nil {
		return nil, err
	}
	root, err := u.root()
	if err != nil {
		return nil, err
	}
	up := &upstream{name: u.name(), user: root.User, keys: u.PublicKeys, loop: loop, log: log, absent: newHot[string, struct{}](hotAbsent), stall: stallTime}
	root.User = nil
	up.root = root
	up.own = transport(func(_, address string, _ syscall.RawConn) error {
		up.private.Store(!isPublic(address))
		return nil
	})
	up.others = transport(up.guard)
	return up, nil
}

func transport(control func(network, address string, conn syscall.RawConn) error) *http.Transport {
	dialer := &net.Dialer{Timeout: upstreamTime, Control: control}
	return &http.Transport{
		DialContext:           dialer.DialContext,
		TLSHandshakeTimeout:   upstreamTime,
		ResponseHeaderTimeout: upstreamTime,
		IdleConnTimeout:       time.Minute,
		MaxIdleConnsPerHost:   maxLookups,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true, // Content-Encoding is read here, whichever it is
	}
}

// guard keeps redirects out of the network that this server stands in, unless the
// upstream itself is in there: its storage may well be, too. It sees the address
// that a name was resolved to, which no name can hide.
func (u *upstream) guard(_, address string, _ syscall.RawConn) error {
	if u.private.Load() || isPublic(address) {
		return nil
	}
	return fmt.Errorf("%w: it redirects to %s, an address that is not public", errUnusable, address)
}

// notPublic are prefixes that netip knows no name for.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),  // between a provider and its customers (RFC 6598)
	netip.MustParsePrefix("192.0.0.0/24"),   // RFC 6890
	netip.MustParsePrefix("198.18.0.0/15"),  // benchmarks (RFC 2544)
	netip.MustParsePrefix("240.0.0.0/4"),    // reserved
	netip.MustParsePrefix("64:ff9b::/96"),   // any IPv4 address, through NAT64
	netip.MustParsePrefix("64:ff9b:1::/48"), // RFC 8215
	netip.MustParsePrefix("2002::/16"),      // any IPv4 address, through 6to4
}

// isPublic says whether "address:port" is on the Internet.
func isPublic(address string) bool {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return false
	}
	ip := at.Addr().Unmap().WithZone("")
	for _, p := range notPublic {
		if p.Contains(ip) {
			return false
		}
	}
	return ip.IsGlobalUnicast() && !ip.IsPrivate()
}

// asked says whether it may be asked now. Once the time is over for which it was
// left out, one request finds out for all others whether it answers again.
func (u *upstream) asked() bool {
	until := u.out.Load()
	if until == 0 {
		return true
	}
	now := time.Now()
	return now.UnixNano() >= until && u.out.CompareAndSwap(until, now.Add(leftOut).UnixNano())
}

// answered and failed note how a request ended.
func (u *upstream) answered() {
	if u.out.Swap(0) != 0 {
		u.log.Info("an upstream cache answers again", "upstream", u.name)
	}
}

func (u *upstream) failed(err error) {
	if u.out.Swap(time.Now().Add(leftOut).UnixNano()) == 0 {
		u.log.Warn("an upstream cache is left out until it answers again; what it has is a miss for now",
			"upstream", u.name, "asked every", leftOut, "error", err)
	}
}

func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host) }

// get follows redirects, as caches over S3 answer with, to other origins as well.
// Errors: errAbsent, errUnusable, and those of connections.
func (u *upstream) get(ctx context.Context, at *url.URL, via string) (*http.Response, error) {
	for range maxRedirects + 1 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
		if err != nil {
			return nil, fmt.Errorf("%w: a URL that is malformed", errUnusable)
		}
		req.Header.Set("User-Agent", "attic-cache")
		req.Header.Set(loopHeader, joinLoop(via, u.loop))
		through := u.others
		if sameOrigin(at, u.root) {
			through = u.own
			if password, ok := u.user.Password(); ok {
				req.SetBasicAuth(u.user.Username(), password)
			}
		}
		resp, err := through.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		switch resp.StatusCode {
		case http.StatusOK:
			return resp, nil
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			finish(resp)
			next, err := at.Parse(resp.Header.Get("Location"))
			if err != nil || next.Host == "" || next.Scheme != "https" && (next.Scheme != "http" || at.Scheme == "https") {
				return nil, fmt.Errorf("%w: it redirects to no https URL", errUnusable)
			}
			next.User = nil
			at = next
		case http.StatusForbidden, http.StatusNotFound, http.StatusGone: // S3 answers 403 for what is not there
			finish(resp)
			return nil, errAbsent
		default:
			finish(resp)
			return nil, fmt.Errorf("it answered %s", resp.Status)
		}
	}
	return nil, fmt.Errorf("%w: more than %d redirects", errUnusable, maxRedirects)
}

// finish reads what little is left of an answer, so that its connection is used
// again.
func finish(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 16<<10)
	_ = resp.Body.Close()
}

// CDN-Loop (RFC 8586) ends requests that go round in circles, where two servers are
// each other's upstreams.
const (
	loopHeader = "Cdn-Loop"
	maxHops    = 4
)

func joinLoop(via, own string) string {
	if via == "" {
		return own
	}
	return via + ", " + own
}

// stalling is a body that ends its request when it keeps its reader waiting.
type stalling struct {
	r        io.Reader
	patience time.Duration
	timer    *time.Timer // gives up
}

// Read implements io.Reader.
func (s *stalling) Read(p []byte) (int, error) {
	s.timer.Reset(s.patience)
	defer s.timer.Stop()
	return s.r.Read(p)
}
