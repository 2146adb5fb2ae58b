package index

import (
	"fmt"
	"strings"
	"time"
)

// UpdateCache implements NamesTx.
func (t *sqliteTx) UpdateCache(id int64, change func(*Cache) error) error {
	found, err := scanCaches(t.ctx, t.tx, selectCache+" AND id = ?", id)
	return updateCache(id, found, err, change, func(c Cache) error {
		_, err := t.exec("UPDATE caches SET priority = ?, secret_keys = ?, retention = ?, public = ?, upstream_keys = ? WHERE id = ?",
			c.Priority, strings.Join(c.SecretKeys, " "), int64(c.Retention/time.Second), c.Public, strings.Join(c.UpstreamKeys, " "), id)
		return err
	})
}

// RemoveCache implements NamesTx.
func (t *sqliteTx) RemoveCache(id int64) error {
	// Nobody is to sign for it any more.
	if err := changed(t.exec("UPDATE caches SET name = NULL, secret_keys = '' WHERE id = ? AND name IS NOT NULL", id)); err != nil {
		return fmt.Errorf("removing cache %d: %w", id, err)
	}
	return nil
}

// PurgeCaches implements NamesTx.
func (t *sqliteTx) PurgeCaches(limit int) (more bool, err error) {
	if more, err = t.purgeCaches(max(limit, 1)); err != nil {
		return false, fmt.Errorf("removing what removed caches held: %w", err)
	}
	return more, nil
}

func (t *sqliteTx) purgeCaches(left int) (more bool, err error) {
	var removed []int64
	if err := t.each(func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		removed = append(removed, id)
		return err
	}, "SELECT id FROM caches WHERE name IS NULL"); err != nil {
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
func (t *sqliteTx) purgeCache(id int64, limit int) (left int, err error) {
	paths, err := t.paths("paths_by_hash", "cache = ? LIMIT ?", id, limit)
	if err != nil {
		return 0, err
	}
	if err := t.removePaths(paths); err != nil {
		return 0, err
	}
	objects, err := t.exec("DELETE FROM objects WHERE id IN (SELECT id FROM objects WHERE cache = ? LIMIT ?)", id, limit-len(paths))
	if left = limit - len(paths) - objects; left > 0 && err == nil {
		_, err = t.exec("DELETE FROM caches WHERE id = ?", id)
	}
	return left, err
}
