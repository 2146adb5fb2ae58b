package index

import (
	"context"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// Pin keeps a path alive, and with it all that it refers to.
type Pin struct {
	CacheID  int64
	Name     string
	Hash     string // the 32 characters of the store path
	PathName string // what follows them; filled in by Pins
	Created  time.Time
	Expires  time.Time // zero: never
}

// PathName is a path without what is known of it.
type PathName struct {
	CacheID int64
	Hash    string
	Name    string
}

// String is the path's base name.
func (p PathName) String() string { return p.Hash + "-" + p.Name }

// UsedPath is a path with its last use, as collection looks at it.
type UsedPath struct {
	PathName
	Used     time.Time
	NARSize  int64
	FileSize int64
}

// Pack is a pack as the index knows it.
type Pack struct {
	Name    string
	Size    int64 // bytes of the whole file
	Dead    int64 // bytes of frames in which no chunk lies any more
	Created time.Time
}

// Usage is what the index counts.
type Usage struct {
	Packs      int64
	PackBytes  int64 // of all packs
	DeadBytes  int64 // of those, in frames in which no chunk lies
	Paths      int64
	Blobs      int64
	BlobBytes  int64 // uncompressed
	Chunks     int64
	ChunkBytes int64 // uncompressed
}

// Inventory lists what the index holds, page by page, each page a short
// transaction of its own: what changes between two pages may be in neither.
type Inventory interface {
	// PathsByUse returns at most limit paths of a cache that were last used
	// before the given time, the longest unused first, that follow after (by
	// Used and Hash; the zero UsedPath begins).
	PathsByUse(ctx context.Context, cache int64, before time.Time, after UsedPath, limit int) ([]UsedPath, error)

	// Packs returns at most limit packs whose names follow after, by name.
	Packs(ctx context.Context, after string, limit int) ([]Pack, error)

	// ChunksIn returns the chunks that lie in a pack, by offset.
	ChunksIn(ctx context.Context, pack string) ([]Location, error)

	// PathsWith returns the paths whose NAR has one of the chunks.
	PathsWith(ctx context.Context, chunks []digest.Hash) ([]PathName, error)

	// Usage counts. Rows are counted one by one: it may take seconds.
	Usage(ctx context.Context) (Usage, error)

	// Stored returns the bytes of all packs, and those of them that are dead.
	Stored(ctx context.Context) (total, dead int64, err error)

	// Began returns when the index was made: of packs that are older, it need not
	// know all. Zero is before anything.
	Began(ctx context.Context) (time.Time, error)
}

// Swept is what one step of a sweep did.
type Swept struct {
	Next    int64 // where the next step begins; 0 after the last
	Removed int64
	Bytes   int64 // of blobs and objects uncompressed, of chunks as frames, of actions their results
}

// WheneverUsed is a time before which every path was last used: RemoveUnused then
// looks only at whether something needs it.
func WheneverUsed() time.Time { return time.Unix(1<<40, 0) }

// Removal is the part of Tx by which things leave the index. Each method
// removes only what nothing needs any more at that very moment, whatever its
// caller believed, unless it says otherwise.
type Removal interface {
	// RemoveUnused removes those of the paths that were last used before the
	// given time, that no other path of the cache refers to, and that are not
	// pinned (expired pins on them go, too). It returns the hashes that it
	// removed, and the hashes of the cache's paths that those referred to.
	RemoveUnused(cache int64, hashes []string, before time.Time) (removed, references []string, err error)

	// RemovePaths removes paths with their pins, whoever needs them, and returns
	// how many there were.
	RemovePaths(cache int64, hashes []string) (int, error)

	// SweepBlobs looks at limit blobs from the row numbered from on, and removes
	// those that have no name and expired before now.
	SweepBlobs(from int64, limit int, now time.Time) (Swept, error)

	// SweepChunks looks at limit chunks from the row numbered from on, and
	// removes those that no blob has and that were not touched since before;
	// their frames become dead.
	SweepChunks(from int64, limit int, before time.Time) (Swept, error)

	// MoveChunks makes those of the entries' chunks that lie in one of the packs
	// of from lie in the given pack instead, which holds them at those places,
	// and returns how many.
	MoveChunks(to string, entries []pack.Entry, from []string) (int, error)

	// DropPacks removes those of the packs that no chunk lies in, and returns
	// their names. Their files are the caller's to delete, after the change is
	// through.
	DropPacks(names []string) ([]string, error)

	// DropChunks removes chunks that are lost, with the blobs that have them and
	// the objects and paths over those, pinned or not, and returns the paths.
	DropChunks(chunks []digest.Hash) ([]PathName, error)
}
