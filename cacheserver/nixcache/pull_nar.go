package nixcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// maxTail is how many bytes of a NAR wait in memory for the client that is sent
// them while they are stored.
const maxTail = 4 << 20

// errStalled ends a NAR that does not come.
var errStalled = errors.New("the upstream sends no more")

// pull is a NAR that is being fetched and stored. Its first client is sent it
// meanwhile; others wait, and are sent what was stored.
type pull struct {
	tail tail
	done chan struct{} // closed when it is stored, or has failed with err
	err  error
}

// tail is what was read of a NAR and not sent yet. It never makes its writer wait:
// for a client that falls behind, the rest comes from the store.
type tail struct {
	mu     sync.Mutex
	buf    []byte
	behind bool
	more   chan struct{} // of capacity 1
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.behind = t.behind || len(t.buf)+len(p) > maxTail; !t.behind {
		t.buf = append(t.buf, p...)
		select {
		case t.more <- struct{}{}:
		default:
		}
	}
	return len(p), nil
}

// take returns at most limit bytes.
func (t *tail) take(limit int64) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(int64(len(t.buf)), limit)
	taken := t.buf[:n:n]
	t.buf = append([]byte(nil), t.buf[n:]...)
	return taken
}

// leave says that nobody takes any more.
func (t *tail) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.behind, t.buf = true, nil
}

// pullNAR answers with a NAR that an upstream has, and stores it. answered is false
// when it is stored, to be sent as others are.
func (d *Door) pullNAR(w http.ResponseWriter, r *http.Request, c *cache, f narFile) (answered bool, err error) {
	if f.path == "" || f.format != formatZstd && f.format != formatPlain {
		return false, errNoSuchFile
	}
	via, _ := d.pulls.pulled(r, c)
	o, err := d.offer(r, c, f.path)
	if err != nil {
		return false, err
	}
	if o.info.NarHash != f.hash {
		return false, errNoSuchFile
	}
	h := w.Header()
	h.Set("Content-Type", narType)
	// It is not yet what others will be sent: without ranges, and, compressed, of
	// other bytes.
	h.Set("Cache-Control", "no-store")
	if f.format == formatPlain {
		h.Set("Content-Length", strconv.FormatInt(o.info.NarSize, 10))
	}
	if r.Method == http.MethodHead {
		return true, nil
	}
	p, first, err := d.join(r.Context(), c, o, via)
	if err != nil {
		return false, err
	}
	if first {
		answered, err = d.follow(w, r, c, o, p, f.format)
	} else {
		select {
		case <-p.done:
			err = p.err
		case <-r.Context().Done():
			err = r.Context().Err()
		}
	}
	if !answered {
		h.Del("Content-Length")
		h.Del("Cache-Control")
	}
	return answered, err
}

// join returns the pull of a path, which it begins where there is none. first is
// true for the one who began it.
func (d *Door) join(ctx context.Context, c *cache, o *offer, via string) (p *pull, first bool, err error) {
	s := d.pulls
	key := pathKey{c.ID, o.path.Hash}
	s.mu.Lock()
	p = s.underway[key]
	s.mu.Unlock()
	if p != nil {
		return p, false, nil
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p = s.underway[key]; p != nil || s.closed {
		<-s.slots
		if p == nil {
			err = errNoSuchFile
		}
		return p, false, err
	}
	p = &pull{done: make(chan struct{}), tail: tail{more: make(chan struct{}, 1)}}
	s.underway[key] = p
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		p.err = d.storeOffer(s.ctx, c, o, via, &p.tail)
		s.mu.Lock()
		delete(s.underway, key)
		s.mu.Unlock()
		<-s.slots
		close(p.done)
	}()
	return p, true, nil
}

// storeOffer fetches and stores the NAR of a path and records the path. All its errors
// are errNoSuchFile to clients: why is for the log.
func (d *Door) storeOffer(ctx context.Context, c *cache, o *offer, via string, to io.Writer) error {
	s := d.pulls
	// It may have been stored between a client's look and its turn.
	_, err := d.index.Path(ctx, c.ID, o.path.Hash)
	if err == nil {
		return nil
	}
	var broke error
	if errors.Is(err, index.ErrNotFound) {
		broke, err = d.fetch(ctx, c, o, via, to)
	}
	if broke == nil && err == nil {
		s.offers.Remove(pathKey{c.ID, o.path.Hash})
		s.nars.Add(1)
		s.narBytes.Add(o.info.NarSize)
		return nil
	}
	s.failed.Add(1)
	if ctx.Err() != nil {
		return errNoSuchFile
	}
	forget := func() { // so that another upstream is asked for it
		o.from.absent.Add(o.path.Hash, struct{}{})
		s.offers.Remove(pathKey{c.ID, o.path.Hash})
	}
	var tooLong *cas.TooLongError
	switch {
	case errors.Is(broke, errAbsent):
		forget()
	case broke != nil && !errors.Is(broke, errUnusable):
		forget()
		o.from.failed(fmt.Errorf("fetching the NAR of %s: %w", o.info.StorePath, broke))
	case broke != nil, errors.Is(err, errUnusable), errors.Is(err, errMalformed), errors.Is(err, errUnsupported), errors.As(err, &tooLong):
		forget()
		s.log.Warn("the NAR of an upstream cache is not served", "upstream", o.from.name, "path", o.info.StorePath, "error", errors.Join(broke, err))
	case errors.Is(err, errNoSuchCache):
	default:
		s.pause(err)
	}
	return errNoSuchFile
}

// fetch tells what broke on the way from the upstream from what is wrong with what
// came, or with this server's storage.
func (d *Door) fetch(ctx context.Context, c *cache, o *offer, via string, to io.Writer) (broke, err error) {
	get, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := o.from.get(get, o.at, via)
	if err != nil {
		return err, nil
	}
	defer func() { _ = resp.Body.Close() }()
	timer := time.AfterFunc(o.from.stall, func() { cancel(errStalled) })
	defer timer.Stop()
	body := &noting{r: &stalling{resp.Body, o.from.stall, timer}}
	file, err := unpackBody(resp.Header.Get("Content-Encoding"), body)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnusable, err), nil
	}
	stored, malformed, err := d.storeNAR(ctx, io.TeeReader(o.format.unpack(file), to), o.info.NarSize)
	switch {
	case body.err != nil:
		if cause := context.Cause(get); cause != nil {
			return cause, nil
		}
		return body.err, nil
	case err != nil:
		return nil, err
	case stored.Digest != o.path.NAR.Digest:
		return nil, fmt.Errorf("%w: the narinfo says NarHash %s and NarSize %d, the NAR has %s and %d",
			errUnusable, o.info.NarHash.Nix(), o.info.NarSize, stored.Hash.Nix(), stored.Size)
	case malformed != nil:
		return nil, fmt.Errorf("%w: %w", errUnusable, malformed)
	}
	return nil, d.putPath(ctx, c, o.path, func(tx index.Tx) (index.Blob, error) {
		return tx.AddBlob(stored.Blob, stored.Chunks, d.store.Expiry())
	})
}

// follow sends a NAR while it is stored. Its last byte, and what ends the answer,
// wait until the whole was compared with the narinfo and recorded.
func (d *Door) follow(w http.ResponseWriter, r *http.Request, c *cache, o *offer, p *pull, format *format) (answered bool, err error) {
	defer p.tail.leave()
	ctx := r.Context()
	begun := false
	out, err := liveWriter(&beginner{func() { begun = true }, w}, format)
	if err != nil {
		return false, err
	}
	var sent int64
	send := func(b []byte) error {
		if len(b) == 0 { // it would begin the answer
			return nil
		}
		n, err := out.Write(b)
		sent += int64(n)
		return err
	}
	for {
		select {
		case <-p.tail.more:
			err = send(p.tail.take(o.info.NarSize - 1 - sent))
		case <-ctx.Done():
			err = ctx.Err()
		case <-p.done:
			switch {
			case p.err != nil && !begun:
				return false, p.err
			case p.err != nil: // the log says why
				panic(http.ErrAbortHandler)
			case !begun:
				return false, nil
			}
			if err = send(p.tail.take(o.info.NarSize - sent)); err == nil {
				err = d.sendRest(ctx, out, c, o, sent)
			}
			if err == nil {
				err = out.Close()
			}
			if err == nil {
				return true, nil
			}
		}
		if err != nil {
			return true, d.breakOff(r, sent, err)
		}
	}
}

// sendRest sends what stands behind the first sent bytes of a NAR.
func (d *Door) sendRest(ctx context.Context, w io.Writer, c *cache, o *offer, sent int64) error {
	if sent == o.info.NarSize {
		return nil
	}
	n, err := d.findNAR(ctx, c, o.info.NarHash)
	if err != nil {
		return err
	}
	return d.eachByte(ctx, n.Blob, func(plain io.Reader) error {
		if _, err := io.CopyN(io.Discard, plain, sent); err != nil {
			return err
		}
		_, err := io.Copy(w, plain)
		return err
	})
}

// liveWriter compresses fast rather than well: what is sent so is sent once.
func liveWriter(w io.Writer, format *format) (io.WriteCloser, error) {
	if format == formatPlain {
		return writePlain(w)
	}
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
}
