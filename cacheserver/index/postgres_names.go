package index

import (
	"context"
	"fmt"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// Object implements Names.
func (x *Postgres) Object(ctx context.Context, cache int64, name string) (Object, error) {
	o := Object{CacheID: cache, Name: name}
	var used, expires int64
	var blob pgBlob
	err := x.one(ctx, "SELECT o.content_type, o.used, o.expires, "+pgBlobColumns+`
		FROM objects o JOIN blobs b ON b.id = o.blob WHERE o.cache = $1 AND o.name = $2`,
		[]any{cache, name}, blob.into(&o.ContentType, &used, &expires))
	if err != nil {
		return Object{}, fmt.Errorf("looking up object %q: %w", name, err)
	}
	o.Blob, o.Used = blob.blob(), pgTime(used)
	if expires != 0 {
		o.Expires = pgTime(expires)
	}
	return o, nil
}

// Action implements Names.
func (x *Postgres) Action(ctx context.Context, instance string, d digest.Hash) (Action, error) {
	a := Action{Instance: instance, Digest: d}
	var used int64
	err := x.one(ctx, "SELECT used, result FROM actions WHERE digest = $1 AND instance = $2",
		[]any{d[:], instance}, []any{&used, &a.Result})
	if err != nil {
		return Action{}, fmt.Errorf("looking up the result of action %s: %w", d, err)
	}
	a.Used = pgTime(used)
	return a, nil
}

// wanted are digests as a set, and their hashes: sizes are compared on this side,
// as only one of two arrays can be searched for.
func wanted(digests []digest.Digest) (map[digest.Digest]bool, [][]byte) {
	set := make(map[digest.Digest]bool, len(digests))
	hashes := make([]digest.Hash, len(digests))
	for i, d := range digests {
		set[d], hashes[i] = true, d.Hash
	}
	return set, pgHashes(hashes)
}

// Blobs implements Names.
func (x *Postgres) Blobs(ctx context.Context, digests []digest.Digest) (map[digest.Digest]Blob, error) {
	want, hashes := wanted(digests)
	found := make(map[digest.Digest]Blob, len(want))
	var b pgBlob
	err := x.each(ctx, "SELECT "+pgBlobColumns+" FROM blobs b WHERE b.hash = ANY ($1)", []any{hashes}, b.into(), func() {
		if want[b.Digest] {
			found[b.Digest] = b.blob()
		}
	})
	if err != nil {
		return nil, fmt.Errorf("looking up %d blobs: %w", len(digests), err)
	}
	return found, nil
}

// Aliases implements Names.
func (x *Postgres) Aliases(ctx context.Context, function string, digests []digest.Digest) (map[digest.Digest]Blob, error) {
	want, hashes := wanted(digests)
	found := make(map[digest.Digest]Blob, len(want))
	var d digest.Digest
	var b pgBlob
	err := x.each(ctx, "SELECT a.hash, a.size, "+pgBlobColumns+` FROM aliases a JOIN blobs b ON b.id = a.blob
		WHERE a.hash = ANY ($1) AND a.function = $2`, []any{hashes, function}, b.into((*pgHash)(&d.Hash), &d.Size), func() {
		if want[d] {
			found[d] = b.blob()
		}
	})
	if err != nil {
		return nil, fmt.Errorf("looking up %d blobs by their %s: %w", len(digests), function, err)
	}
	return found, nil
}

// BlobEpoch implements Names.
func (x *Postgres) BlobEpoch(ctx context.Context) (epoch int64, err error) {
	if err := x.one(ctx, "SELECT epoch FROM blob_epoch", nil, []any{&epoch}); err != nil {
		return 0, fmt.Errorf("looking up how often blobs went: %w", err)
	}
	return epoch, nil
}

// Search implements Names.
func (x *Postgres) Search(ctx context.Context, cache int64, query string, after PathName, limit int) ([]PathName, error) {
	// The names are ASCII, and so is what becomes of them by C's rules: a locale
	// may have others for I.
	found, err := x.pathNames(ctx, `SELECT cache, hash, name FROM paths
		WHERE cache + 0 = $1 AND (name COLLATE "C", hash) > ($2, $3)
			AND (strpos(lower(name COLLATE "C"), $4) > 0 OR starts_with(hash, $4))
		ORDER BY name COLLATE "C", hash LIMIT $5`, cache, after.Name, after.Hash, strings.ToLower(query), max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("searching paths for %q: %w", query, err)
	}
	return found, nil
}

// Latest implements Names.
func (x *Postgres) Latest(ctx context.Context, cache int64, limit int) ([]Path, error) {
	found, err := x.paths(ctx, cache, pgSelectPath+" WHERE p.cache + 0 = $1 ORDER BY p.created DESC, p.id DESC LIMIT $2",
		cache, max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("listing the newest paths: %w", err)
	}
	return found, nil
}

// Samples implements Names.
func (x *Postgres) Samples(ctx context.Context, name string, since time.Time) ([]Sample, error) {
	var found []Sample
	var s Sample
	var at int64
	err := x.each(ctx, "SELECT at, value FROM samples WHERE name = $1 AND at >= $2 ORDER BY at",
		[]any{name, since.Unix()}, []any{&at, &s.Value}, func() {
			s.At = pgTime(at)
			found = append(found, s)
		})
	if err != nil {
		return nil, fmt.Errorf("listing the samples of %q: %w", name, err)
	}
	return found, nil
}

// HeldBlobs implements Names.
func (x *Postgres) HeldBlobs(ctx context.Context, now time.Time, after HeldBlob, limit int) ([]HeldBlob, error) {
	var found []HeldBlob
	var b HeldBlob
	var expires int64
	begin, id := beginHeld(now, after)
	err := x.each(ctx, `SELECT id, expires, file_size FROM blobs b
		WHERE (expires, id) > ($1, $2) AND NOT EXISTS (SELECT FROM paths p WHERE p.nar = b.id)
		ORDER BY expires, id LIMIT $3`,
		[]any{begin, id, max(limit, 0)}, []any{&b.ID, &expires, &b.FileSize}, func() {
			b.Expires = pgTime(expires)
			found = append(found, b)
		})
	if err != nil {
		return nil, fmt.Errorf("listing the blobs that are held: %w", err)
	}
	return found, nil
}
