package index

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// PathsByUse implements Inventory.
func (x *Postgres) PathsByUse(ctx context.Context, cache int64, before time.Time, after UsedPath, limit int) ([]UsedPath, error) {
	var found []UsedPath
	p := UsedPath{PathName: PathName{CacheID: cache}}
	var used int64
	err := x.each(ctx, `SELECT p.hash, p.name, p.used, b.size, b.file_size FROM paths p JOIN blobs b ON b.id = p.nar
		WHERE p.cache + 0 = $1 AND p.used < $2 AND (p.used, p.hash) > ($3, $4) ORDER BY p.used, p.hash LIMIT $5`,
		[]any{cache, before.Unix(), after.Used.Unix(), after.Hash, max(limit, 0)},
		[]any{&p.Hash, &p.Name, &used, &p.NARSize, &p.FileSize}, func() {
			p.Used = pgTime(used)
			found = append(found, p)
		})
	if err != nil {
		return nil, fmt.Errorf("listing paths by their use: %w", err)
	}
	return found, nil
}

// Packs implements Inventory.
func (x *Postgres) Packs(ctx context.Context, after string, limit int) ([]Pack, error) {
	var found []Pack
	var p Pack
	var created int64
	err := x.each(ctx, "SELECT name, size, dead, created FROM packs WHERE name > $1 ORDER BY name LIMIT $2",
		[]any{after, max(limit, 0)}, []any{&p.Name, &p.Size, &p.Dead, &created}, func() {
			p.Created = pgTime(created)
			found = append(found, p)
		})
	if err != nil {
		return nil, fmt.Errorf("listing packs: %w", err)
	}
	return found, nil
}

// ChunksIn implements Inventory.
func (x *Postgres) ChunksIn(ctx context.Context, pack string) ([]Location, error) {
	found, err := x.locations(ctx, pgSelectLocation+`
		FROM packs p JOIN chunks c ON c.pack = p.id WHERE p.name = $1 ORDER BY c.start`, pack)
	if err != nil {
		return nil, fmt.Errorf("listing the chunks in pack %s: %w", pack, err)
	}
	return found, nil
}

// PathsWith implements Inventory.
func (x *Postgres) PathsWith(ctx context.Context, chunks []digest.Hash) ([]PathName, error) {
	found, err := x.pathNames(ctx, `SELECT DISTINCT p.cache, p.hash, p.name
		FROM chunks c JOIN blob_chunks b ON b.chunk = c.id JOIN paths p ON p.nar = b.blob
		WHERE c.hash = ANY ($1) ORDER BY p.cache, p.hash`, pgHashes(chunks))
	if err != nil {
		return nil, fmt.Errorf("looking for the paths with %d chunks: %w", len(chunks), err)
	}
	return found, nil
}

// Usage implements Inventory.
func (x *Postgres) Usage(ctx context.Context) (Usage, error) {
	var u Usage
	err := x.count(ctx, `SELECT p.n, p.size, p.dead, (SELECT count(*) FROM paths), b.n, b.size, c.n, c.size
		FROM (SELECT count(*) AS n, coalesce(sum(size), 0)::bigint AS size, coalesce(sum(dead), 0)::bigint AS dead FROM packs) p,
			(SELECT count(*) AS n, coalesce(sum(size), 0)::bigint AS size FROM blobs) b,
			(SELECT count(*) AS n, coalesce(sum(size), 0)::bigint AS size FROM chunks) c`,
		&u.Packs, &u.PackBytes, &u.DeadBytes, &u.Paths, &u.Blobs, &u.BlobBytes, &u.Chunks, &u.ChunkBytes)
	if err != nil {
		return Usage{}, fmt.Errorf("counting what the index holds: %w", err)
	}
	return u, nil
}

// Stored implements Inventory.
func (x *Postgres) Stored(ctx context.Context) (total, dead int64, err error) {
	if err := x.count(ctx, "SELECT coalesce(sum(size), 0)::bigint, coalesce(sum(dead), 0)::bigint FROM packs",
		&total, &dead); err != nil {
		return 0, 0, fmt.Errorf("adding up the packs: %w", err)
	}
	return total, dead, nil
}

// count reads whole tables from end to end, which pgSession forbids.
func (x *Postgres) count(ctx context.Context, sql string, into ...any) error {
	limited, cancel := context.WithTimeout(ctx, x.limits.count)
	defer cancel()
	err := pgx.BeginTxFunc(limited, x.read, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(limited, "SET LOCAL enable_seqscan = on"); err != nil {
			return err
		}
		return tx.QueryRow(limited, sql).Scan(into...)
	})
	return explainPostgres(ctx, err)
}

// Began implements Inventory.
func (x *Postgres) Began(ctx context.Context) (time.Time, error) {
	var at *int64
	if err := x.count(ctx, "SELECT min(at) FROM began", &at); err != nil {
		return time.Time{}, fmt.Errorf("reading when the index was made: %w", err)
	}
	if at == nil {
		return time.Time{}, nil
	}
	return time.Unix(0, *at), nil
}
