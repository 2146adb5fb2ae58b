package index

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// PathsByUse implements Inventory.
func (x *SQLite) PathsByUse(ctx context.Context, cache int64, before time.Time, after UsedPath, limit int) ([]UsedPath, error) {
	var found []UsedPath
	err := each(ctx, x.read, func(scan func(...any) error) error {
		p := UsedPath{PathName: PathName{CacheID: cache}}
		var used int64
		err := scan(&p.Hash, &p.Name, &used, &p.NARSize, &p.FileSize)
		p.Used = unixTime(used)
		found = append(found, p)
		return err
	}, `SELECT p.hash, p.name, p.used, b.size, b.file_size FROM paths p JOIN blobs b ON b.id = p.nar
		WHERE p.cache = ? AND p.used < ? AND (p.used, p.hash) > (?, ?) ORDER BY p.used, p.hash LIMIT ?`,
		cache, before.Unix(), after.Used.Unix(), after.Hash, max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("listing paths by their use: %w", err)
	}
	return found, nil
}

// Packs implements Inventory.
func (x *SQLite) Packs(ctx context.Context, after string, limit int) ([]Pack, error) {
	var found []Pack
	err := each(ctx, x.read, func(scan func(...any) error) error {
		var p Pack
		var created int64
		err := scan(&p.Name, &p.Size, &p.Dead, &created)
		p.Created = unixTime(created)
		found = append(found, p)
		return err
	}, "SELECT name, size, dead, created FROM packs WHERE name > ? ORDER BY name LIMIT ?", after, max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("listing packs: %w", err)
	}
	return found, nil
}

// ChunksIn implements Inventory.
func (x *SQLite) ChunksIn(ctx context.Context, pack string) ([]Location, error) {
	found, err := x.locations(ctx, `SELECT c.hash, c.size, c.touched, p.name, c.offset, c.length
		FROM packs p JOIN chunks c ON c.pack = p.id WHERE p.name = ? ORDER BY c.offset`, pack)
	if err != nil {
		return nil, fmt.Errorf("listing the chunks in pack %s: %w", pack, err)
	}
	return found, nil
}

// PathsWith implements Inventory.
func (x *SQLite) PathsWith(ctx context.Context, chunks []digest.Hash) ([]PathName, error) {
	found, err := pathNames(ctx, x.read, `SELECT cache, hash, name FROM paths WHERE nar IN (
			SELECT blob FROM blob_chunks WHERE chunk IN (
				SELECT id FROM chunks WHERE hash IN (SELECT unhex(value) FROM json_each(?))))
		ORDER BY cache, hash`, hashArray(chunks))
	if err != nil {
		return nil, fmt.Errorf("looking for the paths with %d chunks: %w", len(chunks), err)
	}
	return found, nil
}

// Usage implements Inventory.
func (x *SQLite) Usage(ctx context.Context) (Usage, error) {
	var u Usage
	err := one(ctx, x.read, []any{
		&u.Packs, &u.PackBytes, &u.DeadBytes, &u.Paths, &u.Blobs, &u.BlobBytes, &u.Chunks, &u.ChunkBytes,
	}, `SELECT p.n, p.size, p.dead, (SELECT count(*) FROM paths), b.n, b.size, c.n, c.size
		FROM (SELECT count(*) n, coalesce(sum(size), 0) size, coalesce(sum(dead), 0) dead FROM packs) p,
			(SELECT count(*) n, coalesce(sum(size), 0) size FROM blobs) b,
			(SELECT count(*) n, coalesce(sum(size), 0) size FROM chunks) c`)
	if err != nil {
		return Usage{}, fmt.Errorf("counting what the index holds: %w", err)
	}
	return u, nil
}

// Stored implements Inventory.
func (x *SQLite) Stored(ctx context.Context) (total, dead int64, err error) {
	if err := one(ctx, x.read, []any{&total, &dead},
		"SELECT coalesce(sum(size), 0), coalesce(sum(dead), 0) FROM packs"); err != nil {
		return 0, 0, fmt.Errorf("adding up the packs: %w", err)
	}
	return total, dead, nil
}

// Began implements Inventory.
func (x *SQLite) Began(ctx context.Context) (time.Time, error) {
	var at sql.NullInt64
	if err := one(ctx, x.read, []any{&at}, "SELECT min(at) FROM began"); err != nil {
		return time.Time{}, fmt.Errorf("reading when the index was made: %w", err)
	}
	if !at.Valid {
		return time.Time{}, nil
	}
	return time.Unix(0, at.Int64), nil
}
