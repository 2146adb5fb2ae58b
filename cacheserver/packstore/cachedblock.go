package packstore

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// blockState is what of a block is on disk.
type blockState int

const (
	blockAbsent   blockState = iota
	blockUnproven            // found at the start, its bytes not yet checked
	blockGood
)

// cachedPack is a pack of which blocks are on disk or on their way.
type cachedPack struct {
	name   string
	size   int64
	blocks map[int64]*block
}

// block is a part of a pack. Its fields belong to the cache's mutex.
type block struct {
	pack    *cachedPack
	number  int64
	state   blockState
	loading *loading
	holders int           // who keep it from being evicted
	idle    *list.Element // in the cache's list, when there are none
	dropped bool          // its pack is not the cache's any more
	touched time.Time
}

func (b *block) offset() int64 { return b.number * blockSize }

// length is that of the pack's bytes in the block.
func (b *block) length() int64 { return min(blockSize, b.pack.size-b.offset()) }

func (b *block) fileSize() int64 { return b.length() + checksumSize }

// loading is work under way that makes a block good. err is set when done is
// closed.
type loading struct {
	done chan struct{}
	err  error
}

// hold returns a block that is not evicted until release. When it is not good
// yet, the work for that has begun, and l is what to wait for.
func (c *Cached) hold(name string, size, number int64) (b *block, l *loading, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b = c.grasp(name, size, number)
	switch {
	case b.state == blockGood:
		c.counters.Hits++
		return b, nil, nil
	case b.loading != nil:
		return b, b.loading, nil
	case c.closed:
		c.letGo(b)
		return nil, nil, ErrClosed
	}
	l = c.begin(b)
	c.running.Go(func() {
		c.finish(b, l, c.load(b, func() (io.ReadCloser, error) {
			c.mu.Lock()
			c.counters.Misses++
			c.mu.Unlock()
			return c.next.Open(c.ctx, name, b.offset(), b.length())
		}))
	})
	return b, l, nil
}

// grasp finds or makes a block, and holds it. The caller holds c.mu, as with all
// methods that do not lock it.
func (c *Cached) grasp(name string, size, number int64) *block {
	p := c.packs[name]
	if p != nil && p.size != size {
		c.dropPack(p)
		p = nil
	}
	if p == nil {
		p = &cachedPack{name: name, size: size, blocks: map[int64]*block{}}
		c.packs[name] = p
	}
	b := p.blocks[number]
	if b == nil {
		b = &block{pack: p, number: number}
		p.blocks[number] = b
	}
	if b.idle != nil {
		c.idle.Remove(b.idle)
		b.idle = nil
	}
	b.holders++
	return b
}

func (c *Cached) begin(b *block) *loading {
	b.loading = &loading{done: make(chan struct{})}
	b.holders++
	return b.loading
}

func (c *Cached) finish(b *block, l *loading, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil && b.dropped:
		err = errDropped(b)
	case errors.Is(err, errAround):
		c.counters.Around++
	}
	b.loading, l.err = nil, err
	close(l.done)
	c.letGo(b)
}

func (c *Cached) release(b *block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.letGo(b)
}

func (c *Cached) letGo(b *block) {
	b.holders--
	switch {
	case b.holders > 0 || b.dropped:
	case b.state == blockAbsent:
		c.forget(b)
	default:
		b.idle = c.idle.PushFront(b)
	}
}

func (c *Cached) forget(b *block) {
	delete(b.pack.blocks, b.number)
	if len(b.pack.blocks) == 0 {
		delete(c.packs, b.pack.name)
	}
}

// unlink takes a block's file off the disk. It is done with c.mu held, so that
// nobody else makes that file meanwhile.
func (c *Cached) unlink(b *block) {
	if b.state != blockAbsent && !b.dropped {
		_ = os.Remove(c.path(b))
		b.state = blockAbsent
		c.used -= b.fileSize()
	}
}

// evict removes the blocks that were not used for the longest time until there
// is room for more bytes, and returns whether there is.
func (c *Cached) evict(more int64) bool {
	for c.used > c.limit-more {
		if !c.evictOldest() {
			return false
		}
	}
	return true
}

func (c *Cached) evictOldest() bool {
	oldest := c.idle.Back()
	if oldest == nil {
		return false
	}
	b := c.idle.Remove(oldest).(*block)
	b.idle = nil
	c.unlink(b)
	c.forget(b)
	return true
}

func (c *Cached) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.packs[name]; p != nil {
		c.dropPack(p)
	}
}

func (c *Cached) dropPack(p *cachedPack) {
	delete(c.packs, p.name)
	for _, b := range p.blocks {
		if b.idle != nil {
			c.idle.Remove(b.idle)
			b.idle = nil
		}
		c.unlink(b)
		b.dropped = true
	}
}

// lost takes note that a good block's file is not what it was.
func (c *Cached) lost(b *block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.loading == nil {
		c.unlink(b)
	}
}

// load makes a block good: by proof of the file that is there, or with the bytes
// of source.
func (c *Cached) load(b *block, source func() (io.ReadCloser, error)) error {
	c.mu.Lock()
	unproven := b.state == blockUnproven
	c.mu.Unlock()
	if unproven {
		whole := isWhole(c.path(b), b.fileSize())
		c.mu.Lock()
		switch {
		case !whole:
			c.unlink(b)
		case !b.dropped:
			b.state = blockGood
			c.counters.Hits++
		}
		c.mu.Unlock()
		if whole {
			return nil
		}
	}
	if err := c.fetches.Acquire(c.ctx, 1); err != nil {
		return ErrClosed
	}
	defer c.fetches.Release(1)
	c.mu.Lock()
	room := c.evict(b.fileSize())
	if room {
		c.used += b.fileSize()
	}
	c.mu.Unlock()
	if !room {
		return errAround
	}
	tmp, err := c.fetch(b, source)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		err = c.place(b, tmp)
	}
	var local *diskError
	switch {
	case err == nil:
		b.state = blockGood
		c.counters.DiskErr = nil
		return nil
	case errors.As(err, &local):
		c.counters.DiskErr = local.err
		err = fmt.Errorf("%w: %w", errAround, local.err)
	}
	c.used -= b.fileSize()
	return c.closedOr(err)
}

// fetch writes a block to a temporary file.
func (c *Cached) fetch(b *block, source func() (io.ReadCloser, error)) (tmp string, err error) {
	f, err := c.blank(b.fileSize())
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		// Others fill the disk, too: what was not used for long makes room.
		c.mu.Lock()
		for range 2 * ahead {
			c.evictOldest()
		}
		c.mu.Unlock()
		f, err = c.blank(b.fileSize())
	}
	if err != nil {
		return "", &diskError{err}
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	r, err := source()
	if err != nil {
		return "", err
	}
	defer r.Close()
	if err := writeBlock(f, r, b.length()); err != nil {
		return "", fmt.Errorf("reading pack %s: %w", b.pack.name, err)
	}
	return f.Name(), nil
}

// place gives a block's file its name, unless its pack was dropped meanwhile.
func (c *Cached) place(b *block, tmp string) error {
	if b.dropped {
		_ = os.Remove(tmp)
		return errDropped(b)
	}
	path := c.path(b)
	err := os.Rename(tmp, path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = os.Rename(tmp, path)
		}
	}
	if err != nil {
		_ = os.Remove(tmp)
		return &diskError{err}
	}
	return nil
}

func errDropped(b *block) error { return fmt.Errorf("reading pack %s: %w", b.pack.name, ErrNotFound) }
