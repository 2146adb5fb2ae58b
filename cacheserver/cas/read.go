package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// read calls visit with every chunk's frame and bytes, in order; both are valid
// until it returns.
func (s *Store) read(ctx context.Context, chunks []digest.Chunk, visit func(c digest.Chunk, data, bytes []byte) error) error {
	r := packReader{store: s}
	defer r.close()
	var data, plain []byte
	for len(chunks) > 0 {
		n := min(locateWindow, len(chunks))
		found, err := s.index.Locate(ctx, hashes(chunks[:n]))
		if err != nil {
			return err
		}
		at := make(map[digest.Hash]index.Location, len(found))
		for _, l := range found {
			at[l.Hash] = l
		}
		window := make([]index.Location, n)
		for i, c := range chunks[:n] {
			l, ok := at[c.Hash]
			if !ok {
				return &MissingChunksError{Chunks: []digest.Hash{c.Hash}}
			}
			if l.Size != c.Size {
				return fmt.Errorf("%w: chunk %s has %d bytes, not %d", ErrMismatch, c.Hash, l.Size, c.Size)
			}
			window[i] = l
		}
		for i, l := range window {
			if data, err = r.frame(ctx, window[i:], data); err != nil {
				return err
			}
			if plain, err = frame.Decode(plain[:0], data); err != nil {
				return &DamagedError{l.Hash, l.Pack, err}
			}
			if len(plain) != int(l.Size) {
				return &DamagedError{l.Hash, l.Pack, fmt.Errorf("it unpacks to %d bytes, not %d", len(plain), l.Size)}
			}
			if err := visit(l.Chunk, data, plain); err != nil {
				return err
			}
		}
		chunks = chunks[n:]
	}
	return nil
}

// ChunksOf returns the chunks of a blob in order.
func (s *Store) ChunksOf(ctx context.Context, b index.Blob) ([]digest.Chunk, error) {
	var chunks []digest.Chunk
	for {
		window, err := s.index.Chunks(ctx, b.ID, len(chunks), locateWindow)
		if err != nil {
			return nil, err
		}
		for _, l := range window {
			chunks = append(chunks, l.Chunk)
		}
		if len(window) < locateWindow {
			return chunks, nil
		}
	}
}

// WriteChecked writes length bytes of a blob's frames, from offset on (in the
// stored form, as extents count), and unpacks and compares every frame with its
// chunk before it is written. It returns how many bytes were: all of them good,
// whatever the error. ErrDamaged: the stored bytes are not what was stored.
func (s *Store) WriteChecked(ctx context.Context, w io.Writer, b index.Blob, offset, length int64) (written int64, err error) {
	type job struct {
		data    []byte
		skip    int64 // bytes of the frame that stand before offset
		checked chan error
	}
	ahead := 2 * runtime.GOMAXPROCS(0)
	jobs := make(chan job, ahead)
	buffers := make(chan []byte, 2*ahead)
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	// Writing is left to the caller's goroutine: w may panic, as net/http's
	// handlers may.
	defer func() { _ = g.Wait() }()
	defer cancel()
	g.Go(func() error {
		defer close(jobs)
		var checks errgroup.Group
		checks.SetLimit(runtime.GOMAXPROCS(0))
		defer func() { _ = checks.Wait() }()
		return s.eachFrame(ctx, b, offset, length, buffers, func(l index.Location, data []byte, skip int64) error {
			j := job{data, skip, make(chan error, 1)}
			checks.Go(func() error {
				scratch, err := frame.Check(pack.Frame{Chunk: l.Chunk, Data: data}, take(buffers))
				if err != nil {
					err = &DamagedError{l.Hash, l.Pack, err}
				}
				give(buffers, scratch)
				j.checked <- err
				return nil
			})
			select {
			case jobs <- j:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	for j := range jobs {
		if err := <-j.checked; err != nil {
			return written, err
		}
		part := j.data[j.skip:]
		part = part[:min(int64(len(part)), length-written)]
		n, err := w.Write(part)
		written += int64(n)
		if err != nil {
			return written, err
		}
		give(buffers, j.data)
	}
	return written, g.Wait()
}

func take(buffers <-chan []byte) []byte {
	select {
	case b := <-buffers:
		return b
	default:
		return nil
	}
}

func give(buffers chan<- []byte, b []byte) {
	select {
	case buffers <- b:
	default:
	}
}

// eachFrame reads those frames of a blob that have bytes between offset and
// offset+length. visit keeps data; buffers may have ones to read into.
func (s *Store) eachFrame(ctx context.Context, b index.Blob, offset, length int64, buffers <-chan []byte,
	visit func(l index.Location, data []byte, skip int64) error,
) error {
	r := packReader{store: s}
	defer r.close()
	var at int64
	for seq := 0; at < offset+length; {
		window, err := s.index.Chunks(ctx, b.ID, seq, locateWindow)
		if err != nil {
			return err
		}
		if len(window) == 0 {
			return fmt.Errorf("%w: blob %s ends after %d of %d bytes of frames", ErrDamaged, b.Digest, at, b.FileSize)
		}
		for i, l := range window {
			begin := at
			at += int64(l.Length)
			if at <= offset {
				continue
			}
			if begin >= offset+length {
				break
			}
			data, err := r.frame(ctx, window[i:], take(buffers))
			if err != nil {
				return err
			}
			if err := visit(l, data, max(0, offset-begin)); err != nil {
				return err
			}
		}
		seq += len(window)
	}
	return nil
}

// packReader reads frames and keeps the pack open while they follow each other.
type packReader struct {
	store *Store
	pack  string
	pos   int64
	left  int64 // of what was opened
	r     io.ReadCloser
}

func (p *packReader) close() {
	if p.r != nil {
		_ = p.r.Close()
		p.r = nil
	}
}

// maxRun bounds how much of a pack is opened at once.
const maxRun = 8 << 20

// run returns how many bytes of frames follow each other in one pack, from the
// first of the locations on.
func run(next []index.Location) int64 {
	length := int64(next[0].Length)
	for _, l := range next[1:] {
		if l.Pack != next[0].Pack || l.Offset != next[0].Offset+length || length >= maxRun {
			break
		}
		length += int64(l.Length)
	}
	return length
}

// frame reads the frame of the first of the chunks, into buf where it fits; the
// others say what is likely to be read after it. Where compaction has moved the
// chunk since it was located, it is located again. MissingChunksError: it was
// collected since.
func (p *packReader) frame(ctx context.Context, next []index.Location, buf []byte) ([]byte, error) {
	for {
		l := next[0]
		data, err := p.at(ctx, next, buf)
		if !errors.Is(err, packstore.ErrNotFound) {
			return data, err
		}
		now, lookup := p.store.index.Locate(ctx, []digest.Hash{l.Hash})
		switch {
		case lookup != nil:
			return nil, lookup
		case len(now) == 0:
			return nil, &MissingChunksError{Chunks: []digest.Hash{l.Hash}}
		case now[0].Pack == l.Pack:
			return nil, err
		}
		next = now
	}
}

func (p *packReader) at(ctx context.Context, next []index.Location, buf []byte) (_ []byte, err error) {
	l := next[0]
	if p.r == nil || p.pack != l.Pack || p.pos != l.Offset || p.left < int64(l.Length) {
		p.close()
		ahead := run(next)
		p.r, err = p.store.packs.Open(ctx, l.Pack, l.Offset, ahead)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			// The pack was cut off, perhaps not in this frame.
			ahead = int64(l.Length)
			p.r, err = p.store.packs.Open(ctx, l.Pack, l.Offset, ahead)
		}
		if err != nil {
			return nil, damaged(l, err)
		}
		p.pack, p.pos, p.left = l.Pack, l.Offset, ahead
	}
	if cap(buf) < int(l.Length) {
		buf = make([]byte, l.Length)
	}
	buf = buf[:l.Length]
	if _, err := io.ReadFull(p.r, buf); err != nil {
		p.close()
		return nil, damaged(l, err)
	}
	p.pos += int64(l.Length)
	p.left -= int64(l.Length)
	return buf, nil
}

// damaged makes a pack that cannot be read what it is to a reader of the store:
// damage. Other errors stay what they are.
func damaged(l index.Location, err error) error {
	if packstore.Unreadable(err) {
		return &DamagedError{l.Hash, l.Pack, err}
	}
	return fmt.Errorf("reading chunk %s: %w", l.Hash, err)
}
