package index

import (
	"context"
	"fmt"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

const pgSelectLocation = "SELECT c.hash, c.size, c.touched, p.name, c.start, c.length"

// locations reads rows of what pgSelectLocation selects.
func (x *Postgres) locations(ctx context.Context, sql string, args ...any) ([]Location, error) {
	var found []Location
	var l Location
	var touched int64
	err := x.each(ctx, sql, args, []any{(*pgHash)(&l.Hash), &l.Size, &touched, &l.Pack, &l.Offset, &l.Length}, func() {
		l.Touched = pgTime(touched)
		found = append(found, l)
	})
	return found, err
}

// Locate implements Reader.
func (x *Postgres) Locate(ctx context.Context, chunks []digest.Hash) ([]Location, error) {
	found, err := x.locations(ctx, pgSelectLocation+`
		FROM chunks c JOIN packs p ON p.id = c.pack WHERE c.hash = ANY ($1)`, pgHashes(chunks))
	if err != nil {
		return nil, fmt.Errorf("locating chunks: %w", err)
	}
	return found, nil
}

// pgBlobColumns are what a pgBlob is read from.
const pgBlobColumns = "b.id, b.hash, b.size, b.file_hash, b.file_size, b.expires"

type pgBlob struct {
	Blob
	expires int64
}

func (r *pgBlob) into(others ...any) []any {
	return append(others, &r.ID, (*pgHash)(&r.Hash), &r.Size, (*pgHash)(&r.FileHash), &r.FileSize, &r.expires)
}

func (r *pgBlob) blob() Blob {
	b := r.Blob
	b.Expires = pgTime(r.expires)
	return b
}

// Blob implements Reader.
func (x *Postgres) Blob(ctx context.Context, d digest.Digest) (Blob, error) {
	var b pgBlob
	err := x.one(ctx, "SELECT "+pgBlobColumns+" FROM blobs b WHERE b.hash = $1 AND b.size = $2", []any{d.Hash[:], d.Size}, b.into())
	if err != nil {
		return Blob{}, fmt.Errorf("looking up blob %s: %w", d, err)
	}
	return b.blob(), nil
}

// NAR implements Reader.
func (x *Postgres) NAR(ctx context.Context, cache int64, narHash digest.Hash) (Blob, error) {
	var b pgBlob
	err := x.one(ctx, "SELECT "+pgBlobColumns+` FROM blobs b
		WHERE b.hash = $1 AND (SELECT id FROM paths p WHERE p.nar = b.id AND p.cache = $2 LIMIT 1) IS NOT NULL`,
		[]any{narHash[:], cache}, b.into())
	if err != nil {
		return Blob{}, fmt.Errorf("looking up NAR %s: %w", narHash.Nix(), err)
	}
	return b.blob(), nil
}

// Chunks implements Reader.
func (x *Postgres) Chunks(ctx context.Context, blob int64, from, limit int) ([]Location, error) {
	found, err := x.locations(ctx, pgSelectLocation+`
		FROM blob_chunks b JOIN chunks c ON c.id = b.chunk JOIN packs p ON p.id = c.pack
		WHERE b.blob = $1 AND b.seq >= $2 ORDER BY b.seq LIMIT $3`, blob, from, max(limit, 0))
	if err == nil && len(found) == 0 {
		err = x.blobExists(ctx, blob)
	}
	if err != nil {
		return nil, fmt.Errorf("listing the chunks of blob %d: %w", blob, err)
	}
	return found, nil
}

// Extents implements Reader.
func (x *Postgres) Extents(ctx context.Context, blob int64) ([]Extent, error) {
	var extents []Extent
	var e Extent
	err := x.each(ctx, `SELECT p.name, c.start, c.length
		FROM blob_chunks b JOIN chunks c ON c.id = b.chunk JOIN packs p ON p.id = c.pack
		WHERE b.blob = $1 ORDER BY b.seq`, []any{blob}, []any{&e.Pack, &e.Offset, &e.Length}, func() {
		if n := len(extents); n > 0 && extents[n-1].Pack == e.Pack && extents[n-1].Offset+extents[n-1].Length == e.Offset {
			extents[n-1].Length += e.Length
			return
		}
		extents = append(extents, e)
	})
	if err == nil && len(extents) == 0 {
		err = x.blobExists(ctx, blob)
	}
	if err != nil {
		return nil, fmt.Errorf("locating blob %d: %w", blob, err)
	}
	return extents, nil
}

// blobExists tells a blob of no chunks from one that was removed.
func (x *Postgres) blobExists(ctx context.Context, blob int64) error {
	var id int64
	return x.one(ctx, "SELECT id FROM blobs WHERE id = $1", []any{blob}, []any{&id})
}

const pgSelectCache = `SELECT id, name, store_dir, priority, secret_keys, retention, public, upstream_keys
	FROM caches WHERE name IS NOT NULL`

// pgCache is a row of pgSelectCache.
type pgCache struct {
	Cache
	retention int64
}

func (r *pgCache) into() []any {
	return []any{&r.ID, &r.Name, &r.StoreDir, &r.Priority, &r.SecretKeys, &r.retention, &r.Public, &r.UpstreamKeys}
}

func (r *pgCache) cache() Cache {
	c := r.Cache
	c.Retention = time.Duration(r.retention) * time.Second
	return c
}

func (x *Postgres) caches(ctx context.Context, sql string, args ...any) ([]Cache, error) {
	var found []Cache
	var row pgCache
	err := x.each(ctx, sql, args, row.into(), func() { found = append(found, row.cache()) })
	return found, err
}

// Cache implements Reader.
func (x *Postgres) Cache(ctx context.Context, name string) (Cache, error) {
	found, err := x.caches(ctx, pgSelectCache+" AND name = $1", name)
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Cache{}, fmt.Errorf("looking up cache %q: %w", name, err)
	}
	return found[0], nil
}

// Caches implements Reader.
func (x *Postgres) Caches(ctx context.Context) ([]Cache, error) {
	found, err := x.caches(ctx, pgSelectCache+" ORDER BY name")
	if err != nil {
		return nil, fmt.Errorf("listing the caches: %w", err)
	}
	return found, nil
}

const pgSelectPath = "SELECT p.hash, p.name, p.refs, p.deriver, p.signatures, p.ca, p.pushed_by, p.build_time, p.created, p.used, " +
	pgBlobColumns + " FROM paths p JOIN blobs b ON b.id = p.nar"

// paths reads rows of what pgSelectPath selects.
func (x *Postgres) paths(ctx context.Context, cache int64, sql string, args ...any) ([]Path, error) {
	var found []Path
	p := Path{CacheID: cache}
	var created, used, buildTime int64
	var nar pgBlob
	err := x.each(ctx, sql, args, nar.into(&p.Hash, &p.Name, &p.References, &p.Deriver, &p.Signatures, &p.CA, &p.PushedBy,
		&buildTime, &created, &used), func() {
		p.NAR, p.BuildTime = nar.blob(), time.Duration(buildTime)
		p.Created, p.Used = pgTime(created), pgTime(used)
		found = append(found, p)
	})
	return found, err
}

// Path implements Reader.
func (x *Postgres) Path(ctx context.Context, cache int64, hash string) (Path, error) {
	found, err := x.paths(ctx, cache, pgSelectPath+" WHERE p.cache = $1 AND p.hash = $2", cache, hash)
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Path{}, fmt.Errorf("looking up path %s: %w", hash, err)
	}
	return found[0], nil
}

// MissingPaths implements Reader.
func (x *Postgres) MissingPaths(ctx context.Context, cache int64, hashes []string, before time.Time) (missing, stale []string, err error) {
	missing, stale = []string{}, []string{}
	absent := map[string]bool{}
	var hash string
	var held bool
	// The server leaves out those that are held and in use, which most are.
	err = x.each(ctx, `SELECT hash, used IS NOT NULL FROM (
			SELECT u.hash, (SELECT used FROM paths p WHERE p.cache = $1 AND p.hash = u.hash) AS used
			FROM unnest($2::text[]) AS u (hash) OFFSET 0) s
		WHERE used IS NULL OR used < $3`,
		[]any{cache, pgTexts(hashes), before.Unix()}, []any{&hash, &held}, func() {
			if held {
				stale = append(stale, hash)
			} else {
				absent[hash] = true
			}
		})
	if err != nil {
		return nil, nil, fmt.Errorf("looking for missing paths: %w", err)
	}
	for _, h := range hashes {
		if absent[h] {
			missing = append(missing, h)
			delete(absent, h)
		}
	}
	return missing, stale, nil
}

// pathNames reads rows of cache, hash and name.
func (x *Postgres) pathNames(ctx context.Context, sql string, args ...any) ([]PathName, error) {
	var found []PathName
	var p PathName
	err := x.each(ctx, sql, args, []any{&p.CacheID, &p.Hash, &p.Name}, func() { found = append(found, p) })
	return found, err
}

// Referrers implements Reader.
func (x *Postgres) Referrers(ctx context.Context, cache int64, hash string) ([]PathName, error) {
	found, err := x.pathNames(ctx, `SELECT p.cache, p.hash, p.name FROM referrers r JOIN paths p ON p.id = r.path
		WHERE r.cache = $1 AND r.hash = $2 ORDER BY p.hash`, cache, hash)
	if err != nil {
		return nil, fmt.Errorf("looking for what refers to path %s: %w", hash, err)
	}
	return found, nil
}

// Pins implements Reader.
func (x *Postgres) Pins(ctx context.Context, cache int64) ([]Pin, error) {
	var found []Pin
	p := Pin{CacheID: cache}
	var created, expires int64
	err := x.each(ctx, `SELECT i.name, p.hash, p.name, i.created, i.expires FROM pins i JOIN paths p ON p.id = i.path
		WHERE i.cache = $1 ORDER BY i.name, i.id DESC`,
		[]any{cache}, []any{&p.Name, &p.Hash, &p.PathName, &created, &expires}, func() {
			p.Created, p.Expires = pgTime(created), time.Time{}
			if expires != 0 {
				p.Expires = pgTime(expires)
			}
			found = append(found, p)
		})
	if err != nil {
		return nil, fmt.Errorf("listing the pins: %w", err)
	}
	return found, nil
}
