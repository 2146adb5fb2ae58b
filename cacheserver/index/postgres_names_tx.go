package index

import (
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// PutObject implements NamesTx.
func (t *pgTx) PutObject(o Object) error {
	var expires int64
	if !o.Expires.IsZero() {
		expires = o.Expires.Unix()
	}
	err := changed(t.exec(`INSERT INTO objects (cache, name, content_type, blob, used, expires)
		SELECT c.id, $2, $3, b.id, $5, $6 FROM blobs b, caches c
		WHERE b.id = $4 AND c.id = $1 AND c.name IS NOT NULL FOR KEY SHARE
		ON CONFLICT (cache, name) DO UPDATE SET content_type = excluded.content_type, blob = excluded.blob,
			used = greatest(objects.used, excluded.used), expires = excluded.expires`,
		o.CacheID, o.Name, o.ContentType, o.Blob.ID, t.now, expires))
	if err != nil {
		return fmt.Errorf("recording object %q over blob %d in cache %d: %w", o.Name, o.Blob.ID, o.CacheID, err)
	}
	return nil
}

// TouchObject implements NamesTx.
func (t *pgTx) TouchObject(cache int64, name string) error {
	if _, err := t.exec("UPDATE objects SET used = $3 WHERE cache = $1 AND name = $2 AND used < $3", cache, name, t.now); err != nil {
		return fmt.Errorf("noting the use of object %q: %w", name, err)
	}
	return nil
}

// sweepRows deletes rows of a table by a statement that takes the first and the
// last number that it looks at, and args, and returns the size of each.
//
// What it goes by is in the row alone: unlike those that names decide on, a row
// that another change holds is looked at once more when that is through.
func (t *pgTx) sweepRows(table, sql string, from int64, limit int, args ...any) (s Swept, err error) {
	last, next, err := t.step(table, from, limit)
	if err != nil {
		return Swept{}, err
	}
	s.Next = next
	var size int64
	n, err := t.each(sql, append([]any{from, last}, args...), []any{&size}, func() { s.Bytes += size })
	s.Removed = int64(n)
	return s, err
}

// SweepObjects implements NamesTx.
func (t *pgTx) SweepObjects(from int64, limit int, now time.Time, global time.Duration) (Swept, error) {
	s, err := t.sweepRows("objects", `DELETE FROM objects o USING caches c WHERE o.id BETWEEN $1 AND $2 AND c.id = o.cache AND (
			(o.expires <> 0 AND o.expires < $3) OR
			o.used < $3 - nullif(CASE WHEN c.retention < 0 THEN $4 ELSE c.retention END, 0))
		RETURNING (SELECT size FROM blobs b WHERE b.id = o.blob)`, from, limit, now.Unix(), int64(global/time.Second))
	if err != nil {
		return Swept{}, fmt.Errorf("sweeping objects: %w", err)
	}
	return s, nil
}

// PutAction implements NamesTx.
func (t *pgTx) PutAction(a Action) error {
	if _, err := t.exec(`INSERT INTO actions (instance, digest, used, result) VALUES ($1, $2, $3, $4)
		ON CONFLICT (digest, instance) DO UPDATE SET used = greatest(actions.used, excluded.used), result = excluded.result`,
		a.Instance, a.Digest[:], t.now, notNil(a.Result)); err != nil {
		return fmt.Errorf("recording the result of action %s: %w", a.Digest, err)
	}
	return nil
}

// TouchAction implements NamesTx.
func (t *pgTx) TouchAction(instance string, d digest.Hash) error {
	if _, err := t.exec("UPDATE actions SET used = $3 WHERE digest = $1 AND instance = $2 AND used < $3", d[:], instance, t.now); err != nil {
		return fmt.Errorf("noting the use of action %s: %w", d, err)
	}
	return nil
}

// SweepActions implements NamesTx.
func (t *pgTx) SweepActions(from int64, limit int, before time.Time) (Swept, error) {
	s, err := t.sweepRows("actions", "DELETE FROM actions WHERE id BETWEEN $1 AND $2 AND used < $3 RETURNING octet_length(result)",
		from, limit, before.Unix())
	if err != nil {
		return Swept{}, fmt.Errorf("sweeping action results: %w", err)
	}
	return s, nil
}

// PutAlias implements NamesTx.
func (t *pgTx) PutAlias(function string, d digest.Digest, blob int64) error {
	err := changed(t.exec(`INSERT INTO aliases (hash, size, function, blob)
		SELECT $1, $2, $3, b.id FROM blobs b WHERE b.id = $4 FOR KEY SHARE
		ON CONFLICT (hash, size, function) DO UPDATE SET blob = excluded.blob`, d.Hash[:], d.Size, function, blob))
	if err != nil {
		return fmt.Errorf("recording %s %s of blob %d: %w", function, d, blob, err)
	}
	return nil
}

// HoldBlobs implements NamesTx.
func (t *pgTx) HoldBlobs(ids []int64, until time.Time) (int, error) {
	held := 0
	var q pgx.Batch
	q.Queue("UPDATE blobs SET expires = $2 WHERE id = ANY ($1) AND expires < $2", ids, until.Unix())
	q.Queue("SELECT FROM blobs WHERE id = ANY ($1) FOR KEY SHARE", ids).
		Exec(func(tag pgconn.CommandTag) error {
			held = int(tag.RowsAffected())
			return nil
		})
	if err := t.send(&q); err != nil {
		return 0, fmt.Errorf("holding %d blobs: %w", len(ids), err)
	}
	return held, nil
}

// ReleaseBlobs implements NamesTx.
func (t *pgTx) ReleaseBlobs(ids []int64, notAfter time.Time) (int, error) {
	n, err := t.exec("UPDATE blobs SET expires = 0 WHERE id = ANY ($1) AND expires <= $2", ids, notAfter.Unix())
	if err == nil && n > 0 {
		err = t.nextBlobEpoch()
	}
	if err != nil {
		return 0, fmt.Errorf("releasing %d blobs: %w", len(ids), err)
	}
	return n, nil
}

// AddSample implements NamesTx.
func (t *pgTx) AddSample(name string, s Sample, forget time.Time) error {
	var q pgx.Batch
	q.Queue("INSERT INTO samples (name, at, value) VALUES ($1, $2, $3) ON CONFLICT (name, at) DO UPDATE SET value = excluded.value",
		name, s.At.Unix(), s.Value)
	q.Queue("DELETE FROM samples WHERE name = $1 AND at < $2", name, forget.Unix())
	if err := t.send(&q); err != nil {
		return fmt.Errorf("recording a sample of %q: %w", name, err)
	}
	return nil
}
