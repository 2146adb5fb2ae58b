package index

import (
	"fmt"
	"time"
)

// UpdateCache implements NamesTx.
func (t *pgTx) UpdateCache(id int64, change func(*Cache) error) error {
	var row pgCache
	var found []Cache
	_, err := t.each(pgSelectCache+" AND id = $1 FOR NO KEY UPDATE", []any{id}, row.into(), func() { found = append(found, row.cache()) })
	return updateCache(id, found, err, change, func(c Cache) error {
		_, err := t.exec("UPDATE caches SET priority = $2, secret_keys = $3, retention = $4, public = $5, upstream_keys = $6 WHERE id = $1",
			id, c.Priority, notNull(c.SecretKeys), int64(c.Retention/time.Second), c.Public, notNull(c.UpstreamKeys))
		return err
	})
}

// RemoveCache implements NamesTx. It waits for the changes that put something
// into the cache, as they hold its row; those to come see that it is gone.
func (t *pgTx) RemoveCache(id int64) error {
	// Nobody is to sign for it any more.
	if err := changed(t.exec("UPDATE caches SET name = NULL, secret_keys = '{}' WHERE id = $1 AND name IS NOT NULL", id)); err != nil {
		return fmt.Errorf("removing cache %d: %w", id, err)
	}
	return nil
}

// PurgeCaches implements NamesTx.
func (t *pgTx) PurgeCaches(limit int) (more bool, err error) {
	if more, err = t.purgeCaches(max(limit, 1)); err != nil {
		return false, fmt.Errorf("removing what removed caches held: %w", err)
	}
	return more, nil
}

func (t *pgTx) purgeCaches(left int) (more bool, err error) {
	removed, err := t.ids("SELECT id FROM caches WHERE name IS NULL")
	if err != nil {
		return false, err
	}
	for _, id := range removed {
		if left, err = t.purgeCache(id, left); left == 0 || err != nil {
			return true, err
		}
	}
	return false, nil
}

// purgeCache removes at most limit things of a cache, and returns how many more
// may be removed: none as long as the cache may hold something.
func (t *pgTx) purgeCache(id int64, limit int) (left int, err error) {
	paths, err := t.ids("SELECT id FROM paths WHERE cache + 0 = $1 LIMIT $2 FOR UPDATE", id, limit)
	if err == nil && len(paths) > 0 {
		err = t.deletePaths(paths)
	}
	if left = limit - len(paths); left == 0 || err != nil {
		return 0, err
	}
	objects, err := t.ids("SELECT id FROM objects WHERE cache + 0 = $1 LIMIT $2 FOR UPDATE", id, left)
	if err == nil && len(objects) > 0 {
		_, err = t.exec("DELETE FROM objects WHERE id = ANY ($1)", objects)
	}
	if left -= len(objects); left > 0 && err == nil {
		_, err = t.exec("DELETE FROM caches WHERE id = $1", id)
	}
	return left, err
}
