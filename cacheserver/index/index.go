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

// ErrUnavailable is wrapped when the index cannot be reached now. Nothing was
// changed, or it is not known whether it was; trying again later may help, and
// needs no restart.
var ErrUnavailable = errors.New("the index cannot be reached")

// ErrLocked is wrapped when another process holds a lock.
var ErrLocked = errors.New("locked by another process")

// Location is where a chunk's frame lies.
type Location struct {
	digest.Chunk
	Pack   string
	Offset int64
	Length uint32 // of the frame, in bytes
	// Touched is when the chunk was stored or last asked for by an upload, in
	// whole seconds.
	Touched time.Time
}

// Blob is a blob of which every chunk is stored.
type Blob struct {
	ID int64
	digest.Digest
	// FileHash is that of its frames laid end to end, as they are served. Zero: it
	// is not known yet.
	FileHash digest.Hash
	FileSize int64 // bytes of those frames
	// Expires is until when it lives without a name, in whole seconds. The index
	// fills it in.
	Expires time.Time
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
	// SecretKeys are the cache's signing keys as Nix writes them, "name:base64",
	// the newest first. The others sign, too, for clients that do not know that one
	// yet.
	SecretKeys []string
	// Retention is how long a path lives after its last use, in whole seconds; 0
	// keeps paths for ever, GlobalRetention as the server's policy says.
	Retention time.Duration
	// Public: whoever reaches the server may read it.
	Public bool
	// UpstreamKeys are the names of the keys of caches that clients have anyway, so
	// that what those signed need not be pushed.
	UpstreamKeys []string
}

// GlobalRetention is the Retention of a cache that has none of its own. It is no
// length of time.
const GlobalRetention = -time.Second

// Path is a store path in a cache: a name over the blob that is its NAR.
type Path struct {
	CacheID    int64
	Hash       string // the 32 characters of the store path
	Name       string // what follows them and the dash
	NAR        Blob
	References []string      // base names, sorted
	Deriver    string        // base name, or empty
	Signatures []string      // by others than this server, "name:base64"
	CA         string        // content address, or empty
	PushedBy   string        // who did, at most 200 bytes, or empty
	BuildTime  time.Duration // 0: unknown; PutPath then keeps the one that is known
	Created    time.Time
	Used       time.Time // last use, in whole seconds; PutPath sets it to now
}

// Index answers questions and takes changes. All methods may be called at the
// same time, and from several processes over the same index; what one has
// acknowledged, the others see.
type Index interface {
	Reader
	Names
	Inventory

	// Update runs change in a transaction and returns when what it wrote
	// survives a crash. Changes that are waiting at the same time may share a
	// transaction; an error of one undoes that one only. A change may be run
	// again when it collided with another process's: what it writes outside of
	// the transaction must bear that.
	Update(ctx context.Context, change func(Tx) error) error

	// Lock takes a lock of that name for this process, or ErrLocked. It ends
	// with unlock, and with the process. lost is closed when the lock may no
	// longer be ours.
	Lock(ctx context.Context, name string) (lost <-chan struct{}, unlock func(), err error)

	Close() error
}

// Reader answers what pushes and pulls ask.
type Reader interface {
	// Locate returns where the chunks lie that are stored, in no order.
	Locate(ctx context.Context, chunks []digest.Hash) ([]Location, error)

	// Blob returns a blob, or ErrNotFound.
	Blob(ctx context.Context, d digest.Digest) (Blob, error)

	// Chunks returns where a blob's chunks lie, in order, at most limit of them
	// from the one numbered from (the first is 0), or ErrNotFound. Fewer than limit
	// are the last.
	Chunks(ctx context.Context, blob int64, from, limit int) ([]Location, error)

	// Extents returns where a blob's frames lie, in the order of its chunks;
	// neighbours in a pack are joined. ErrNotFound: the blob was removed.
	Extents(ctx context.Context, blob int64) ([]Extent, error)

	// Cache returns a cache by its name, or ErrNotFound.
	Cache(ctx context.Context, name string) (Cache, error)

	// Caches returns all caches by name.
	Caches(ctx context.Context) ([]Cache, error)

	// Path returns a path by its 32-character hash, or ErrNotFound.
	Path(ctx context.Context, cache int64, hash string) (Path, error)

	// NAR returns the blob with that NarHash, or ErrNotFound where no path of
	// the cache names it: a cache never serves another's contents.
	NAR(ctx context.Context, cache int64, narHash digest.Hash) (Blob, error)

	// MissingPaths returns those of the 32-character hashes that the cache
	// does not hold, in the order given, each once; and those that it holds but
	// that were last used before the given time, in no order.
	MissingPaths(ctx context.Context, cache int64, hashes []string, before time.Time) (missing, stale []string, err error)

	// Referrers returns the paths that refer to a path, but for itself, by hash.
	Referrers(ctx context.Context, cache int64, hash string) ([]PathName, error)

	// Pins returns the pins of a cache by name, the newest of each first. An
	// expired one may still be among them.
	Pins(ctx context.Context, cache int64) ([]Pin, error)
}

// NewBlob is a blob that is to be recorded by its chunks.
type NewBlob struct {
	Blob
	Chunks []digest.Chunk
}

// Tx is a change under way. It sees its own writes and is valid until the
// function that it was given to returns.
type Tx interface {
	NamesTx
	Removal

	// AddPack records a pack and its chunks. A chunk that another pack holds
	// already keeps its place there, and its frame here is dead. Entries of
	// another kind than chunks are dead, too. ErrExists: a pack of that name is
	// recorded.
	AddPack(name string, size int64, entries []pack.Entry) error

	// AddBlob records a blob by its chunks and fills in its ID. One that is
	// there already is left as it is, but lives at least until expires, and is
	// returned; where its FileHash is not known and those are its chunks, b's
	// FileHash and FileSize are filled in. ErrMissingChunks: nothing was recorded.
	// A blob lives until expires without a name, and for as long as it has one.
	AddBlob(b Blob, chunks []digest.Chunk, expires time.Time) (Blob, error)

	// AddBlobs is AddBlob for each of the blobs, in order. ErrMissingChunks: those
	// before the first that lacks some may be recorded.
	AddBlobs(blobs []NewBlob, expires time.Time) ([]Blob, error)

	// PutPath records a path, or replaces the one of the same hash in the
	// same cache; its use is now. Its NAR must be a blob with an ID. It returns
	// those of its references, but for itself, that the cache does not hold;
	// those that it holds cannot be removed before this change is through.
	// ErrNotFound: the blob or the cache was removed.
	PutPath(p Path) (absent []string, err error)

	// AddCache records a cache and returns its ID, or ErrExists.
	AddCache(c Cache) (int64, error)

	// SetRetention changes how long a cache's paths live after their last use.
	SetRetention(cache int64, retention time.Duration) error

	// TouchChunks says that the chunks are in use now.
	TouchChunks(chunks []digest.Hash) error

	// TouchPaths says that the paths are in use now.
	TouchPaths(cache int64, hashes []string) error

	// TouchNAR says that the paths over that NarHash are in use now.
	TouchNAR(cache int64, narHash digest.Hash) error

	// AddPin pins a path under a name, as the name's newest revision, and
	// removes all but its newest keep revisions (at least 1). ErrNotFound: the
	// cache does not hold the path. Pinning the path that a name's newest pin is
	// on renews that pin: it is created now and expires when p says.
	AddPin(p Pin, keep int) error

	// RemovePins removes the pins of a name, or, where hash is not empty, only
	// those on that path, and returns how many there were.
	RemovePins(cache int64, name, hash string) (int, error)
}
