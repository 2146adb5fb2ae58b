package cas

import (
	"context"
	"errors"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// prefetchBytes is how far ahead of a reader packs are brought near.
const prefetchBytes = 16 << 20

// Prefetch begins to bring extents near that are about to be opened, where the
// packs are far away. It does not wait.
func (s *Store) Prefetch(ctx context.Context, next []index.Extent) {
	far, ok := s.packs.(interface {
		Prefetch(ctx context.Context, name string, offset, length int64)
	})
	if !ok {
		return
	}
	for left := int64(prefetchBytes); len(next) > 0 && left > 0; next = next[1:] {
		length := min(left, next[0].Length)
		far.Prefetch(ctx, next[0].Pack, next[0].Offset, length)
		left -= length
	}
}

// WholePackURL returns a URL under which anyone may get a blob for as long as
// ttl says, straight from the storage. ok is false where the storage gives no
// such URLs, or where the blob is not all that its pack holds. What the URL
// gives is the pack: the blob's frames, and what decoders of zstd pass over.
func (s *Store) WholePackURL(ctx context.Context, b index.Blob, extents []index.Extent, ttl time.Duration) (url string, ok bool, err error) {
	storage, gives := s.packs.(interface {
		Presign(ctx context.Context, name string, ttl time.Duration) (string, error)
	})
	if !gives || len(extents) != 1 {
		return "", false, nil
	}
	chunks, err := s.ChunksOf(ctx, b)
	if err != nil {
		return "", false, err
	}
	// Frames that follow each other are chunks of which each is there once: as
	// many as the pack has entries, if it has the size of just those.
	e := extents[0]
	want, first := pack.WholeSize(len(chunks), e.Length)
	if e.Offset != first {
		return "", false, nil
	}
	size, err := s.packs.Size(ctx, e.Pack)
	if err != nil || size != want {
		return "", false, err
	}
	url, err = storage.Presign(ctx, e.Pack, ttl)
	if errors.Is(err, errors.ErrUnsupported) { // what lies behind a local cache gives none
		return "", false, nil
	}
	return url, err == nil, err
}
