package index

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// pgTx is a change. Rows are locked and inserted in the order of their hashes, so
// that two processes that write the same ones seldom wait for each other in a
// circle. Each statement sees what was committed before it began (READ
// COMMITTED): what must not change between two is locked by the first.
type pgTx struct {
	ctx    context.Context
	conn   *pgx.Conn
	limit  time.Duration // for one statement
	now    int64
	failed error // the server's; it takes no more statements of this change then
}

// explained returns the error that the change failed with, as callers see it.
func (t *pgTx) explained() error { return explainPostgres(t.ctx, t.failed) }

// each calls row for every row and returns how many rows were returned or
// written.
func (t *pgTx) each(sql string, args, into []any, row func()) (int, error) {
	if t.failed != nil {
		return 0, t.explained()
	}
	ctx, cancel := context.WithTimeout(t.ctx, t.limit)
	defer cancel()
	n, err := pgEach(ctx, t.conn, sql, args, into, row)
	t.failed = err
	return n, t.explained()
}

// one reads the only row and says whether there was one.
func (t *pgTx) one(sql string, args, into []any) (bool, error) {
	n, err := t.each(sql, args, into, func() {})
	return n > 0, err
}

// exec returns how many rows were written.
func (t *pgTx) exec(sql string, args ...any) (int, error) {
	if t.failed != nil {
		return 0, t.explained()
	}
	ctx, cancel := context.WithTimeout(t.ctx, t.limit)
	defer cancel()
	tag, err := t.conn.Exec(ctx, sql, args...)
	t.failed = err
	return int(tag.RowsAffected()), t.explained()
}

// send runs statements in one round trip.
func (t *pgTx) send(b *pgx.Batch) error {
	if t.failed != nil {
		return t.explained()
	}
	ctx, cancel := context.WithTimeout(t.ctx, t.limit)
	defer cancel()
	t.failed = t.conn.SendBatch(ctx, b).Close()
	return t.explained()
}

// AddPack implements Tx.
func (t *pgTx) AddPack(name string, size int64, entries []pack.Entry) error {
	if err := t.addPack(name, size, entries); err != nil {
		return fmt.Errorf("recording pack %s: %w", name, err)
	}
	return nil
}

func (t *pgTx) addPack(name string, size int64, entries []pack.Entry) error {
	var dead int64
	for _, e := range entries {
		dead += int64(e.Length)
	}
	c := pgEntriesOf(entries)
	var id, live int64
	// An insert that meets the same chunk in a change under way waits until it is
	// known whether that one holds.
	there, err := t.one(`WITH p AS (
			INSERT INTO packs (name, size, dead, created) VALUES ($1, $2, 0, $3)
			ON CONFLICT (name) DO NOTHING RETURNING id
		), c AS (
			INSERT INTO chunks (hash, size, pack, start, length, touched)
			SELECT u.hash, u.size, p.id, u.start, u.length, $3
			FROM p, unnest($4::bytea[], $5::bigint[], $6::bigint[], $7::bigint[]) AS u (hash, size, start, length)
			ORDER BY u.hash
			ON CONFLICT (hash) DO NOTHING RETURNING length
		)
		SELECT p.id, (SELECT coalesce(sum(length), 0) FROM c)::bigint FROM p`,
		[]any{name, size, t.now, c.hashes, c.sizes, c.starts, c.lengths}, []any{&id, &live})
	switch {
	case err != nil:
		return err
	case !there:
		return ErrExists
	case live == dead:
		return nil
	}
	_, err = t.exec("UPDATE packs SET dead = $2 WHERE id = $1", id, dead-live)
	return err
}

// pgEntries are the chunks of a pack, each once and by hash, and as arrays.
type pgEntries struct {
	entries                []*pack.Entry
	hashes                 [][]byte
	sizes, starts, lengths []int64
}

func pgEntriesOf(entries []pack.Entry) pgEntries {
	sorted := make([]*pack.Entry, 0, len(entries))
	for i := range entries {
		if entries[i].Kind == pack.KindChunk {
			sorted = append(sorted, &entries[i])
		}
	}
	byHash := func(a, b *pack.Entry) int { return bytes.Compare(a.Hash[:], b.Hash[:]) }
	slices.SortStableFunc(sorted, byHash)
	sorted = slices.CompactFunc(sorted, func(a, b *pack.Entry) bool { return byHash(a, b) == 0 })
	c := pgEntries{
		entries: sorted,
		hashes:  make([][]byte, len(sorted)), sizes: make([]int64, len(sorted)),
		starts: make([]int64, len(sorted)), lengths: make([]int64, len(sorted)),
	}
	for i, e := range sorted {
		c.hashes[i], c.sizes[i], c.starts[i], c.lengths[i] = e.Hash[:], int64(e.Size), e.Offset, int64(e.Length)
	}
	return c
}

// PutPath implements Tx.
func (t *pgTx) PutPath(p Path) ([]string, error) {
	absent, err := t.putPath(p)
	if err != nil {
		return nil, fmt.Errorf("recording path %s-%s: %w", p.Hash, p.Name, err)
	}
	return absent, nil
}

func (t *pgTx) putPath(p Path) ([]string, error) {
	var others []string
	for _, ref := range p.References {
		if h := pathHash(ref); h != p.Hash {
			others = append(others, h)
		}
	}
	others = pgTexts(others)
	held := make(map[string]bool, len(others))
	var written int64
	var q pgx.Batch
	// Without the NAR or the cache nothing is written: no path is over it then,
	// neither by that hash.
	q.Queue(`INSERT INTO paths (cache, hash, name, nar, refs, deriver, signatures, ca, created, used, pushed_by, build_time)
		SELECT c.id, $2, $3, b.id, $5, $6, $7, $8, $9, $9, $10, $11 FROM blobs b, caches c
		WHERE b.id = $4 AND c.id = $1 AND c.name IS NOT NULL FOR KEY SHARE
		ON CONFLICT (cache, hash) DO UPDATE SET name = excluded.name, nar = excluded.nar, refs = excluded.refs,
			deriver = excluded.deriver, signatures = excluded.signatures, ca = excluded.ca, pushed_by = excluded.pushed_by,
			build_time = coalesce(nullif(excluded.build_time, 0), paths.build_time), used = greatest(paths.used, excluded.used)`,
		p.CacheID, p.Hash, p.Name, p.NAR.ID, notNull(p.References), p.Deriver, notNull(p.Signatures), p.CA, t.now,
		p.PushedBy, int64(p.BuildTime)).
		Exec(func(tag pgconn.CommandTag) error {
			written = tag.RowsAffected()
			return nil
		})
	const stored = "SELECT id FROM paths WHERE cache = $1 AND hash = $2 AND nar + 0 = $3"
	q.Queue("DELETE FROM referrers WHERE path = ("+stored+") AND hash <> ALL ($4)",
		p.CacheID, p.Hash, p.NAR.ID, others)
	q.Queue("INSERT INTO referrers (cache, hash, path) SELECT $1, u.hash, p.id FROM ("+stored+`) p, unnest($4::text[]) AS u (hash)
		ON CONFLICT DO NOTHING`, p.CacheID, p.Hash, p.NAR.ID, others)
	q.Queue("SELECT hash FROM paths WHERE cache = $1 AND hash = ANY ($2) ORDER BY hash FOR KEY SHARE", p.CacheID, others).
		Query(func(rows pgx.Rows) error {
			var h string
			_, err := pgx.ForEachRow(rows, []any{&h}, func() error {
				held[h] = true
				return nil
			})
			return err
		})
	err := t.send(&q)
	if err == nil && written == 0 {
		err = fmt.Errorf("cache %d or blob %d: %w", p.CacheID, p.NAR.ID, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	var absent []string
	for _, ref := range p.References {
		if h := pathHash(ref); h != p.Hash && !held[h] {
			absent = append(absent, ref)
		}
	}
	return absent, nil
}

// notNull makes an empty array of none at all.
func notNull(texts []string) []string { return append([]string{}, texts...) }

// AddCache implements Tx.
func (t *pgTx) AddCache(c Cache) (int64, error) {
	var id int64
	added, err := t.one(`INSERT INTO caches (name, store_dir, priority, secret_keys, retention, created, public, upstream_keys)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (name) DO NOTHING RETURNING id`,
		[]any{
			c.Name, c.StoreDir, c.Priority, notNull(c.SecretKeys), int64(c.Retention / time.Second), t.now,
			c.Public, notNull(c.UpstreamKeys),
		}, []any{&id})
	if err == nil && !added {
		err = ErrExists
	}
	if err != nil {
		return 0, fmt.Errorf("recording cache %q: %w", c.Name, err)
	}
	return id, nil
}

// SetRetention implements Tx.
func (t *pgTx) SetRetention(cache int64, retention time.Duration) error {
	err := changed(t.exec("UPDATE caches SET retention = $2 WHERE id = $1 AND name IS NOT NULL", cache, int64(retention/time.Second)))
	if err != nil {
		return fmt.Errorf("changing the retention of cache %d: %w", cache, err)
	}
	return nil
}

// TouchChunks implements Tx.
func (t *pgTx) TouchChunks(chunks []digest.Hash) error {
	// A row that was touched in this very second is not written again, here and
	// below: many processes touch what many use.
	_, err := t.exec("UPDATE chunks SET touched = $2 WHERE hash = ANY ($1) AND touched < $2", pgHashes(chunks), t.now)
	if err != nil {
		return fmt.Errorf("touching %d chunks: %w", len(chunks), err)
	}
	return nil
}

// TouchPaths implements Tx.
func (t *pgTx) TouchPaths(cache int64, hashes []string) error {
	_, err := t.exec("UPDATE paths SET used = $3 WHERE cache = $1 AND hash = ANY ($2) AND used < $3",
		cache, pgTexts(hashes), t.now)
	if err != nil {
		return fmt.Errorf("touching %d paths: %w", len(hashes), err)
	}
	return nil
}

// TouchNAR implements Tx.
func (t *pgTx) TouchNAR(cache int64, narHash digest.Hash) error {
	_, err := t.exec(`UPDATE paths SET used = $3 WHERE cache = $1 AND used < $3
		AND nar = ANY (ARRAY (SELECT id FROM blobs WHERE hash = $2))`, cache, narHash[:], t.now)
	if err != nil {
		return fmt.Errorf("touching the paths over NAR %s: %w", narHash.Nix(), err)
	}
	return nil
}
