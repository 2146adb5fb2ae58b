package index

import (
	"context"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// Object is a file of a cache that is no path: a build log, a realisation, debug
// information, a listing, or a NAR under the name that it was uploaded by.
type Object struct {
	CacheID     int64
	Name        string // such as log/….drv; 1 to 512 bytes
	ContentType string
	Blob        Blob
	Used        time.Time // last use, in whole seconds
	// Expires is when it goes even if it is used; zero: it lives as paths do,
	// by the cache's retention.
	Expires time.Time
}

// Action is the result of a Bazel action: a name over blobs, which it does not
// keep alive. Who returns it sees that they are there.
type Action struct {
	Instance string
	Digest   digest.Hash // of the action, by whatever function the instance's clients use
	Result   []byte      // an encoded ActionResult
	Used     time.Time
}

// HeldBlob is a blob that lives without a path, as collection looks at it.
type HeldBlob struct {
	ID       int64
	Expires  time.Time
	FileSize int64
}

// Sample is a measured value at a time, such as the bytes stored.
type Sample struct {
	At    time.Time // in whole seconds
	Value float64
}

// Names answers what the doors beside pushes and pulls ask.
type Names interface {
	// Object returns an object, or ErrNotFound.
	Object(ctx context.Context, cache int64, name string) (Object, error)

	// Action returns an action's result, or ErrNotFound.
	Action(ctx context.Context, instance string, d digest.Hash) (Action, error)

	// Blobs returns those blobs that are stored, by digest.
	Blobs(ctx context.Context, digests []digest.Digest) (map[digest.Digest]Blob, error)

	// Aliases returns those blobs that are stored and known by digests of another
	// function, such as blake3.
	Aliases(ctx context.Context, function string, digests []digest.Digest) (map[digest.Digest]Blob, error)

	// BlobEpoch returns a number that changes with every transaction that removes
	// blobs or ends their hold. What Blobs and Aliases return after it was read is
	// there, and expires no earlier than they say, for as long as it stays the same.
	BlobEpoch(ctx context.Context) (int64, error)

	// Search returns at most limit paths of a cache whose hash begins with the
	// query or whose name has it in it, case-insensitive, by name; all where it is
	// empty. after is the last one of the page before, or zero.
	Search(ctx context.Context, cache int64, query string, after PathName, limit int) ([]PathName, error)

	// Latest returns at most limit paths of a cache, the newest first.
	Latest(ctx context.Context, cache int64, limit int) ([]Path, error)

	// Samples returns what was recorded under a name since a time, by time.
	Samples(ctx context.Context, name string, since time.Time) ([]Sample, error)

	// HeldBlobs returns at most limit blobs that no path names and that have not
	// expired by now, those that expire first ahead, which follow after (by
	// Expires and ID; zero begins).
	HeldBlobs(ctx context.Context, now time.Time, after HeldBlob, limit int) ([]HeldBlob, error)
}

// NamesTx is the part of Tx that changes what Names tells.
type NamesTx interface {
	// UpdateCache records what change makes of a cache as it is now, but for its ID,
	// name and store directory, which stay. Nobody else changes it meanwhile.
	// ErrNotFound: there is none of that ID; else change's own error.
	UpdateCache(id int64, change func(*Cache) error) error

	// RemoveCache makes a cache's name free at once. Its paths, pins and objects
	// go by and by (PurgeCaches), and nothing more is put into it. ErrNotFound:
	// there is none of that ID.
	RemoveCache(id int64) error

	// PurgeCaches removes at most limit paths and objects of removed caches, and
	// those caches of which nothing is left. more is true when there is more.
	PurgeCaches(limit int) (more bool, err error)

	// PutObject records an object, or replaces the one of that name. Its use is
	// now. Its blob must have an ID. ErrNotFound: the blob or the cache was
	// removed.
	PutObject(o Object) error

	// TouchObject says that an object is in use now.
	TouchObject(cache int64, name string) error

	// SweepObjects looks at limit objects from the row numbered from on and
	// removes those that have expired, and those past their cache's retention;
	// global is that of caches that have none of their own.
	SweepObjects(from int64, limit int, now time.Time, global time.Duration) (Swept, error)

	// PutAction records an action's result, or replaces it. Its use is now.
	PutAction(a Action) error

	// TouchAction says that an action's result is in use now.
	TouchAction(instance string, d digest.Hash) error

	// SweepActions looks at limit actions from the row numbered from on and
	// removes those last used before the given time.
	SweepActions(from int64, limit int, before time.Time) (Swept, error)

	// PutAlias records that a blob has another digest by another function. It
	// lives as long as the blob. ErrNotFound: the blob was removed.
	PutAlias(function string, d digest.Digest, blob int64) error

	// HoldBlobs makes blobs live until then at least, with a name or without. It
	// returns how many of them there were.
	HoldBlobs(ids []int64, until time.Time) (int, error)

	// ReleaseBlobs ends what HoldBlobs began for those of the blobs that expire
	// no later than the given time: they go with the next sweep unless they have
	// a name.
	ReleaseBlobs(ids []int64, notAfter time.Time) (int, error)

	// AddSample records a value under a name, and forgets those from before
	// forget.
	AddSample(name string, s Sample, forget time.Time) error
}
