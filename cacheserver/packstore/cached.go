package packstore

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/filelock"
)

const (
	// blockSize is how much of a pack is fetched and kept as one file. Where an
	// object store takes some 30 ms to answer and then sends 100 MB/s, a request
	// of 4 MiB spends about as long on either; and a cache of 100 GB has 25,000
	// files, which a start looks through in a moment.
	blockSize = 4 << 20
	// ahead is how many blocks a reader has fetched at the same time: the one it
	// waits for and those behind it.
	ahead = 4
	// maxFetches bounds the requests for blocks that are under way.
	maxFetches = 32
	// maxPrefetches bounds how many ranges are brought near at the same time, and
	// maxPrefetchesWaiting how many wait for that. They leave room for reads.
	maxPrefetches        = maxFetches / ahead / 2
	maxPrefetchesWaiting = 64
	// MinCached is the smallest limit of a cache, in bytes: what a few readers
	// hold at the same time.
	MinCached = 2 * ahead * blockSize
)

// ErrClosed is returned by a store that was closed.
var ErrClosed = errors.New("the pack store is closed")

// errAround means that a block cannot be kept on this disk now, and is to be
// read from where it comes from.
var errAround = errors.New("the block cannot be cached")

// Cached keeps blocks of the packs of another store in files, the last used up
// to a limit. What it holds is read even while the other store is unavailable,
// and its own disk's failures fail no read. It relies on a name never being
// given to another pack by another process, and does not see what another
// process deletes.
//
// Blocks are not forced to disk: a checksum finds those that a power cut has
// spoilt, at their first use after a start.
type Cached struct {
	next  Store
	dir   string
	limit int64
	lock  *os.File

	ctx     context.Context // of what no caller's context ends
	cancel  context.CancelFunc
	running sync.WaitGroup

	fetches    *semaphore.Weighted
	prefetches *semaphore.Weighted

	mu       sync.Mutex
	closed   bool
	packs    map[string]*cachedPack
	asked    map[string]*sizing
	idle     list.List // the blocks on disk that nobody holds, the last used first
	used     int64     // bytes of blocks on disk, and of those to come
	waiting  int       // prefetches, those under way among them
	counters CacheStats
}

// CacheStats says how a cache fares.
type CacheStats struct {
	Used   int64 // bytes on disk
	Limit  int64 // in bytes
	Hits   int64 // blocks that were read from disk
	Misses int64 // blocks that were fetched
	Around int64 // blocks that could not be kept, for want of room or because the disk failed
	// DiskErr is the disk's last failure, nil when blocks were kept since.
	DiskErr error
}

// OpenCached opens a cache of next's packs in a directory, which it creates when
// it is missing; limit is in bytes, at least MinCached. The directory is locked:
// a second cache in it, of this process or another, is an error. Close ends the
// cache, not next.
func OpenCached(dir string, limit int64, next Store) (_ *Cached, err error) {
	if limit < MinCached {
		return nil, fmt.Errorf("a cache of packs of %d bytes: want at least %d", limit, int64(MinCached))
	}
	c := &Cached{
		next:       next,
		dir:        dir,
		limit:      limit,
		fetches:    semaphore.NewWeighted(maxFetches),
		prefetches: semaphore.NewWeighted(maxPrefetches),
		packs:      map[string]*cachedPack{},
		asked:      map[string]*sizing{},
	}
	if c.lock, err = lockDir(dir); err == nil {
		if err = c.scan(); err != nil {
			_ = filelock.Release(c.lock)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("opening the cache of packs %s: %w", dir, err)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := filelock.Open(filepath.Join(dir, "lock"))
	if errors.Is(err, filelock.ErrHeld) {
		return nil, errors.New("another cache is open in it: give each a directory of its own")
	}
	return f, err
}

// Close ends what is being fetched, and waits for it. Readers that are open fail
// where they would have to fetch more.
func (c *Cached) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.running.Wait()
	return filelock.Release(c.lock)
}

// Stats returns how the cache fares.
func (c *Cached) Stats() CacheStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.counters
	s.Used, s.Limit = c.used, c.limit
	return s
}

// Put implements Store. A pack whose body is an io.Seeker is in the cache
// afterwards, if there is room.
func (c *Cached) Put(ctx context.Context, name string, size int64, body io.Reader) error {
	seeker, ok := body.(io.ReadSeeker)
	if !ok {
		return c.next.Put(ctx, name, size, body)
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("writing pack %s: %w", name, err)
	}
	if err := c.next.Put(ctx, name, size, body); err != nil {
		return err
	}
	c.keep(name, size, seeker, start)
	return nil
}

// keep puts a pack that was just written into the cache, as far as it goes.
func (c *Cached) keep(name string, size int64, body io.ReadSeeker, start int64) {
	for n := range (size + blockSize - 1) / blockSize {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return
		}
		b := c.grasp(name, size, n)
		if b.state != blockAbsent || b.loading != nil {
			c.letGo(b)
			c.mu.Unlock()
			continue
		}
		l := c.begin(b)
		c.running.Add(1)
		c.mu.Unlock()
		err := c.load(b, func() (io.ReadCloser, error) {
			_, err := body.Seek(start+b.offset(), io.SeekStart)
			return io.NopCloser(body), err
		})
		c.finish(b, l, err)
		c.release(b)
		c.running.Done()
		if err != nil {
			return
		}
	}
}

// Size implements Store. While next is unavailable, it is known of packs that
// are cached in part.
func (c *Cached) Size(ctx context.Context, name string) (int64, error) {
	size, err := c.next.Size(ctx, name)
	if errors.Is(err, ErrUnavailable) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if p := c.packs[name]; p != nil {
			return p.size, nil
		}
	}
	return size, err
}

// List implements Store: it lists next.
func (c *Cached) List(ctx context.Context, visit func(name string, size int64) error) error {
	return c.next.List(ctx, visit)
}

// Delete implements Store.
func (c *Cached) Delete(ctx context.Context, name string) error {
	err := c.next.Delete(ctx, name)
	c.drop(name)
	return err
}

// Presign implements Presigner where next does; it is errors.ErrUnsupported
// where not.
func (c *Cached) Presign(ctx context.Context, name string, ttl time.Duration) (string, error) {
	p, ok := c.next.(Presigner)
	if !ok {
		return "", fmt.Errorf("making a URL of pack %s: %w", name, errors.ErrUnsupported)
	}
	return p.Presign(ctx, name, ttl)
}

// Open implements Store. What is missing is fetched block by block, a few ahead
// of the reading; Open returns once there is something to read.
func (c *Cached) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	size, err := c.sizeOf(ctx, name)
	if err != nil {
		return nil, err
	}
	if offset < 0 || length < 0 || offset > size-length {
		return nil, fmt.Errorf("reading pack %s: %w: %d bytes at offset %d of %d", name, io.ErrUnexpectedEOF, length, offset, size)
	}
	if length == 0 {
		return http.NoBody, nil
	}
	r := &cachedReader{cache: c, ctx: ctx, name: name, pos: offset, end: offset + length}
	r.blocks = window{cache: c, name: name, size: size, end: r.end}
	if err := r.fill(); err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

// sizing is a question for a pack's size, for all who wait for it.
type sizing struct {
	done chan struct{}
	size int64
	err  error
}

// sizeOf returns a pack's size, and asks next for it only where no block of the
// pack is known.
func (c *Cached) sizeOf(ctx context.Context, name string) (int64, error) {
	c.mu.Lock()
	if p := c.packs[name]; p != nil {
		c.mu.Unlock()
		return p.size, nil
	}
	q := c.asked[name]
	if q == nil {
		if c.closed {
			c.mu.Unlock()
			return 0, ErrClosed
		}
		q = &sizing{done: make(chan struct{})}
		c.asked[name] = q
		c.running.Go(func() {
			q.size, q.err = c.next.Size(c.ctx, name)
			c.mu.Lock()
			delete(c.asked, name)
			c.mu.Unlock()
			close(q.done)
		})
	}
	c.mu.Unlock()
	select {
	case <-q.done:
		return q.size, c.closedOr(q.err)
	case <-ctx.Done():
		return 0, fmt.Errorf("reading pack %s: %w", name, ctx.Err())
	}
}

// closedOr replaces the error that closing the cache made of a fetch: it must
// not look as if the reader's own context had ended.
func (c *Cached) closedOr(err error) error {
	if err != nil && c.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}

// Prefetch begins to fetch what is missing of a range, and does not wait for it.
// It may do nothing, when much else is being fetched; errors show in Open. It
// goes on when ctx ends, which often is the request that a later one follows.
func (c *Cached) Prefetch(ctx context.Context, name string, offset, length int64) {
	if CheckName(name) != nil || offset < 0 || length <= 0 || offset > math.MaxInt64-length || ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.waiting == maxPrefetchesWaiting || c.isNear(name, offset, length) {
		return
	}
	c.waiting++
	c.running.Go(func() {
		c.prefetch(name, offset, length)
		c.mu.Lock()
		c.waiting--
		c.mu.Unlock()
	})
}

// isNear returns whether all blocks of a range are here or on their way. The
// caller holds c.mu.
func (c *Cached) isNear(name string, offset, length int64) bool {
	p := c.packs[name]
	if p == nil {
		return false
	}
	for n := offset / blockSize; n*blockSize < min(offset+length, p.size); n++ {
		if b := p.blocks[n]; b == nil || b.state == blockAbsent && b.loading == nil {
			return false
		}
	}
	return true
}

func (c *Cached) prefetch(name string, offset, length int64) {
	if err := c.prefetches.Acquire(c.ctx, 1); err != nil {
		return
	}
	defer c.prefetches.Release(1)
	size, err := c.sizeOf(c.ctx, name)
	if err != nil || offset >= size {
		return
	}
	w := window{cache: c, name: name, size: size, end: min(offset+length, size)}
	defer w.release()
	for n := offset / blockSize; n*blockSize < w.end; n++ {
		if err := w.move(n); err != nil {
			return
		}
		if err := w.wait(c.ctx); err != nil {
			return
		}
	}
}
