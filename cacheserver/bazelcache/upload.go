package bazelcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
)

const (
	// resumeFor is how long an upload that broke off waits for its client.
	resumeFor = time.Minute
	// maxParked is how many do: each holds memory that other uploads wait for.
	// Those that broke off longest ago go first.
	maxParked = 4
)

// errGivenUp ends an upload that nobody goes on with.
var errGivenUp = errors.New("the upload was given up")

// uploads are those that have begun and not ended, by their resource.
type uploads struct {
	door *Door
	// stop ends all of them, running waits for that.
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	byKey  map[string]*upload
	parked []*upload // the one that broke off last at the end
	closed bool
}

func newUploads(d *Door) *uploads {
	u := &uploads{door: d, byKey: map[string]*upload{}}
	u.ctx, u.stop = context.WithCancel(context.Background())
	return u
}

// close breaks off all uploads and waits until they are.
func (us *uploads) close() {
	us.mu.Lock()
	us.closed = true
	us.mu.Unlock()
	us.stop()
	us.running.Wait()
}

// upload is one that survives its calls: what they send goes into a pipe that
// ingest reads.
type upload struct {
	resource
	us   *uploads
	in   *io.PipeWriter
	stop context.CancelFunc
	done chan struct{} // closed when ingest has ended
	err  error         // of ingest, once done is closed

	taken atomic.Int64 // bytes of the blob, uncompressed

	mu     sync.Mutex // held while a call writes
	turn   *turn      // of the call that goes on with it; nil while it is parked
	giveUp *time.Timer
}

// turn is one call's part of an upload.
type turn struct {
	*upload
	skip int64 // bytes that the client sends once more
}

// begin makes an upload, or goes on with one where offset is not 0.
func (us *uploads) begin(r resource, offset int64) (*turn, error) {
	us.mu.Lock()
	u := us.byKey[r.key()]
	us.unpark(u)
	us.mu.Unlock()
	if offset == 0 {
		if u != nil {
			u.drop()
		}
		return us.create(r)
	}
	if u == nil {
		return nil, fmt.Errorf("%w: write_offset is %d, but committed_size is 0", errInvalid, offset)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	taken := u.taken.Load()
	if offset > taken {
		u.park()
		return nil, fmt.Errorf("%w: write_offset is %d, but committed_size is %d", errInvalid, offset, taken)
	}
	if u.giveUp != nil {
		u.giveUp.Stop()
	}
	u.turn = &turn{u, taken - offset}
	return u.turn, nil
}

func (us *uploads) create(r resource) (*turn, error) {
	ctx, cancel := context.WithCancel(us.ctx)
	out, in := io.Pipe()
	u := &upload{resource: r, us: us, in: in, stop: cancel, done: make(chan struct{})}
	u.turn = &turn{u, 0}
	us.mu.Lock()
	defer us.mu.Unlock()
	if us.closed {
		cancel()
		return nil, cas.ErrClosed
	}
	us.byKey[r.key()] = u
	us.running.Go(func() {
		defer cancel()
		// A reader that waits for a client that has left hears of the end, too.
		defer context.AfterFunc(ctx, func() { _ = in.CloseWithError(errGivenUp) })()
		_, u.err = us.door.ingest(ctx, want{r.fn, r.Hash, r.Size}, out)
		if u.err != nil {
			_ = out.CloseWithError(u.err)
		}
		close(u.done)
		u.drop()
	})
	return u.turn, nil
}

// unpark is called with mu held.
func (us *uploads) unpark(u *upload) {
	us.parked = slices.DeleteFunc(us.parked, func(p *upload) bool { return p == u })
}

// status returns how many bytes of an upload were taken, 0 for one that is not
// known.
func (us *uploads) status(r resource) int64 {
	us.mu.Lock()
	defer us.mu.Unlock()
	if u := us.byKey[r.key()]; u != nil {
		return u.taken.Load()
	}
	return 0
}

// drop ends an upload and forgets it.
func (u *upload) drop() {
	u.stop()
	u.us.mu.Lock()
	defer u.us.mu.Unlock()
	if u.us.byKey[u.key()] == u {
		delete(u.us.byKey, u.key())
	}
	u.us.unpark(u)
}

// park is called with mu held: nobody goes on with the upload now.
func (u *upload) park() {
	u.turn = nil
	u.giveUp = time.AfterFunc(resumeFor, u.drop)
	u.us.mu.Lock()
	u.us.unpark(u)
	u.us.parked = append(u.us.parked, u)
	var oldest *upload
	if len(u.us.parked) > maxParked {
		oldest = u.us.parked[0]
	}
	u.us.mu.Unlock()
	if oldest != nil {
		oldest.drop()
	}
}

// Write takes bytes of the blob, uncompressed. errTakenOver: another call goes on
// with the upload.
func (t *turn) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.turn != t {
		return 0, errTakenOver
	}
	n := int(min(t.skip, int64(len(p))))
	t.skip -= int64(n)
	if t.taken.Load()+int64(len(p)-n) > t.Size {
		return n, fmt.Errorf("%w: it has more than %d bytes", errMismatch, t.Size)
	}
	sent, err := t.in.Write(p[n:])
	t.taken.Add(int64(sent))
	if errors.Is(err, io.ErrClosedPipe) {
		err = errGivenUp
	}
	return n + sent, err
}

// leave ends a call that broke off. The upload waits for another one.
func (t *turn) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.turn != t {
		return
	}
	select {
	case <-t.done:
	default:
		t.park()
	}
}

// abandon ends the upload, unless another call goes on with it.
func (t *turn) abandon() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.turn == t {
		t.drop()
	}
}

// finish ends the upload, and returns when its blob survives a crash.
func (t *turn) finish(ctx context.Context) error {
	t.mu.Lock()
	if t.turn != t {
		t.mu.Unlock()
		return errTakenOver
	}
	_ = t.in.Close()
	t.mu.Unlock()
	select {
	case <-t.done:
		return t.err
	case <-ctx.Done():
		// It goes on: a client that asks is told when the blob is there.
		return ctx.Err()
	}
}
