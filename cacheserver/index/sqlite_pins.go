package index

import (
	"errors"
	"fmt"
)

// AddPin implements Tx.
func (t *sqliteTx) AddPin(p Pin, keep int) error {
	if err := t.addPin(p, keep); err != nil {
		return fmt.Errorf("pinning path %s as %q: %w", p.Hash, p.Name, err)
	}
	return nil
}

func (t *sqliteTx) addPin(p Pin, keep int) error {
	var path int64
	if err := one(t.ctx, t.tx, []any{&path}, "SELECT id FROM paths WHERE cache = ? AND hash = ?", p.CacheID, p.Hash); err != nil {
		return err
	}
	var expires int64
	if !p.Expires.IsZero() {
		expires = p.Expires.Unix()
	}
	var newest, on int64
	err := one(t.ctx, t.tx, []any{&newest, &on}, "SELECT id, path FROM pins WHERE cache = ? AND name = ? ORDER BY id DESC LIMIT 1",
		p.CacheID, p.Name)
	switch {
	case err == nil && on == path:
		_, err = t.exec("UPDATE pins SET created = ?, expires = ? WHERE id = ?", t.now, expires, newest)
	case err == nil || errors.Is(err, ErrNotFound):
		_, err = t.exec("INSERT INTO pins (cache, name, path, created, expires) VALUES (?, ?, ?, ?, ?)",
			p.CacheID, p.Name, path, t.now, expires)
	}
	if err != nil {
		return err
	}
	_, err = t.exec(`DELETE FROM pins WHERE id IN (
		SELECT id FROM pins WHERE cache = ? AND name = ? ORDER BY id DESC LIMIT -1 OFFSET ?)`, p.CacheID, p.Name, max(keep, 1))
	return err
}

// RemovePins implements Tx.
func (t *sqliteTx) RemovePins(cache int64, name, hash string) (int, error) {
	n, err := t.exec(`DELETE FROM pins WHERE cache = ?1 AND name = ?2
		AND (?3 = '' OR path = (SELECT id FROM paths WHERE cache = ?1 AND hash = ?3))`, cache, name, hash)
	if err != nil {
		return 0, fmt.Errorf("removing the pins of %q: %w", name, err)
	}
	return n, nil
}
