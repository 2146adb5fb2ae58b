package index

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// Object implements Names.
func (x *SQLite) Object(ctx context.Context, cache int64, name string) (Object, error) {
	o := Object{CacheID: cache, Name: name}
	var used, expires int64
	var blob blobRow
	if err := one(ctx, x.read, blob.into(&o.ContentType, &used, &expires), "SELECT o.content_type, o.used, o.expires, "+blobColumns+`
		FROM objects o JOIN blobs ON blobs.id = o.blob WHERE o.cache = ? AND o.name = ?`, cache, name); err != nil {
		return Object{}, fmt.Errorf("looking up object %q: %w", name, err)
	}
	o.Blob, o.Used = blob.blob(), unixTime(used)
	if expires != 0 {
		o.Expires = unixTime(expires)
	}
	return o, nil
}

// Action implements Names.
func (x *SQLite) Action(ctx context.Context, instance string, d digest.Hash) (Action, error) {
	a := Action{Instance: instance, Digest: d}
	var used int64
	if err := one(ctx, x.read, []any{&used, &a.Result},
		"SELECT used, result FROM actions WHERE digest = ? AND instance = ?", d[:], instance); err != nil {
		return Action{}, fmt.Errorf("looking up the result of action %s: %w", d, err)
	}
	a.Used = unixTime(used)
	return a, nil
}

// inOrder returns each of the digests once, in the order of the tables that are
// searched for them.
func inOrder(digests []digest.Digest) []digest.Digest {
	digests = slices.Clone(digests)
	slices.SortFunc(digests, compareDigests)
	return slices.Compact(digests)
}

// digestArray writes each of the digests once, in order, as the beginnings of
// entries.
func digestArray(digests []digest.Digest) string {
	digests = inOrder(digests)
	return array(len(digests), 2*digest.Size+entryNumber, func(b []byte, i int) []byte {
		return fmt.Appendf(hex.AppendEncode(b, digests[i].Hash[:]), "%0*d", entryNumber, digests[i].Size)
	})
}

func compareDigests(a, b digest.Digest) int {
	if c := bytes.Compare(a.Hash[:], b.Hash[:]); c != 0 {
		return c
	}
	return int(min(1, max(-1, a.Size-b.Size)))
}

// selectBlobs looks up the hashes in ?1, which are end to end: of long lists, reading
// JSON took a quarter of the time.
var selectBlobs = fmt.Sprintf(`WITH RECURSIVE entry (at) AS (SELECT 1 WHERE length(?1) > 0
	UNION ALL SELECT at + %[1]d FROM entry WHERE at + %[1]d < length(?1))
	SELECT %[2]s FROM entry CROSS JOIN blobs ON blobs.hash = substr(?1, entry.at, %[1]d)`, digest.Size, blobColumns)

// Blobs implements Names.
func (x *SQLite) Blobs(ctx context.Context, digests []digest.Digest) (map[digest.Digest]Blob, error) {
	digests = inOrder(digests)
	hashes := make([]byte, 0, len(digests)*digest.Size)
	for i, d := range digests {
		if i == 0 || d.Hash != digests[i-1].Hash {
			hashes = append(hashes, d.Hash[:]...)
		}
	}
	found := make(map[digest.Digest]Blob, len(digests))
	err := each(ctx, x.read, func(scan func(...any) error) error {
		var r blobRow
		if err := scan(r.into()...); err != nil {
			return err
		}
		b := r.blob()
		if _, wanted := slices.BinarySearchFunc(digests, b.Digest, compareDigests); wanted {
			found[b.Digest] = b
		}
		return nil
	}, selectBlobs, hashes)
	if err != nil {
		return nil, fmt.Errorf("looking up %d blobs: %w", len(digests), err)
	}
	return found, nil
}

// Aliases implements Names.
func (x *SQLite) Aliases(ctx context.Context, function string, digests []digest.Digest) (map[digest.Digest]Blob, error) {
	found := make(map[digest.Digest]Blob, len(digests))
	err := each(ctx, x.read, func(scan func(...any) error) error {
		var hash []byte
		var size int64
		var r blobRow
		if err := scan(r.into(&hash, &size)...); err != nil {
			return err
		}
		found[digest.Digest{Hash: digest.Hash(hash), Size: size}] = r.blob()
		return nil
	}, "SELECT a.hash, a.size, "+blobColumns+" FROM json_each(?) j CROSS JOIN aliases a ON a.hash = "+entryHash+" AND a.size = "+entrySize+`
		AND a.function = ? CROSS JOIN blobs ON blobs.id = a.blob`, digestArray(digests), function)
	if err != nil {
		return nil, fmt.Errorf("looking up %d blobs by their %s: %w", len(digests), function, err)
	}
	return found, nil
}

// BlobEpoch implements Names.
func (x *SQLite) BlobEpoch(ctx context.Context) (epoch int64, err error) {
	if err := one(ctx, x.read, []any{&epoch}, "SELECT epoch FROM blob_epoch"); err != nil {
		return 0, fmt.Errorf("looking up how often blobs went: %w", err)
	}
	return epoch, nil
}

// Search implements Names.
func (x *SQLite) Search(ctx context.Context, cache int64, query string, after PathName, limit int) ([]PathName, error) {
	// lower and instr know nothing of %, _ and locales, which LIKE would have to be
	// told about.
	found, err := pathNames(ctx, x.read, `SELECT cache, hash, name FROM paths INDEXED BY paths_by_name
		WHERE cache = ?1 AND (name, hash) > (?2, ?3) AND (instr(lower(name), ?4) > 0 OR substr(hash, 1, length(?4)) = ?4)
		ORDER BY name, hash LIMIT ?5`, cache, after.Name, after.Hash, strings.ToLower(query), max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("searching paths for %q: %w", query, err)
	}
	return found, nil
}

// Latest implements Names.
func (x *SQLite) Latest(ctx context.Context, cache int64, limit int) ([]Path, error) {
	found, err := x.paths(ctx, cache, selectPath+" WHERE p.cache = ? ORDER BY p.created DESC, p.id DESC LIMIT ?", cache, max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("listing the newest paths: %w", err)
	}
	return found, nil
}

// Samples implements Names.
func (x *SQLite) Samples(ctx context.Context, name string, since time.Time) ([]Sample, error) {
	var found []Sample
	err := each(ctx, x.read, func(scan func(...any) error) error {
		var s Sample
		var at int64
		err := scan(&at, &s.Value)
		s.At = unixTime(at)
		found = append(found, s)
		return err
	}, "SELECT at, value FROM samples WHERE name = ? AND at >= ? ORDER BY at", name, since.Unix())
	if err != nil {
		return nil, fmt.Errorf("listing the samples of %q: %w", name, err)
	}
	return found, nil
}

// HeldBlobs implements Names.
func (x *SQLite) HeldBlobs(ctx context.Context, now time.Time, after HeldBlob, limit int) ([]HeldBlob, error) {
	var found []HeldBlob
	begin, id := beginHeld(now, after)
	err := each(ctx, x.read, func(scan func(...any) error) error {
		var b HeldBlob
		var expires int64
		err := scan(&b.ID, &expires, &b.FileSize)
		b.Expires = unixTime(expires)
		found = append(found, b)
		return err
	}, `SELECT id, expires, file_size FROM blobs INDEXED BY blobs_by_expiry
		WHERE (expires, id) > (?, ?) AND NOT EXISTS (SELECT 1 FROM paths WHERE nar = blobs.id)
		ORDER BY expires, id LIMIT ?`, begin, id, max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("listing the blobs that are held: %w", err)
	}
	return found, nil
}
