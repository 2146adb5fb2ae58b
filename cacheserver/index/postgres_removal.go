package index

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// What may go is decided in two statements. The first locks the candidates, but
// for those that another change holds: those are in use. The second sees what
// was committed until then, and what is committed later had to wait for the
// lock. A single statement would judge by what it saw before it had the locks.

func (t *pgTx) ids(sql string, args ...any) ([]int64, error) {
	ids := []int64{} // never nil, which would be NULL
	var id int64
	_, err := t.each(sql, args, []any{&id}, func() { ids = append(ids, id) })
	return ids, err
}

// RemoveUnused implements Removal.
func (t *pgTx) RemoveUnused(cache int64, hashes []string, before time.Time) (removed, references []string, err error) {
	removed, references, err = t.removeUnused(cache, hashes, before.Unix())
	if err != nil {
		return nil, nil, fmt.Errorf("removing unused paths: %w", err)
	}
	return removed, references, nil
}

func (t *pgTx) removeUnused(cache int64, hashes []string, before int64) (removed, references []string, err error) {
	locked, err := t.ids(`SELECT id FROM paths WHERE cache = $1 AND hash = ANY ($2) AND used < $3
		ORDER BY hash FOR UPDATE SKIP LOCKED`, cache, pgTexts(hashes), before)
	if err != nil || len(locked) == 0 {
		return nil, nil, err
	}
	var ids []int64
	var id int64
	var hash string
	_, err = t.each(`SELECT id, hash FROM paths p WHERE id = ANY ($1) AND used < $2
			AND NOT EXISTS (SELECT FROM referrers r WHERE r.cache = p.cache AND r.hash = p.hash)
			AND NOT EXISTS (SELECT FROM pins i WHERE i.path = p.id AND (i.expires = 0 OR i.expires >= $3))`,
		[]any{locked, before, t.now}, []any{&id, &hash}, func() {
			ids, removed = append(ids, id), append(removed, hash)
		})
	if err != nil || len(ids) == 0 {
		return nil, nil, err
	}
	_, err = t.each(`SELECT DISTINCT p.hash FROM referrers r JOIN paths p ON p.cache = r.cache AND p.hash = r.hash
		WHERE r.path = ANY ($1)`,
		[]any{ids}, []any{&hash}, func() { references = append(references, hash) })
	if err != nil {
		return nil, nil, err
	}
	return removed, references, t.deletePaths(ids)
}

// deletePaths deletes paths that are locked, with their pins.
func (t *pgTx) deletePaths(ids []int64) error {
	var q pgx.Batch
	q.Queue("DELETE FROM pins WHERE path = ANY ($1)", ids)
	q.Queue("DELETE FROM paths WHERE id = ANY ($1)", ids)
	return t.send(&q)
}

// RemovePaths implements Removal.
func (t *pgTx) RemovePaths(cache int64, hashes []string) (int, error) {
	ids, err := t.ids("SELECT id FROM paths WHERE cache = $1 AND hash = ANY ($2) ORDER BY hash FOR UPDATE",
		cache, pgTexts(hashes))
	if err == nil && len(ids) > 0 {
		err = t.deletePaths(ids)
	}
	if err != nil {
		return 0, fmt.Errorf("removing %d paths: %w", len(hashes), err)
	}
	return len(ids), nil
}

// SweepBlobs implements Removal.
func (t *pgTx) SweepBlobs(from int64, limit int, now time.Time) (Swept, error) {
	swept, err := t.sweepBlobs(from, limit, now.Unix())
	if err != nil {
		return Swept{}, fmt.Errorf("sweeping blobs from row %d: %w", from, err)
	}
	return swept, nil
}

func (t *pgTx) sweepBlobs(from int64, limit int, now int64) (swept Swept, err error) {
	last, next, err := t.step("blobs", from, limit)
	if err != nil {
		return Swept{}, err
	}
	swept.Next = next
	locked, err := t.ids(`SELECT id FROM blobs b WHERE id BETWEEN $1 AND $2 AND expires < $3
			AND NOT EXISTS (SELECT FROM paths p WHERE p.nar = b.id) AND NOT EXISTS (SELECT FROM objects o WHERE o.blob = b.id)
		ORDER BY id FOR UPDATE SKIP LOCKED`, from, last, now)
	if err != nil || len(locked) == 0 {
		return swept, err
	}
	ids, err := t.ids(`SELECT id FROM blobs b WHERE id = ANY ($1) AND expires < $2
		AND NOT EXISTS (SELECT FROM paths p WHERE p.nar = b.id)
		AND NOT EXISTS (SELECT FROM objects o WHERE o.blob = b.id)`, locked, now)
	if err != nil || len(ids) == 0 {
		return swept, err
	}
	swept.Removed, swept.Bytes, err = t.deleteBlobs(ids)
	return swept, err
}

// step returns the last of limit rows of a table from one on, and where the next
// step begins.
func (t *pgTx) step(table string, from int64, limit int) (last, next int64, err error) {
	limit = max(limit, 1)
	var rows int
	_, err = t.one(`SELECT count(*), coalesce(max(id), 0)
		FROM (SELECT id FROM `+table+` WHERE id >= $1 ORDER BY id LIMIT $2) s`, []any{from, limit}, []any{&rows, &last})
	if rows == limit {
		next = last + 1
	}
	return last, next, err
}

// deleteBlobs deletes blobs that are locked and have no name; their aliases go
// with them.
func (t *pgTx) deleteBlobs(ids []int64) (removed, bytes int64, err error) {
	if _, err := t.exec("DELETE FROM blob_chunks WHERE blob = ANY ($1)", ids); err != nil {
		return 0, 0, err
	}
	var size int64
	n, err := t.each("DELETE FROM blobs WHERE id = ANY ($1) RETURNING size", []any{ids}, []any{&size}, func() { bytes += size })
	if err == nil && n > 0 {
		err = t.nextBlobEpoch()
	}
	return int64(n), bytes, err
}

// nextBlobEpoch ends what readers may count on of the blobs that they found. It
// comes last in what changes blobs: others that change some wait for it.
func (t *pgTx) nextBlobEpoch() error {
	_, err := t.exec("UPDATE blob_epoch SET epoch = epoch + 1")
	return err
}

// SweepChunks implements Removal.
func (t *pgTx) SweepChunks(from int64, limit int, before time.Time) (Swept, error) {
	swept, err := t.sweepChunks(from, limit, before.Unix())
	if err != nil {
		return Swept{}, fmt.Errorf("sweeping chunks from row %d: %w", from, err)
	}
	return swept, nil
}

func (t *pgTx) sweepChunks(from int64, limit int, before int64) (swept Swept, err error) {
	last, next, err := t.step("chunks", from, limit)
	if err != nil {
		return Swept{}, err
	}
	swept.Next = next
	locked, err := t.ids(`SELECT id FROM chunks c WHERE id BETWEEN $1 AND $2 AND touched < $3
			AND NOT EXISTS (SELECT FROM blob_chunks b WHERE b.chunk = c.id)
		ORDER BY id FOR UPDATE SKIP LOCKED`, from, last, before)
	if err != nil || len(locked) == 0 {
		return swept, err
	}
	ids, err := t.ids(`SELECT id FROM chunks c WHERE id = ANY ($1) AND touched < $2
		AND NOT EXISTS (SELECT FROM blob_chunks b WHERE b.chunk = c.id)`, locked, before)
	if err != nil || len(ids) == 0 {
		return swept, err
	}
	swept.Removed, swept.Bytes, err = t.deleteChunks(ids)
	return swept, err
}

// deleteChunks deletes chunks that are locked and that no blob has; their frames
// are dead.
func (t *pgTx) deleteChunks(ids []int64) (removed, bytes int64, err error) {
	dead := map[int64]int64{}
	var pack, length int64
	n, err := t.each("DELETE FROM chunks WHERE id = ANY ($1) RETURNING pack, length",
		[]any{ids}, []any{&pack, &length}, func() {
			dead[pack] += length
			bytes += length
		})
	if err != nil {
		return 0, 0, err
	}
	return int64(n), bytes, t.addDead(dead)
}

// addDead adds to the dead bytes of packs, or takes away from them.
func (t *pgTx) addDead(bytes map[int64]int64) error {
	var q pgx.Batch
	for _, id := range slices.Sorted(maps.Keys(bytes)) {
		q.Queue("UPDATE packs SET dead = dead + $2 WHERE id = $1", id, bytes[id])
	}
	return t.send(&q)
}

// MoveChunks implements Removal.
func (t *pgTx) MoveChunks(to string, entries []pack.Entry, from []string) (int, error) {
	n, err := t.moveChunks(to, entries, from)
	if err != nil {
		return 0, fmt.Errorf("moving chunks to pack %s: %w", to, err)
	}
	return n, nil
}

func (t *pgTx) moveChunks(to string, entries []pack.Entry, from []string) (int, error) {
	var target int64
	there, err := t.one("SELECT id FROM packs WHERE name = $1 FOR KEY SHARE", []any{to}, []any{&target})
	if err == nil && !there {
		err = ErrNotFound
	}
	if err != nil {
		return 0, err
	}
	sources, err := t.ids("SELECT id FROM packs WHERE name = ANY ($1) AND id <> $2", pgTexts(from), target)
	if err != nil {
		return 0, err
	}
	places := make(map[digest.Chunk]*pack.Entry, len(entries))
	c := pgEntriesOf(entries)
	for _, e := range c.entries {
		places[e.Chunk] = e
	}
	var moved []pack.Entry
	dead := map[int64]int64{}
	var at digest.Chunk
	var source, length int64
	if _, err := t.each("SELECT hash, size, pack, length FROM chunks WHERE hash = ANY ($1) ORDER BY hash FOR NO KEY UPDATE",
		[]any{c.hashes}, []any{(*pgHash)(&at.Hash), &at.Size, &source, &length}, func() {
			if e := places[at]; e != nil && slices.Contains(sources, source) {
				moved = append(moved, *e)
				dead[source] += length
				dead[target] -= int64(e.Length)
			}
		}); err != nil || len(moved) == 0 {
		return 0, err
	}
	c = pgEntriesOf(moved)
	// None is inserted, all being there and locked. An UPDATE would have to join
	// the list with the table.
	if _, err := t.exec(`INSERT INTO chunks (hash, size, pack, start, length, touched)
		SELECT u.hash, u.size, $1, u.start, u.length, 0
		FROM unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[]) AS u (hash, size, start, length)
		ON CONFLICT (hash) DO UPDATE SET pack = excluded.pack, start = excluded.start, length = excluded.length`,
		target, c.hashes, c.sizes, c.starts, c.lengths); err != nil {
		return 0, err
	}
	return len(moved), t.addDead(dead)
}

// DropPacks implements Removal.
func (t *pgTx) DropPacks(names []string) ([]string, error) {
	var dropped []string
	locked, err := t.ids("SELECT id FROM packs WHERE name = ANY ($1) ORDER BY id FOR UPDATE SKIP LOCKED", pgTexts(names))
	if err == nil && len(locked) > 0 {
		var name string
		_, err = t.each(`DELETE FROM packs p WHERE id = ANY ($1)
			AND NOT EXISTS (SELECT FROM chunks c WHERE c.pack = p.id) RETURNING name`,
			[]any{locked}, []any{&name}, func() { dropped = append(dropped, name) })
	}
	if err != nil {
		return nil, fmt.Errorf("dropping %d packs: %w", len(names), err)
	}
	return dropped, nil
}

// DropChunks implements Removal.
func (t *pgTx) DropChunks(chunks []digest.Hash) ([]PathName, error) {
	paths, err := t.dropChunks(chunks)
	if err != nil {
		return nil, fmt.Errorf("dropping %d chunks: %w", len(chunks), err)
	}
	return paths, nil
}

// dropChunks waits for the changes that are about to use what it removes. Once a
// row is locked, no more rows can begin to refer to it.
func (t *pgTx) dropChunks(hashes []digest.Hash) ([]PathName, error) {
	chunks, err := t.ids("SELECT id FROM chunks WHERE hash = ANY ($1) ORDER BY hash FOR UPDATE", pgHashes(hashes))
	if err != nil || len(chunks) == 0 {
		return nil, err
	}
	blobs, err := t.ids(`SELECT id FROM blobs WHERE id = ANY (ARRAY (SELECT blob FROM blob_chunks WHERE chunk = ANY ($1)))
		ORDER BY hash FOR UPDATE`, chunks)
	if err != nil {
		return nil, err
	}
	var paths []int64
	var found []PathName
	var id int64
	var p PathName
	_, err = t.each("SELECT id, cache, hash, name FROM paths WHERE nar = ANY ($1) ORDER BY hash, cache FOR UPDATE",
		[]any{blobs}, []any{&id, &p.CacheID, &p.Hash, &p.Name}, func() {
			paths, found = append(paths, id), append(found, p)
		})
	if err == nil && len(paths) > 0 {
		err = t.deletePaths(paths)
	}
	if err == nil && len(blobs) > 0 {
		_, err = t.exec("DELETE FROM objects WHERE blob = ANY ($1)", blobs)
	}
	if err == nil && len(blobs) > 0 {
		_, _, err = t.deleteBlobs(blobs)
	}
	if err == nil {
		_, _, err = t.deleteChunks(chunks)
	}
	return found, err
}
