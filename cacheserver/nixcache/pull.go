package nixcache

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

const (
	maxLookups = 64 // narinfos that are asked for at a time
	maxPulls   = 8  // NARs that are fetched at a time; a client waits for its turn
	hotOffers  = 16 << 10
	// pauseTime is how long nothing is pulled after something could not be stored.
	pauseTime = 30 * time.Second
)

// Pulled counts what became of misses that were looked up at upstreams, since the
// start.
type Pulled struct {
	Found    int64 // narinfos that an upstream had
	Absent   int64 // narinfos that none had, or that could not be asked for
	NARs     int64 // that were fetched and stored
	NARBytes int64 // of those, uncompressed
	Failed   int64 // NARs whose fetching failed
}

// pulls are the paths that come from upstreams.
//
// What an upstream has is offered as if it were here: under its narinfo, which the
// upstream has signed and the cache signs, too, as all that it serves. It is
// recorded once its NAR was asked for, and from then on is a path like others:
// it lives while it is used or referred to. Its references may be absent, as those
// of a pushed path may; whoever asks for them gets them from the upstream in turn.
type pulls struct {
	upstreams map[string][]*upstream // by the name of the cache
	loop      string
	log       *slog.Logger

	offers  hot[pathKey, *offer]
	lookups singleflight.Group
	asking  chan struct{}
	slots   chan struct{}
	// paused is until when nothing is pulled, in Unix nanoseconds.
	paused atomic.Int64

	// What is fetched outlives the requests that it began with, but not the door.
	ctx  context.Context //nolint:containedctx // it is the door's life
	stop context.CancelFunc

	mu       sync.Mutex
	underway map[pathKey]*pull
	closed   bool
	running  sync.WaitGroup

	found, absent, nars, narBytes, failed atomic.Int64
}

func newPulls(configured map[string][]Upstream, log *slog.Logger) *pulls {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	p := &pulls{
		upstreams: map[string][]*upstream{}, loop: "attic-cache-" + hex.EncodeToString(id), log: log,
		offers:   newHot[pathKey, *offer](hotOffers),
		asking:   make(chan struct{}, maxLookups),
		slots:    make(chan struct{}, maxPulls),
		underway: map[pathKey]*pull{},
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	for name, list := range configured {
		for _, c := range list {
			u, err := newUpstream(c, p.loop, log)
			if err != nil {
				log.Error("an upstream cache is not used", "cache", name, "error", err)
				continue
			}
			p.upstreams[name] = append(p.upstreams[name], u)
		}
	}
	return p
}

// begin says that something begins that Close has to wait for; it is false after
// Close.
func (p *pulls) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.running.Add(1)
	return true
}

// Close breaks off what is being pulled from upstreams, and waits for that. The
// store must be closed after it.
func (d *Door) Close() {
	p := d.pulls
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	p.running.Wait()
	for _, list := range p.upstreams {
		for _, u := range list {
			u.own.CloseIdleConnections()
			u.others.CloseIdleConnections()
		}
	}
}

// Pulled counts what was pulled.
func (d *Door) Pulled() Pulled {
	p := d.pulls
	return Pulled{Found: p.found.Load(), Absent: p.absent.Load(), NARs: p.nars.Load(), NARBytes: p.narBytes.Load(), Failed: p.failed.Load()}
}

// pulled says whether what the cache lacks may be looked up for a request; via is
// what the request has come through.
func (p *pulls) pulled(r *http.Request, c *cache) (via string, ok bool) {
	if len(p.upstreams[c.Name]) == 0 || time.Now().UnixNano() < p.paused.Load() {
		return "", false
	}
	via = strings.Join(r.Header.Values(loopHeader), ", ")
	return via, !strings.Contains(via, p.loop) && strings.Count(via, ",") < maxHops && len(via) < 1000
}

// pause is for faults of this server's own storage: its clients are better served
// by the upstreams themselves, which they ask after a miss.
func (p *pulls) pause(err error) {
	if now := time.Now(); p.paused.Swap(now.Add(pauseTime).UnixNano()) < now.UnixNano() {
		p.log.Error("nothing is pulled from upstream caches for a while: what comes cannot be stored", "for", pauseTime, "error", err)
	}
}

// offer is a path that an upstream has.
type offer struct {
	info   *narinfo.NarInfo // the upstream's
	path   index.Path       // without its NAR
	from   *upstream
	at     *url.URL // the NAR's
	format *format
	here   *hotNarinfo // as it is told here
}

// offer returns a path that an upstream has and signed, or errNoSuchFile. Requests
// for the same path at the same time ask once.
func (d *Door) offer(r *http.Request, c *cache, hash string) (*offer, error) {
	p := d.pulls
	via, ok := p.pulled(r, c)
	if !ok {
		return nil, errNoSuchFile
	}
	key := pathKey{c.ID, hash}
	if o, ok := p.offers.Get(key); ok {
		return o, nil
	}
	// A request of another server must not wait for one that waits for that server.
	flight := fmt.Sprint(c.ID, " ", hash, " ", via)
	found := p.lookups.DoChan(flight, func() (any, error) { return d.lookUpOffer(c, hash, via) })
	select {
	case got := <-found:
		o, _ := got.Val.(*offer)
		return o, got.Err
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func (d *Door) lookUpOffer(c *cache, hash, via string) (*offer, error) {
	p := d.pulls
	if !p.begin() {
		return nil, errNoSuchFile
	}
	defer p.running.Done()
	key := pathKey{c.ID, hash}
	if o, ok := p.offers.Get(key); ok { // since the look before
		return o, nil
	}
	select {
	case p.asking <- struct{}{}:
		defer func() { <-p.asking }()
	case <-p.ctx.Done():
		return nil, errNoSuchFile
	}
	for _, u := range p.upstreams[c.Name] {
		if _, known := u.absent.Get(hash); known || !u.asked() {
			continue
		}
		o, err := u.offer(p.ctx, c, hash, via)
		switch {
		case err == nil:
			u.answered()
			n := narinfoOf(c, o.path)
			n.URL = pulledURL(o.path)
			o.here = &hotNarinfo{text: n.Text()}
			p.offers.Add(key, o)
			p.found.Add(1)
			return o, nil
		case p.ctx.Err() != nil:
			return nil, errNoSuchFile
		case errors.Is(err, errAbsent):
			u.answered()
			u.absent.Add(hash, struct{}{})
		case errors.Is(err, errUnusable):
			u.answered()
			u.absent.Add(hash, struct{}{})
			p.log.Warn("a path of an upstream cache is not served", "upstream", u.name, "path", hash, "error", err)
		default:
			u.failed(err)
		}
	}
	p.absent.Add(1)
	return nil, errNoSuchFile
}

// pulledURL is the URL of a path's NAR where it may have to be pulled: clients keep
// narinfos for a month, and the path's hash in it says, to any server and after
// any restart, which path to look up.
func pulledURL(p index.Path) string {
	return "nar/" + p.Hash + "-" + p.NAR.Hash.Nix32() + narSuffix
}

// offer asks an upstream for a path.
func (u *upstream) offer(ctx context.Context, c *cache, hash, via string) (*offer, error) {
	ctx, cancel := context.WithTimeout(ctx, narinfoTime)
	defer cancel()
	resp, err := u.get(ctx, u.root.JoinPath(hash+narinfoSuffix), via)
	if err != nil {
		return nil, err
	}
	defer finish(resp)
	body := &noting{r: resp.Body}
	plain, err := unpackBody(resp.Header.Get("Content-Encoding"), body)
	var text []byte
	if err == nil {
		text, err = io.ReadAll(io.LimitReader(plain, narinfo.MaxSize+1))
	}
	if body.err != nil {
		return nil, fmt.Errorf("reading a narinfo: %w", body.err)
	}
	var n *narinfo.NarInfo
	if err == nil {
		n, err = narinfo.Parse(text)
	}
	if err == nil {
		err = n.Check(c.StoreDir)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	return u.accept(ctx, c, hash, n)
}

// accept checks what an upstream says of a path.
func (u *upstream) accept(ctx context.Context, c *cache, hash string, n *narinfo.NarInfo) (*offer, error) {
	refuse := func(format string, args ...any) (*offer, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{errUnusable}, args...)...)
	}
	if storepath.Hash(n.StorePath) != hash {
		return refuse("it is the narinfo of %s", n.StorePath)
	}
	if n.NarSize > maxNAR {
		return refuse("a NAR of %d bytes, at most %d are taken", n.NarSize, int64(maxNAR))
	}
	if !u.signed(n) {
		return refuse("it is signed with none of the keys that are trusted of this upstream")
	}
	at, err := u.root.Parse(n.URL)
	if err != nil || !sameOrigin(at, u.root) || at.User != nil {
		return refuse("its URL %.300q leads away from the upstream", n.URL)
	}
	o := &offer{info: n, from: u, at: at}
	if o.format, err = compressedAs(n.Compression); err != nil {
		return refuse("%w", err)
	}
	if o.path, err = pathOf(ctx, c, n); err != nil {
		return refuse("%w", err)
	}
	o.path.PushedBy = u.name[:min(maxPusher, len(u.name))]
	o.path.NAR.Digest = digest.Digest{Hash: n.NarHash, Size: n.NarSize}
	return o, nil
}

func (u *upstream) signed(n *narinfo.NarInfo) bool {
	for _, key := range u.keys {
		if ok, err := n.Signed(key); err == nil && ok {
			return true
		}
	}
	return false
}

// compressedAs returns the format of which a narinfo tells.
func compressedAs(compression string) (*format, error) {
	if compression == "none" {
		return formatPlain, nil
	}
	for _, f := range packed {
		if f.encoding == compression {
			return f, nil
		}
	}
	return nil, fmt.Errorf("compression %.40q is %w", compression, errUnsupported)
}
