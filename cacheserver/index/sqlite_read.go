package index

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// locations reads rows of hash, size, touched, pack, offset and length.
func (x *SQLite) locations(ctx context.Context, query string, args ...any) ([]Location, error) {
	var found []Location
	err := each(ctx, x.read, func(scan func(...any) error) error {
		var l Location
		var hash []byte
		var touched int64
		if err := scan(&hash, &l.Size, &touched, &l.Pack, &l.Offset, &l.Length); err != nil {
			return err
		}
		l.Hash, l.Touched = digest.Hash(hash), unixTime(touched)
		found = append(found, l)
		return nil
	}, query, args...)
	return found, err
}

// Locate implements Reader.
func (x *SQLite) Locate(ctx context.Context, chunks []digest.Hash) ([]Location, error) {
	found, err := x.locations(ctx, `SELECT c.hash, c.size, c.touched, p.name, c.offset, c.length
		FROM json_each(?) j CROSS JOIN chunks c ON c.hash = unhex(j.value) JOIN packs p ON p.id = c.pack`, hashArray(chunks))
	if err != nil {
		return nil, fmt.Errorf("locating chunks: %w", err)
	}
	return found, nil
}

// blobColumns are what a blobRow is read from.
const blobColumns = "blobs.id, blobs.hash, blobs.size, blobs.file_hash, blobs.file_size, blobs.expires"

const selectBlob = "SELECT " + blobColumns + " FROM blobs"

type blobRow struct {
	Blob
	hash, fileHash []byte
	expires        int64
}

func (r *blobRow) into(others ...any) []any {
	return append(others, &r.ID, &r.hash, &r.Size, &r.fileHash, &r.FileSize, &r.expires)
}

func (r *blobRow) blob() Blob {
	b := r.Blob
	b.Hash, b.FileHash, b.Expires = digest.Hash(r.hash), digest.Hash(r.fileHash), unixTime(r.expires)
	return b
}

func scanBlob(ctx context.Context, q querier, query string, args ...any) (Blob, error) {
	var r blobRow
	if err := one(ctx, q, r.into(), query, args...); err != nil {
		return Blob{}, err
	}
	return r.blob(), nil
}

// Blob implements Reader.
func (x *SQLite) Blob(ctx context.Context, d digest.Digest) (Blob, error) {
	b, err := scanBlob(ctx, x.read, selectBlob+" WHERE hash = ? AND size = ?", d.Hash[:], d.Size)
	if err != nil {
		return Blob{}, fmt.Errorf("looking up blob %s: %w", d, err)
	}
	return b, nil
}

// NAR implements Reader.
func (x *SQLite) NAR(ctx context.Context, cache int64, narHash digest.Hash) (Blob, error) {
	b, err := scanBlob(ctx, x.read, selectBlob+` WHERE hash = ?
		AND EXISTS (SELECT 1 FROM paths p WHERE p.nar = blobs.id AND p.cache = ?)`, narHash[:], cache)
	if err != nil {
		return Blob{}, fmt.Errorf("looking up NAR %s: %w", narHash.Nix(), err)
	}
	return b, nil
}

// Chunks implements Reader.
func (x *SQLite) Chunks(ctx context.Context, blob int64, from, limit int) ([]Location, error) {
	found, err := x.locations(ctx, `SELECT c.hash, c.size, c.touched, p.name, c.offset, c.length
		FROM blob_chunks b JOIN chunks c ON c.id = b.chunk JOIN packs p ON p.id = c.pack
		WHERE b.blob = ? AND b.seq >= ? ORDER BY b.seq LIMIT ?`, blob, from, max(limit, 0))
	if err == nil && len(found) == 0 {
		err = x.blobExists(ctx, blob)
	}
	if err != nil {
		return nil, fmt.Errorf("listing the chunks of blob %d: %w", blob, err)
	}
	return found, nil
}

// Extents implements Reader.
func (x *SQLite) Extents(ctx context.Context, blob int64) ([]Extent, error) {
	var extents []Extent
	err := each(ctx, x.read, func(scan func(...any) error) error {
		var e Extent
		if err := scan(&e.Pack, &e.Offset, &e.Length); err != nil {
			return err
		}
		if n := len(extents); n > 0 && extents[n-1].Pack == e.Pack && extents[n-1].Offset+extents[n-1].Length == e.Offset {
			extents[n-1].Length += e.Length
			return nil
		}
		extents = append(extents, e)
		return nil
	}, `SELECT p.name, c.offset, c.length
		FROM blob_chunks b JOIN chunks c ON c.id = b.chunk JOIN packs p ON p.id = c.pack
		WHERE b.blob = ? ORDER BY b.seq`, blob)
	if err == nil && len(extents) == 0 {
		err = x.blobExists(ctx, blob)
	}
	if err != nil {
		return nil, fmt.Errorf("locating blob %d: %w", blob, err)
	}
	return extents, nil
}

// blobExists tells a blob of no chunks from one that was removed.
func (x *SQLite) blobExists(ctx context.Context, blob int64) error {
	var id int64
	return one(ctx, x.read, []any{&id}, "SELECT id FROM blobs WHERE id = ?", blob)
}

const selectCache = `SELECT id, name, store_dir, priority, secret_keys, retention, public, upstream_keys
	FROM caches WHERE name IS NOT NULL`

func scanCache(scan func(...any) error) (Cache, error) {
	var c Cache
	var retention int64
	var secretKeys, upstreamKeys string
	err := scan(&c.ID, &c.Name, &c.StoreDir, &c.Priority, &secretKeys, &retention, &c.Public, &upstreamKeys)
	c.Retention = time.Duration(retention) * time.Second
	c.SecretKeys, c.UpstreamKeys = strings.Fields(secretKeys), strings.Fields(upstreamKeys)
	return c, err
}

// Cache implements Reader.
func (x *SQLite) Cache(ctx context.Context, name string) (Cache, error) {
	found, err := scanCaches(ctx, x.read, selectCache+" AND name = ?", name)
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Cache{}, fmt.Errorf("looking up cache %q: %w", name, err)
	}
	return found[0], nil
}

// Caches implements Reader.
func (x *SQLite) Caches(ctx context.Context) ([]Cache, error) {
	found, err := scanCaches(ctx, x.read, selectCache+" ORDER BY name")
	if err != nil {
		return nil, fmt.Errorf("listing the caches: %w", err)
	}
	return found, nil
}

func scanCaches(ctx context.Context, q querier, query string, args ...any) ([]Cache, error) {
	var found []Cache
	err := each(ctx, q, func(scan func(...any) error) error {
		c, err := scanCache(scan)
		found = append(found, c)
		return err
	}, query, args...)
	return found, err
}

const selectPath = "SELECT p.hash, p.name, p.refs, p.deriver, p.signatures, p.ca, p.pushed_by, p.build_time, p.created, p.used, " +
	blobColumns + " FROM paths p JOIN blobs ON blobs.id = p.nar"

// paths reads rows of what selectPath selects.
func (x *SQLite) paths(ctx context.Context, cache int64, query string, args ...any) ([]Path, error) {
	var found []Path
	err := each(ctx, x.read, func(scan func(...any) error) error {
		p := Path{CacheID: cache}
		var refs, sigs string
		var created, used int64
		var nar blobRow
		if err := scan(nar.into(&p.Hash, &p.Name, &refs, &p.Deriver, &sigs, &p.CA, &p.PushedBy, &p.BuildTime, &created, &used)...); err != nil {
			return err
		}
		p.NAR = nar.blob()
		p.References, p.Signatures = strings.Fields(refs), strings.Fields(sigs)
		p.Created, p.Used = unixTime(created), unixTime(used)
		found = append(found, p)
		return nil
	}, query, args...)
	return found, err
}

// Path implements Reader.
func (x *SQLite) Path(ctx context.Context, cache int64, hash string) (Path, error) {
	found, err := x.paths(ctx, cache, selectPath+" WHERE p.cache = ? AND p.hash = ?", cache, hash)
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Path{}, fmt.Errorf("looking up path %s: %w", hash, err)
	}
	return found[0], nil
}

// missingPart is how many paths one reader looks for; several readers look for
// the rest at the same time.
const missingPart = 10_000

// MissingPaths implements Reader.
func (x *SQLite) MissingPaths(ctx context.Context, cache int64, hashes []string, before time.Time) (missing, stale []string, err error) {
	var mu sync.Mutex
	seen := make(map[string]bool, len(hashes))
	missing, stale = []string{}, []string{}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for part := range slices.Chunk(slices.Compact(slices.Sorted(slices.Values(hashes))), missingPart) {
		g.Go(func() error {
			there, old, err := x.pathsOf(ctx, cache, part, before)
			mu.Lock()
			defer mu.Unlock()
			for _, h := range there {
				seen[h] = true
			}
			stale = append(stale, old...)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, fmt.Errorf("looking for missing paths: %w", err)
	}
	for _, h := range hashes {
		if !seen[h] {
			missing = append(missing, h)
			seen[h] = true
		}
	}
	return missing, stale, nil
}

// pathsOf returns which of the paths are there, and those of them that were last
// used before the given time.
func (x *SQLite) pathsOf(ctx context.Context, cache int64, hashes []string, before time.Time) (there, old []string, err error) {
	err = each(ctx, x.read, func(scan func(...any) error) error {
		var hash string
		var used int64
		if err := scan(&hash, &used); err != nil {
			return err
		}
		if used < before.Unix() {
			old = append(old, hash)
		}
		there = append(there, hash)
		return nil
	}, `SELECT p.hash, p.used FROM json_each(?) j
		CROSS JOIN paths p INDEXED BY paths_by_hash ON p.cache = ? AND p.hash = j.value`, textArray(hashes), cache)
	return there, old, err
}

// Referrers implements Reader.
func (x *SQLite) Referrers(ctx context.Context, cache int64, hash string) ([]PathName, error) {
	found, err := pathNames(ctx, x.read, `SELECT p.cache, p.hash, p.name FROM referrers r JOIN paths p ON p.id = r.path
		WHERE r.cache = ? AND r.hash = ? ORDER BY p.hash`, cache, hash)
	if err != nil {
		return nil, fmt.Errorf("looking for what refers to path %s: %w", hash, err)
	}
	return found, nil
}

// pathNames reads rows of cache, hash and name.
func pathNames(ctx context.Context, q querier, query string, args ...any) ([]PathName, error) {
	var found []PathName
	err := each(ctx, q, func(scan func(...any) error) error {
		var p PathName
		err := scan(&p.CacheID, &p.Hash, &p.Name)
		found = append(found, p)
		return err
	}, query, args...)
	return found, err
}

// Pins implements Reader.
func (x *SQLite) Pins(ctx context.Context, cache int64) ([]Pin, error) {
	var found []Pin
	err := each(ctx, x.read, func(scan func(...any) error) error {
		p := Pin{CacheID: cache}
		var created, expires int64
		if err := scan(&p.Name, &p.Hash, &p.PathName, &created, &expires); err != nil {
			return err
		}
		p.Created = unixTime(created)
		if expires != 0 {
			p.Expires = unixTime(expires)
		}
		found = append(found, p)
		return nil
	}, `SELECT i.name, p.hash, p.name, i.created, i.expires FROM pins i JOIN paths p ON p.id = i.path
		WHERE i.cache = ? ORDER BY i.name, i.id DESC`, cache)
	if err != nil {
		return nil, fmt.Errorf("listing the pins: %w", err)
	}
	return found, nil
}
