package packstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// cachedReader reads a range of a pack, block after block.
type cachedReader struct {
	cache *Cached
	ctx   context.Context
	name  string
	pos   int64
	end   int64

	blocks window
	// part is a block's file, or a part of the pack where it comes from. It
	// reaches to partEnd; nil is where one is to begin.
	part    io.ReadCloser
	partEnd int64
	around  bool // the rest of the block is read from where it comes from
}

// fill sees to it that there is a part to read from.
func (r *cachedReader) fill() error {
	if r.part != nil && r.pos < r.partEnd {
		return nil
	}
	r.closePart()
	if r.pos == r.partEnd {
		r.around = false
	}
	n := r.pos / blockSize
	r.partEnd = min((n+1)*blockSize, r.end)
	// A file that vanished is fetched again, once.
	for range 2 {
		if r.around {
			break
		}
		if err := r.blocks.move(n); err != nil {
			return err
		}
		err := r.blocks.wait(r.ctx)
		if errors.Is(err, errAround) {
			break
		}
		if err != nil {
			return err
		}
		if f := r.cache.open(r.blocks.held[0].block, r.pos-n*blockSize); f != nil {
			r.part = f
			return nil
		}
		r.blocks.release()
	}
	part, err := r.cache.next.Open(r.ctx, r.name, r.pos, r.partEnd-r.pos)
	if err != nil {
		return err
	}
	r.part = part
	return nil
}

func (r *cachedReader) closePart() {
	if r.part != nil {
		_ = r.part.Close()
		r.part = nil
	}
}

// failed looks at the error that a part gave, or the copying from it. A file
// that is cut off, or that its disk cannot read, is none of the reader's
// business: it gets the rest from where it comes from.
func (r *cachedReader) failed(err error) error {
	_, isFile := r.part.(*os.File)
	switch {
	case err == nil:
		return nil
	case isFile && !r.around && (errors.Is(err, io.EOF) || errors.Is(err, unix.EIO)):
		if len(r.blocks.held) > 0 {
			r.cache.lost(r.blocks.held[0].block)
		}
		r.closePart()
		r.around = true
		return nil
	case errors.Is(err, io.EOF):
		return fmt.Errorf("reading pack %s at offset %d: %w", r.name, r.pos, io.ErrUnexpectedEOF)
	}
	return err
}

func (r *cachedReader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for r.pos < r.end {
		if err := r.fill(); err != nil {
			return 0, err
		}
		n, err := r.part.Read(b[:min(int64(len(b)), r.partEnd-r.pos)])
		r.pos += int64(n)
		if n > 0 {
			return n, nil // an error comes again
		}
		if err := r.failed(err); err != nil {
			return 0, err
		}
	}
	return 0, io.EOF
}

// CopyTo copies as io.CopyN does, each block from its *os.File.
func (r *cachedReader) CopyTo(w io.Writer, n int64) (copied int64, err error) {
	for copied < n {
		if r.pos == r.end {
			return copied, io.EOF
		}
		if err := r.fill(); err != nil {
			return copied, err
		}
		part := min(n-copied, r.partEnd-r.pos)
		done, err := io.CopyN(w, r.part, part)
		r.pos += done
		copied += done
		if err := r.failed(err); err != nil {
			return copied, err
		}
	}
	return copied, nil
}

// Close ends the reading; what is being fetched goes on.
func (r *cachedReader) Close() error {
	r.closePart()
	r.blocks.release()
	return nil
}

// window is the blocks that one who reads a pack in order holds: the one to read
// and those that follow it.
type window struct {
	cache *Cached
	name  string
	size  int64
	end   int64 // of what will be read
	first int64 // the number of held[0]
	held  []heldBlock
}

type heldBlock struct {
	*block
	loading *loading
	early   bool // held before it was the one to read
}

// move makes n the first block, and holds those that follow it.
func (w *window) move(n int64) error {
	for len(w.held) > 0 && w.first < n {
		w.cache.release(w.held[0].block)
		w.held = w.held[1:]
		w.first++
	}
	w.first = n
	for next := n + int64(len(w.held)); len(w.held) < ahead && next*blockSize < w.end; next++ {
		b, l, err := w.cache.hold(w.name, w.size, next)
		if err != nil && len(w.held) > 0 {
			return nil // the one to read now is there
		}
		if err != nil {
			return err
		}
		w.held = append(w.held, heldBlock{b, l, len(w.held) > 0})
	}
	return nil
}

// wait waits until the first block is good. The failure of a fetch that was
// ahead of the reading may be an old one: then it is fetched again.
func (w *window) wait(ctx context.Context) error {
	for {
		h := w.held[0]
		if h.loading == nil {
			return nil
		}
		select {
		case <-h.loading.done:
		case <-ctx.Done():
			return fmt.Errorf("reading pack %s: %w", w.name, ctx.Err())
		}
		if h.loading.err == nil || !h.early {
			return h.loading.err
		}
		b, l, err := w.cache.hold(w.name, w.size, w.first)
		if err != nil {
			return err
		}
		w.cache.release(h.block)
		w.held[0] = heldBlock{block: b, loading: l}
	}
}

func (w *window) release() {
	for _, h := range w.held {
		w.cache.release(h.block)
	}
	w.held = nil
}
