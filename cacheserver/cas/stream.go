package cas

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

const (
	// streamWindow is how many bytes of a stream are looked up and stored at once.
	streamWindow = 4 << 20
	// streamReserve is what a stream holds in memory: a window that is read, one
	// that is stored, and the frames of that.
	streamReserve = 3 * streamWindow
)

// Stored is a stream that was stored.
type Stored struct {
	// Blob is ready to be recorded, with AddBlob and Chunks.
	index.Blob
	Chunks []digest.Chunk
	// NewBytes are those of its bytes whose chunks were not there before.
	NewBytes int64
}

// Put cuts a stream into chunks and stores those that are not stored yet. It
// reads r to its end, or to its first error, which it wraps; bytes beyond limit
// are a *TooLongError. sums get all bytes of r.
//
// Nothing names the chunks then: they live for the grace.
func (s *Store) Put(ctx context.Context, r io.Reader, limit int64, sums ...hash.Hash) (Stored, error) {
	file := sha256.New()
	stored, err := s.put(ctx, r, limit, sums, func(ctx context.Context, chunks []digest.Chunk) (size int64, err error) {
		err = s.read(ctx, chunks, func(_ digest.Chunk, data, _ []byte) error {
			file.Write(data)
			size += int64(len(data))
			return nil
		})
		return size, err
	})
	if err == nil {
		file.Sum(stored.FileHash[:0])
	}
	return stored, err
}

// PutWithoutFile is Put for a blob whose FileHash nobody asks for. To know it, all
// frames are read once more, also those that were there before.
func (s *Store) PutWithoutFile(ctx context.Context, r io.Reader, limit int64, sums ...hash.Hash) (Stored, error) {
	return s.put(ctx, r, limit, sums, func(ctx context.Context, chunks []digest.Chunk) (size int64, err error) {
		at, err := s.located(ctx, hashes(chunks))
		return frameBytes(chunks, at), err
	})
}

// put calls stored with the chunks of each window that is stored, in order. It
// returns how long their frames are.
func (s *Store) put(ctx context.Context, r io.Reader, limit int64, sums []hash.Hash,
	stored func(ctx context.Context, chunks []digest.Chunk) (size int64, err error),
) (Stored, error) {
	release, err := s.Reserve(ctx, streamReserve)
	if err != nil {
		return Stored{}, err
	}
	defer release()
	cut, err := chunker.New(&limited{r: r, left: limit, limit: limit}, chunker.Params{Average: chunker.DefaultAverage})
	if err != nil {
		return Stored{}, err
	}
	var out Stored
	windows := make(chan window)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(windows)
		return s.cutStream(ctx, cut, &out, windows, sums)
	})
	g.Go(func() error {
		for w := range windows {
			fresh, err := s.putWindow(ctx, w)
			if err != nil {
				return err
			}
			size, err := stored(ctx, w.chunks)
			if err != nil {
				return err
			}
			out.NewBytes += fresh
			out.FileSize += size
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return Stored{}, err
	}
	return out, nil
}

// TooLongError is a stream's that is longer than it may be.
type TooLongError struct{ Limit int64 }

func (e *TooLongError) Error() string { return fmt.Sprintf("more than %d bytes", e.Limit) }

type limited struct {
	r           io.Reader
	left, limit int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left < 0 {
		return 0, &TooLongError{l.limit}
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left+1)])
	if l.left -= int64(n); l.left < 0 {
		return n - 1, &TooLongError{l.limit}
	}
	return n, err
}

// window is a run of a stream's chunks with their bytes.
type window struct {
	chunks []digest.Chunk
	bytes  []byte
}

func (s *Store) cutStream(ctx context.Context, cut *chunker.Chunker, out *Stored, windows chan<- window, sums []hash.Hash) error {
	plain := sha256.New()
	var w window
	flush := func() error {
		if len(w.chunks) == 0 {
			return nil
		}
		select {
		case windows <- w:
			w = window{}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		b, err := cut.Next()
		if errors.Is(err, io.EOF) {
			plain.Sum(out.Hash[:0])
			return flush()
		}
		if err != nil {
			return fmt.Errorf("reading what is to be stored: %w", err)
		}
		if len(w.bytes)+len(b) > streamWindow {
			if err := flush(); err != nil {
				return err
			}
		}
		plain.Write(b)
		for _, sum := range sums {
			sum.Write(b)
		}
		c := digest.Chunk{Hash: digest.Of(b), Size: uint32(len(b))}
		out.Chunks = append(out.Chunks, c)
		out.Size += int64(len(b))
		w.chunks = append(w.chunks, c)
		w.bytes = append(w.bytes, b...)
	}
}

// putWindow stores what is not stored of a window, and returns how many bytes of
// the stream that was.
func (s *Store) putWindow(ctx context.Context, w window) (stored int64, err error) {
	missing, err := s.Missing(ctx, hashes(w.chunks))
	if err != nil {
		return 0, err
	}
	wanted := make(map[digest.Hash]bool, len(missing))
	for _, h := range missing {
		wanted[h] = true
	}
	var frames []pack.Frame
	at := 0
	for _, c := range w.chunks {
		plain := w.bytes[at : at+int(c.Size)]
		at += int(c.Size)
		if wanted[c.Hash] {
			delete(wanted, c.Hash)
			frames = append(frames, pack.Frame{Chunk: c, Data: frame.Encode(nil, plain)})
			stored += int64(c.Size)
		}
	}
	if len(frames) == 0 {
		return 0, nil
	}
	return stored, s.putChecked(ctx, frames)
}
