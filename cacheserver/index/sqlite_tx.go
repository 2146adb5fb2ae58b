package index

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

func (x *SQLite) commit(group []*update) {
	results := make([]error, len(group))
	err := x.transact(group, results)
	for i, u := range group {
		if err != nil && results[i] == nil {
			results[i] = fmt.Errorf("writing to the index: %w", explain(u.ctx, err))
		}
		u.done <- results[i]
	}
	x.boundLog()
}

// transact fills in the errors of the changes that were undone by themselves;
// its own error is that of all others.
func (x *SQLite) transact(group []*update, results []error) error {
	// The transaction is everybody's, so nobody's context may end it.
	ctx := context.Background()
	tx, err := x.write.begin(ctx)
	if err != nil {
		return err
	}
	defer func() {
		_ = tx.Rollback()
		tx.through(ctx)
	}()
	if len(group) == 1 {
		return x.transactOne(ctx, tx, group[0], results)
	}
	for i, u := range group {
		if err := u.ctx.Err(); err != nil {
			results[i] = err
			continue
		}
		if _, err := tx.ExecContext(ctx, "SAVEPOINT change"); err != nil {
			return err
		}
		failed := u.change(&sqliteTx{ctx: ctx, tx: tx, now: time.Now().Unix()})
		if failed != nil {
			results[i] = failed
			if _, err := tx.ExecContext(ctx, "ROLLBACK TO change"); err != nil {
				// SQLite answers a full or failing disk by undoing all of the
				// transaction, and this change's error says why.
				return failed
			}
		}
		if _, err := tx.ExecContext(ctx, "RELEASE change"); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// transactOne is transact of a change that shares its transaction with no other: no
// copies are made of what it changes, for undoing it undoes all.
func (x *SQLite) transactOne(ctx context.Context, tx *preparedTx, u *update, results []error) error {
	end := tx.Commit
	results[0] = u.ctx.Err()
	if results[0] == nil {
		results[0] = u.change(&sqliteTx{ctx: ctx, tx: tx, now: time.Now().Unix()})
	}
	if results[0] != nil {
		end = tx.Rollback
	}
	return end()
}

// boundLog empties the log when readers that follow one another without a gap
// have kept it from beginning anew for too long.
func (x *SQLite) boundLog() {
	log, err := os.Stat(x.file + "-wal")
	if err != nil || log.Size() <= x.nextBound {
		return
	}
	// That it fails is no news: the changes are made, and it is tried again.
	_, _ = x.write.Exec(fmt.Sprintf("PRAGMA busy_timeout = %d", logPatience.Milliseconds()))
	var busy bool
	err = x.write.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, new(int), new(int))
	_, _ = x.write.Exec(fmt.Sprintf("PRAGMA busy_timeout = %d", busyTimeout.Milliseconds()))
	x.nextBound = x.maxLog
	if err != nil || busy {
		// A reader outlasts it: the changes to come must not each wait for it.
		x.nextBound = log.Size() + x.maxLog/4
	}
}

// sqliteTx implements Tx.
type sqliteTx struct {
	ctx context.Context
	tx  *preparedTx
	now int64
}

// exec returns how many rows a statement changed.
func (t *sqliteTx) exec(query string, args ...any) (int, error) {
	res, err := t.tx.ExecContext(t.ctx, query, args...)
	if err != nil {
		return 0, explain(t.ctx, err)
	}
	n, err := res.RowsAffected()
	return int(n), err
}

func (t *sqliteTx) each(row func(scan func(...any) error) error, query string, args ...any) error {
	return each(t.ctx, t.tx, row, query, args...)
}

// AddPack implements Tx.
func (t *sqliteTx) AddPack(name string, size int64, entries []pack.Entry) error {
	if err := t.addPack(name, size, entries); err != nil {
		return fmt.Errorf("recording pack %s: %w", name, err)
	}
	return nil
}

func (t *sqliteTx) addPack(name string, size int64, entries []pack.Entry) error {
	var frames int64
	for _, e := range entries {
		frames += int64(e.Length)
	}
	var id int64
	err := one(t.ctx, t.tx, []any{&id},
		"INSERT INTO packs (name, size, created) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING RETURNING id", name, size, t.now)
	if errors.Is(err, ErrNotFound) {
		return ErrExists
	}
	if err != nil {
		return err
	}
	if _, err := t.exec(`INSERT INTO chunks (hash, size, pack, offset, length, touched)
		SELECT `+entryHash+", "+entrySize+", ?, "+entryOffset+", "+entryLength+`, ?
		FROM json_each(?) j WHERE true ON CONFLICT (hash) DO NOTHING`, id, t.now, entryArray(onlyChunks(entries))); err != nil {
		return err
	}
	_, err = t.exec("UPDATE packs SET dead = ? - (SELECT coalesce(sum(length), 0) FROM chunks WHERE pack = packs.id) WHERE id = ?",
		frames, id)
	return err
}

func onlyChunks(entries []pack.Entry) []pack.Entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e pack.Entry) bool { return e.Kind != pack.KindChunk })
}

// An entry in an array is the hash in hexadecimal digits and three numbers of
// entryNumber digits.
const (
	entryNumber = 19
	entryHash   = "unhex(substr(j.value, 1, 64))"
	entrySize   = "CAST(substr(j.value, 65, 19) AS INTEGER)"
	entryOffset = "CAST(substr(j.value, 84, 19) AS INTEGER)"
	entryLength = "CAST(substr(j.value, 103, 19) AS INTEGER)"
)

func entryArray(entries []pack.Entry) string {
	return array(len(entries), 2*digest.Size+3*entryNumber, func(b []byte, i int) []byte {
		e := entries[i]
		return fmt.Appendf(hex.AppendEncode(b, e.Hash[:]), "%0*d%0*d%0*d",
			entryNumber, e.Size, entryNumber, e.Offset, entryNumber, e.Length)
	})
}

// chunkArray writes the beginnings of entries.
func chunkArray(chunks []digest.Chunk) string {
	return array(len(chunks), 2*digest.Size+entryNumber, func(b []byte, i int) []byte {
		return fmt.Appendf(hex.AppendEncode(b, chunks[i].Hash[:]), "%0*d", entryNumber, chunks[i].Size)
	})
}

// pathHash is the hash of a path's base name.
func pathHash(base string) string { return base[:min(32, len(base))] }

// PutPath implements Tx.
func (t *sqliteTx) PutPath(p Path) (absent []string, err error) {
	if absent, err = t.putPath(p); err != nil {
		return nil, fmt.Errorf("recording path %s-%s: %w", p.Hash, p.Name, err)
	}
	return absent, nil
}

func (t *sqliteTx) putPath(p Path) (absent []string, err error) {
	if err := t.nameable(p.CacheID, p.NAR.ID); err != nil {
		return nil, err
	}
	before, err := t.paths("paths_by_hash", "cache = ? AND hash = ?", p.CacheID, p.Hash)
	if err != nil {
		return nil, err
	}
	if err := t.removeReferences(before); err != nil {
		return nil, err
	}
	var id int64
	if err := one(t.ctx, t.tx, []any{&id},
		`INSERT INTO paths (cache, hash, name, nar, refs, deriver, signatures, ca, pushed_by, build_time, created, used)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (cache, hash) DO UPDATE SET name = excluded.name, nar = excluded.nar, refs = excluded.refs,
			deriver = excluded.deriver, signatures = excluded.signatures, ca = excluded.ca,
			pushed_by = excluded.pushed_by, build_time = coalesce(nullif(excluded.build_time, 0), build_time), used = max(used, excluded.used)
		RETURNING id`,
		p.CacheID, p.Hash, p.Name, p.NAR.ID, strings.Join(p.References, " "), p.Deriver,
		strings.Join(p.Signatures, " "), p.CA, p.PushedBy, int64(p.BuildTime), t.now, t.now); err != nil {
		return nil, err
	}
	var refs []string
	for _, ref := range p.References {
		if h := pathHash(ref); h != p.Hash {
			refs = append(refs, h)
		}
	}
	if len(refs) == 0 {
		return nil, nil
	}
	list := textArray(refs)
	if _, err := t.exec("INSERT OR IGNORE INTO referrers (cache, hash, path) SELECT ?, value, ? FROM json_each(?)",
		p.CacheID, id, list); err != nil {
		return nil, err
	}
	held, err := t.held(p.CacheID, refs)
	if err != nil {
		return nil, err
	}
	for _, ref := range p.References {
		if h := pathHash(ref); h != p.Hash && !held[h] {
			absent = append(absent, ref)
		}
	}
	return absent, nil
}

// held returns those of the hashes that are the cache's paths.
func (t *sqliteTx) held(cache int64, hashes []string) (map[string]bool, error) {
	held := map[string]bool{}
	err := t.each(func(scan func(...any) error) error {
		var hash string
		err := scan(&hash)
		held[hash] = true
		return err
	}, "SELECT hash FROM paths INDEXED BY paths_by_hash WHERE cache = ? AND hash IN (SELECT value FROM json_each(?))", cache, textArray(hashes))
	return held, err
}

// AddCache implements Tx.
func (t *sqliteTx) AddCache(c Cache) (int64, error) {
	var id int64
	err := one(t.ctx, t.tx, []any{&id}, `INSERT INTO caches (name, store_dir, priority, secret_keys, retention, public, upstream_keys, created)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING RETURNING id`,
		c.Name, c.StoreDir, c.Priority, strings.Join(c.SecretKeys, " "), int64(c.Retention/time.Second), c.Public,
		strings.Join(c.UpstreamKeys, " "), t.now)
	if errors.Is(err, ErrNotFound) {
		err = ErrExists
	}
	if err != nil {
		return 0, fmt.Errorf("recording cache %q: %w", c.Name, err)
	}
	return id, nil
}

// SetRetention implements Tx.
func (t *sqliteTx) SetRetention(cache int64, retention time.Duration) error {
	err := changed(t.exec("UPDATE caches SET retention = ? WHERE id = ? AND name IS NOT NULL", int64(retention/time.Second), cache))
	if err != nil {
		return fmt.Errorf("setting the retention of cache %d: %w", cache, err)
	}
	return nil
}

// TouchChunks implements Tx.
func (t *sqliteTx) TouchChunks(chunks []digest.Hash) error {
	if _, err := t.exec("UPDATE chunks SET touched = ?1 WHERE touched < ?1 AND hash IN (SELECT unhex(value) FROM json_each(?2))",
		t.now, hashArray(chunks)); err != nil {
		return fmt.Errorf("noting the use of %d chunks: %w", len(chunks), err)
	}
	return nil
}

// TouchPaths implements Tx.
func (t *sqliteTx) TouchPaths(cache int64, hashes []string) error {
	if _, err := t.exec("UPDATE paths INDEXED BY paths_by_hash SET used = ?1 WHERE used < ?1 AND cache = ?2 AND hash IN (SELECT value FROM json_each(?3))",
		t.now, cache, textArray(hashes)); err != nil {
		return fmt.Errorf("noting the use of %d paths: %w", len(hashes), err)
	}
	return nil
}

// TouchNAR implements Tx.
func (t *sqliteTx) TouchNAR(cache int64, narHash digest.Hash) error {
	if _, err := t.exec("UPDATE paths INDEXED BY paths_by_nar SET used = ?1 WHERE used < ?1 AND cache = ?2 AND nar IN (SELECT id FROM blobs WHERE hash = ?3)",
		t.now, cache, narHash[:]); err != nil {
		return fmt.Errorf("noting the use of NAR %s: %w", narHash.Nix(), err)
	}
	return nil
}
