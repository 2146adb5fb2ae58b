// Package index keeps what is known of the bytes in packs: which chunk lies
// where, which chunks make a blob, and the names over blobs (the paths of a
// Nix cache). It holds no contents.
package index

import (
	"context"
	"errors"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// ErrNotFound is wrapped when a row that was asked for by name is not there.
var ErrNotFound = errors.New("not in the index")

// ErrExists is wrapped when a row that must be new is there already.
var ErrExists = errors.New("already in the index")

// ErrMissingChunks is wrapped when a blob names chunks that no pack holds.
var ErrMissingChunks = errors.New("chunks are missing")

// ErrNoSpace is wrapped when a change could not be written because the disk is
// full. The index is as it was before.
var ErrNoSpace = errors.New("no space left for the index")

// Location is where a chunk's frame lies.
type Location struct {
	digest.Chunk
	Pack   string
	Offset int64
	Length uint32 // of the frame, in bytes
}

// Blob is a blob of which every chunk is stored.
type Blob struct {
	ID int64
	digest.Digest
	FileHash digest.Hash // of its frames laid end to end, as they are served
	FileSize int64       // bytes of those frames
}

// Extent is a run of bytes in one pack.
type Extent struct {
	Pack   string
	Offset int64
	Length int64
}

// Cache is one Nix binary cache.
type Cache struct {
	ID       int64
	Name     string
	StoreDir string
	Priority int
	// SecretKey is the cache's signing key as Nix writes it, "name:base64".
	SecretKey string
}

// Path is a store path in a cache: a name over the blob that is its NAR.
type Path struct {
	CacheID    int64
	Hash       string // the 32 characters of the store path
	Name       string // what follows them and the dash
	NAR        Blob
	References []string // base names, sorted
	Deriver    string   // base name, or empty
	Signatures []string // by others than this server, "name:base64"
	CA         string   // content address, or empty
	Created    time.Time
}

// Index answers questions and takes changes. All methods may be called at the
// same time, and from several processes over the same index; what one has
// acknowledged, the others see.
type Index interface {
	// Locate returns where the chunks lie that are stored, in no order.
	Locate(ctx context.Context, chunks []digest.Hash) ([]Location, error)

	// Blob returns a blob, or ErrNotFound.
	Blob(ctx context.Context, d digest.Digest) (Blob, error)

	// Extents returns where a blob's frames lie, in the order of its chunks;
	// neighbours in a pack are joined.
	Extents(ctx context.Context, blob int64) ([]Extent, error)

	// Cache returns a cache by its name, or ErrNotFound.
	Cache(ctx context.Context, name string) (Cache, error)

	// Path returns a path by its 32-character hash, or ErrNotFound.
	Path(ctx context.Context, cache int64, hash string) (Path, error)

	// NAR returns the blob with that NarHash, or ErrNotFound where no path of
	// the cache names it: a cache never serves another's contents.
	NAR(ctx context.Context, cache int64, narHash digest.Hash) (Blob, error)

	// MissingPaths returns those of the 32-character hashes that the cache
	// does not hold, in the order given, each once.
	MissingPaths(ctx context.Context, cache int64, hashes []string) ([]string, error)

	// Update runs change in a transaction and returns when what it wrote
	// survives a crash. Changes that are waiting at the same time may share a
	// transaction; an error of one undoes that one only.
	Update(ctx context.Context, change func(Tx) error) error

	Close() error
}

// Tx is a change under way. It sees its own writes and is valid until the
// function that it was given to returns.
type Tx interface {
	// AddPack records a pack and its chunks. A chunk that another pack holds
	// already keeps its place there.
	AddPack(name string, size int64, entries []pack.Entry) error

	// AddBlob records a blob by its chunks and fills in its ID. One that is
	// there already is left as it is and returned. ErrMissingChunks: nothing
	// was recorded.
	AddBlob(b Blob, chunks []digest.Chunk) (Blob, error)

	// PutPath records a path, or replaces the one of the same hash in the
	// same cache. Its NAR must be a blob with an ID.
	PutPath(p Path) error

	// AddCache records a cache and returns its ID, or ErrExists.
	AddCache(c Cache) (int64, error)
}
