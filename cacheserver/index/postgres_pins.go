package index

import (
	"fmt"
)

// lockPins waits until no other change adds or removes pins of the cache: what
// its newest revisions are does not change until this change is through.
func (t *pgTx) lockPins(cache int64) error {
	_, err := t.exec("SELECT FROM caches WHERE id = $1 FOR NO KEY UPDATE", cache)
	return err
}

// AddPin implements Tx.
func (t *pgTx) AddPin(p Pin, keep int) error {
	if err := t.addPin(p, max(keep, 1)); err != nil {
		return fmt.Errorf("pinning path %s as %q: %w", p.Hash, p.Name, err)
	}
	return nil
}

func (t *pgTx) addPin(p Pin, keep int) error {
	if err := t.lockPins(p.CacheID); err != nil {
		return err
	}
	// It cannot be removed before this change is through.
	var path int64
	held, err := t.one("SELECT id FROM paths WHERE cache = $1 AND hash = $2 FOR KEY SHARE",
		[]any{p.CacheID, p.Hash}, []any{&path})
	if err == nil && !held {
		err = ErrNotFound
	}
	if err != nil {
		return err
	}
	var expires int64
	if !p.Expires.IsZero() {
		expires = p.Expires.Unix()
	}
	renewed, err := t.exec(`UPDATE pins SET created = $4, expires = $5 WHERE path = $3 AND id = (
			SELECT id FROM pins WHERE cache = $1 AND name = $2 ORDER BY id DESC LIMIT 1)`,
		p.CacheID, p.Name, path, t.now, expires)
	if err == nil && renewed == 0 {
		_, err = t.exec("INSERT INTO pins (cache, name, path, created, expires) VALUES ($1, $2, $3, $4, $5)",
			p.CacheID, p.Name, path, t.now, expires)
	}
	if err != nil {
		return err
	}
	_, err = t.exec(`DELETE FROM pins WHERE id IN (
			SELECT id FROM pins WHERE cache = $1 AND name = $2 ORDER BY id DESC OFFSET $3)`,
		p.CacheID, p.Name, keep)
	return err
}

// RemovePins implements Tx.
func (t *pgTx) RemovePins(cache int64, name, hash string) (int, error) {
	err := t.lockPins(cache)
	n := 0
	if err == nil {
		n, err = t.exec(`DELETE FROM pins WHERE cache = $1 AND name = $2
			AND ($3 = '' OR path = (SELECT id FROM paths WHERE cache = $1 AND hash = $3))`, cache, name, hash)
	}
	if err != nil {
		return 0, fmt.Errorf("removing the pins %q: %w", name, err)
	}
	return n, nil
}
