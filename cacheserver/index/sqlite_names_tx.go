package index

import (
	"fmt"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// nameable is ErrNotFound where there is no such cache or no such blob, to be
// named in it.
func (t *sqliteTx) nameable(cache, blob int64) error {
	var there int
	err := one(t.ctx, t.tx, []any{&there}, `SELECT 1 FROM blobs JOIN caches
		WHERE blobs.id = ? AND caches.id = ? AND caches.name IS NOT NULL`, blob, cache)
	if err != nil {
		return fmt.Errorf("cache %d or blob %d: %w", cache, blob, err)
	}
	return nil
}

// PutObject implements NamesTx.
func (t *sqliteTx) PutObject(o Object) error {
	var expires int64
	if !o.Expires.IsZero() {
		expires = o.Expires.Unix()
	}
	err := t.nameable(o.CacheID, o.Blob.ID)
	if err == nil {
		_, err = t.exec(`INSERT INTO objects (cache, name, content_type, blob, used, expires) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (cache, name) DO UPDATE SET content_type = excluded.content_type, blob = excluded.blob,
				used = max(used, excluded.used), expires = excluded.expires`,
			o.CacheID, o.Name, o.ContentType, o.Blob.ID, t.now, expires)
	}
	if err != nil {
		return fmt.Errorf("recording object %q: %w", o.Name, err)
	}
	return nil
}

// TouchObject implements NamesTx.
func (t *sqliteTx) TouchObject(cache int64, name string) error {
	if _, err := t.exec("UPDATE objects SET used = ?1 WHERE cache = ?2 AND name = ?3 AND used < ?1", t.now, cache, name); err != nil {
		return fmt.Errorf("noting the use of object %q: %w", name, err)
	}
	return nil
}

// sweepRows looks at rows of id, size and whether to remove it, and returns the
// ids of those to remove.
func (t *sqliteTx) sweepRows(limit int, query string, args ...any) (ids []int64, s Swept, err error) {
	seen := 0
	var last int64
	err = t.each(func(scan func(...any) error) error {
		var size int64
		var remove bool
		if err := scan(&last, &size, &remove); err != nil {
			return err
		}
		seen++
		if remove {
			ids = append(ids, last)
			s.Bytes += size
		}
		return nil
	}, query, args...)
	s.Next, s.Removed = next(seen, limit, last), int64(len(ids))
	return ids, s, err
}

// SweepObjects implements NamesTx.
func (t *sqliteTx) SweepObjects(from int64, limit int, now time.Time, global time.Duration) (Swept, error) {
	limit = max(limit, 1)
	ids, s, err := t.sweepRows(limit, `SELECT id, size, (expires <> 0 AND expires < ?1) OR (keep <> 0 AND used < ?1 - keep) FROM (
			SELECT o.id, o.used, o.expires, b.size, iif(c.retention < 0, ?2, c.retention) keep
			FROM objects o CROSS JOIN caches c ON c.id = o.cache CROSS JOIN blobs b ON b.id = o.blob
			WHERE o.id >= ?3 ORDER BY o.id LIMIT ?4)`, now.Unix(), int64(global/time.Second), from, limit)
	if err == nil {
		_, err = t.exec("DELETE FROM objects WHERE id IN (SELECT value FROM json_each(?))", numberArray(ids))
	}
	if err != nil {
		return Swept{}, fmt.Errorf("sweeping objects: %w", err)
	}
	return s, nil
}

// PutAction implements NamesTx.
func (t *sqliteTx) PutAction(a Action) error {
	if _, err := t.exec(`INSERT INTO actions (instance, digest, used, result) VALUES (?, ?, ?, ?)
		ON CONFLICT (digest, instance) DO UPDATE SET used = max(used, excluded.used), result = excluded.result`,
		a.Instance, a.Digest[:], t.now, notNil(a.Result)); err != nil {
		return fmt.Errorf("recording the result of action %s: %w", a.Digest, err)
	}
	return nil
}

// TouchAction implements NamesTx.
func (t *sqliteTx) TouchAction(instance string, d digest.Hash) error {
	if _, err := t.exec("UPDATE actions SET used = ?1 WHERE digest = ?2 AND instance = ?3 AND used < ?1", t.now, d[:], instance); err != nil {
		return fmt.Errorf("noting the use of action %s: %w", d, err)
	}
	return nil
}

// SweepActions implements NamesTx.
func (t *sqliteTx) SweepActions(from int64, limit int, before time.Time) (Swept, error) {
	limit = max(limit, 1)
	ids, s, err := t.sweepRows(limit, "SELECT id, length(result), used < ? FROM actions WHERE id >= ? ORDER BY id LIMIT ?",
		before.Unix(), from, limit)
	if err == nil {
		_, err = t.exec("DELETE FROM actions WHERE id IN (SELECT value FROM json_each(?))", numberArray(ids))
	}
	if err != nil {
		return Swept{}, fmt.Errorf("sweeping action results: %w", err)
	}
	return s, nil
}

// PutAlias implements NamesTx.
func (t *sqliteTx) PutAlias(function string, d digest.Digest, blob int64) error {
	err := changed(t.exec(`INSERT INTO aliases (hash, size, function, blob) SELECT ?, ?, ?, id FROM blobs WHERE id = ?
		ON CONFLICT (hash, size, function) DO UPDATE SET blob = excluded.blob`, d.Hash[:], d.Size, function, blob))
	if err != nil {
		return fmt.Errorf("recording %s %s of blob %d: %w", function, d, blob, err)
	}
	return nil
}

// HoldBlobs implements NamesTx.
func (t *sqliteTx) HoldBlobs(ids []int64, until time.Time) (int, error) {
	list := numberArray(ids)
	_, err := t.exec("UPDATE blobs SET expires = ?1 WHERE expires < ?1 AND id IN (SELECT value FROM json_each(?2))", until.Unix(), list)
	held := 0
	if err == nil {
		err = one(t.ctx, t.tx, []any{&held}, "SELECT count(*) FROM blobs WHERE id IN (SELECT value FROM json_each(?))", list)
	}
	if err != nil {
		return 0, fmt.Errorf("holding %d blobs: %w", len(ids), err)
	}
	return held, nil
}

// ReleaseBlobs implements NamesTx.
func (t *sqliteTx) ReleaseBlobs(ids []int64, notAfter time.Time) (int, error) {
	n, err := t.exec("UPDATE blobs SET expires = 0 WHERE expires <= ? AND id IN (SELECT value FROM json_each(?))",
		notAfter.Unix(), numberArray(ids))
	if err == nil && n > 0 {
		err = t.nextBlobEpoch()
	}
	if err != nil {
		return 0, fmt.Errorf("releasing %d blobs: %w", len(ids), err)
	}
	return n, nil
}

// AddSample implements NamesTx.
func (t *sqliteTx) AddSample(name string, s Sample, forget time.Time) error {
	_, err := t.exec("INSERT INTO samples (name, at, value) VALUES (?, ?, ?) ON CONFLICT (name, at) DO UPDATE SET value = excluded.value",
		name, s.At.Unix(), s.Value)
	if err == nil {
		_, err = t.exec("DELETE FROM samples WHERE name = ? AND at < ?", name, forget.Unix())
	}
	if err != nil {
		return fmt.Errorf("recording a sample of %q: %w", name, err)
	}
	return nil
}
