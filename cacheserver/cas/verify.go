package cas

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"go.opentelemetry.io/otel/attribute"
	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/observe"
)

// locateWindow is how many chunks are located at once, so that a blob's length
// does not decide how much memory its verification takes.
const locateWindow = 4096

// Verify reads stored chunks in order and returns the blob that they make,
// ready to be recorded: every byte was read back, want is their digest, and
// inspect, which is given the blob's bytes, found nothing against them.
//
// Errors: *MissingChunksError, ErrMismatch, ErrDamaged, and inspect's own.
func (s *Store) Verify(ctx context.Context, want digest.Digest, chunks []digest.Chunk, inspect func(io.Reader) error) (_ index.Blob, err error) {
	ctx, end := observe.Span(ctx, "verify", attribute.Int64("attic_cache.bytes", want.Size), attribute.Int("attic_cache.chunks", len(chunks)))
	defer func() { end(err) }()
	var size int64
	for _, c := range chunks {
		size += int64(c.Size)
	}
	if size != want.Size {
		return index.Blob{}, fmt.Errorf("%w: they have %d bytes, it has %d", ErrMismatch, size, want.Size)
	}
	if err := s.allStored(ctx, chunks); err != nil {
		return index.Blob{}, err
	}
	pr, pw := io.Pipe()
	g, gctx := errgroup.WithContext(ctx)
	objected := false
	g.Go(func() error {
		err := inspect(pr)
		if err == nil {
			_, err = io.Copy(io.Discard, pr)
		}
		_ = pr.CloseWithError(errInspected)
		if errors.Is(err, errUnread) {
			return nil // the reader's own error tells more
		}
		objected = err != nil
		return err
	})
	plain, file := sha256.New(), sha256.New()
	blob := index.Blob{Digest: want}
	g.Go(func() error {
		err := s.read(gctx, chunks, func(_ digest.Chunk, data, bytes []byte) error {
			file.Write(data)
			blob.FileSize += int64(len(data))
			plain.Write(bytes)
			_, err := pw.Write(bytes)
			return err
		})
		if err == nil {
			_ = pw.Close()
		} else {
			_ = pw.CloseWithError(errUnread)
		}
		if errors.Is(err, errInspected) {
			return nil // inspect's own error tells more
		}
		return err
	})
	if err := g.Wait(); err != nil {
		if objected {
			err = s.blame(ctx, chunks, err)
		}
		return index.Blob{}, err
	}
	plain.Sum(blob.Hash[:0])
	file.Sum(blob.FileHash[:0])
	if blob.Hash != want.Hash {
		err := fmt.Errorf("%w: they hash to %s, it is %s", ErrMismatch, blob.Hash.Nix(), want.Hash.Nix())
		return index.Blob{}, s.blame(ctx, chunks, err)
	}
	return blob, nil
}

var (
	errInspected = errors.New("inspection is over")
	// errUnread is all that inspect learns of why there is no more to read. The
	// reader's error may be an io.EOF of a pack; inspect would take it for the
	// blob's end and blame the blob.
	errUnread = errors.New("the stored bytes cannot be read")
)

// blame tells damaged chunks from a wrong blob: it returns fault, which was
// found with the blob, unless one of its chunks is not what was stored.
func (s *Store) blame(ctx context.Context, chunks []digest.Chunk, fault error) error {
	err := s.read(ctx, chunks, func(c digest.Chunk, _, bytes []byte) error {
		if digest.Of(bytes) != c.Hash {
			return fmt.Errorf("%w: chunk %s", ErrDamaged, c.Hash)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return fault
}

func (s *Store) allStored(ctx context.Context, chunks []digest.Chunk) error {
	var missing []digest.Hash
	for rest := chunks; len(rest) > 0; {
		n := min(locateWindow, len(rest))
		m, err := s.Missing(ctx, hashes(rest[:n]))
		if err != nil {
			return err
		}
		missing = append(missing, m...)
		rest = rest[n:]
	}
	if len(missing) > 0 {
		return &MissingChunksError{Chunks: missing}
	}
	return nil
}

func hashes(chunks []digest.Chunk) []digest.Hash {
	out := make([]digest.Hash, len(chunks))
	for i, c := range chunks {
		out[i] = c.Hash
	}
	return out
}
