// Package cas stores blobs by what they are: a blob is a list of chunks, a
// chunk is one zstd frame in a pack. The index says which and where, the pack
// store holds the bytes.
package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

const (
	// maxPack is how many bytes of frames waiting uploads may put in one pack.
	maxPack = 64 << 20
	// maxEntries is how many chunks may, so that many small ones neither hold up
	// the uploads that wait with them nor overfill a pack's table.
	maxEntries = 64 << 10
	// ingestBudget bounds the bytes of frames that are in memory because they
	// are not stored yet; further uploads wait.
	ingestBudget = 2 * maxPack
)

// DefaultGrace is how long a chunk lives that no blob has yet, and a blob that
// has no name yet.
const DefaultGrace = 2 * time.Hour

// ErrClosed is returned for an upload that comes once the store is closing.
var ErrClosed = errors.New("the store is closed")

// ErrMismatch is wrapped when a list of chunks does not make the blob that it
// is said to make.
var ErrMismatch = errors.New("the chunks do not make this blob")

// ErrDamaged is wrapped when stored bytes are not those that were stored. They
// are never served as good.
var ErrDamaged = errors.New("stored bytes are damaged")

// DamagedError says which stored bytes are damaged. It is an ErrDamaged.
type DamagedError struct {
	Chunk digest.Hash
	Pack  string
	Err   error // how that was seen
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%v: chunk %s in pack %s: %v", ErrDamaged, e.Chunk, e.Pack, e.Err)
}

func (e *DamagedError) Unwrap() []error { return []error{ErrDamaged, e.Err} }

// MissingChunksError names the chunks of a blob that are not stored.
type MissingChunksError struct{ Chunks []digest.Hash }

func (e *MissingChunksError) Error() string {
	return fmt.Sprintf("%d chunks are not stored, the first is %s", len(e.Chunks), e.Chunks[0])
}

// Store is a content-addressed store. All methods may be called at the same
// time, and from several processes over the same packs and index.
type Store struct {
	packs packstore.Store
	index index.Index
	grace time.Duration

	budget  *semaphore.Weighted
	held    atomic.Int64 // of the budget
	uploads chan *upload
	closing chan struct{}
	closed  chan struct{}
}

// New makes a store; Close ends it, but neither packs nor index. grace is what
// the collector of these packs and index gives to uploads in flight.
func New(packs packstore.Store, idx index.Index, grace time.Duration) *Store {
	s := &Store{
		grace:   grace,
		packs:   packs,
		index:   idx,
		budget:  semaphore.NewWeighted(ingestBudget),
		uploads: make(chan *upload),
		closing: make(chan struct{}),
		closed:  make(chan struct{}),
	}
	go s.writer()
	return s
}

// Close waits for the packs that are being written. No other method may be
// called any more.
func (s *Store) Close() {
	close(s.closing)
	<-s.closed
}

// Missing returns those of the chunks that are not stored, in the order given,
// each once. The others will not be collected for at least half of the grace:
// an upload that does not send them has that long to name them.
func (s *Store) Missing(ctx context.Context, chunks []digest.Hash) ([]digest.Hash, error) {
	stored, err := s.located(ctx, chunks)
	if err != nil {
		return nil, err
	}
	var missing []digest.Hash
	seen := make(map[digest.Hash]bool, len(chunks)-len(stored))
	for _, h := range chunks {
		if _, ok := stored[h]; !ok && !seen[h] {
			missing = append(missing, h)
			seen[h] = true
		}
	}
	return missing, nil
}

// located returns where those of the chunks lie that are stored, and that will not be
// collected for at least half of the grace.
func (s *Store) located(ctx context.Context, chunks []digest.Hash) (map[digest.Hash]index.Location, error) {
	found, err := s.index.Locate(ctx, chunks)
	if err != nil {
		return nil, err
	}
	stored := make(map[digest.Hash]index.Location, len(found))
	var stale []digest.Hash
	settled := s.Settled()
	for _, l := range found {
		stored[l.Hash] = l
		if l.Touched.Before(settled) {
			stale = append(stale, l.Hash)
		}
	}
	if len(stale) == 0 {
		return stored, nil
	}
	return stored, s.touch(ctx, stale, stored)
}

// touch keeps chunks from being collected, and takes those off stored that were
// collected before it could.
func (s *Store) touch(ctx context.Context, chunks []digest.Hash, stored map[digest.Hash]index.Location) error {
	if err := s.index.Update(ctx, func(tx index.Tx) error { return tx.TouchChunks(chunks) }); err != nil {
		return err
	}
	left, err := s.index.Locate(ctx, chunks)
	if err != nil {
		return err
	}
	for _, h := range chunks {
		delete(stored, h)
	}
	for _, l := range left {
		stored[l.Hash] = l
	}
	return nil
}

// Settled is the time before which something must have been in use last to be
// collected before half of the grace is over.
func (s *Store) Settled() time.Time { return time.Now().Add(-s.grace / 2) }

// Expiry is until when a blob that is recorded now is to live without a name.
func (s *Store) Expiry() time.Time { return time.Now().Add(s.grace) }

// Extents returns where the frames of a blob lie, in order.
func (s *Store) Extents(ctx context.Context, b index.Blob) ([]index.Extent, error) {
	return s.index.Extents(ctx, b.ID)
}

// OpenExtent returns a reader of an extent, as packstore.Store.Open does.
func (s *Store) OpenExtent(ctx context.Context, e index.Extent) (io.ReadCloser, error) {
	return s.packs.Open(ctx, e.Pack, e.Offset, e.Length)
}
