package index

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

func numberArray(numbers []int64) string {
	b, _ := json.Marshal(numbers) // numbers never fail
	return string(b)
}

// storedPath is a path as its removal needs it.
type storedPath struct {
	id int64
	PathName
	refs []string // hashes, but for its own
}

// paths returns the paths for which a condition holds, found by an index: the
// planner, which does not know how many are asked for, may take a worse one.
func (t *sqliteTx) paths(index, where string, args ...any) ([]storedPath, error) {
	var found []storedPath
	err := t.each(func(scan func(...any) error) error {
		var p storedPath
		var refs string
		if err := scan(&p.id, &p.CacheID, &p.Hash, &p.Name, &refs); err != nil {
			return err
		}
		for ref := range strings.FieldsSeq(refs) {
			if h := pathHash(ref); h != p.Hash {
				p.refs = append(p.refs, h)
			}
		}
		found = append(found, p)
		return nil
	}, "SELECT id, cache, hash, name, refs FROM paths INDEXED BY "+index+" WHERE "+where, args...)
	return found, err
}

// removePaths removes paths with their pins.
func (t *sqliteTx) removePaths(paths []storedPath) error {
	if len(paths) == 0 {
		return nil
	}
	if err := t.removeReferences(paths); err != nil {
		return err
	}
	ids := make([]int64, len(paths))
	for i, p := range paths {
		ids[i] = p.id
	}
	list := numberArray(ids)
	if _, err := t.exec("DELETE FROM pins WHERE path IN (SELECT value FROM json_each(?))", list); err != nil {
		return err
	}
	_, err := t.exec("DELETE FROM paths WHERE id IN (SELECT value FROM json_each(?))", list)
	return err
}

// removeReferences forgets what the paths refer to.
func (t *sqliteTx) removeReferences(paths []storedPath) error {
	var rows [][3]any
	for _, p := range paths {
		for _, h := range p.refs {
			rows = append(rows, [3]any{p.CacheID, h, p.id})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	list, err := json.Marshal(rows)
	if err != nil {
		return err
	}
	_, err = t.exec(`DELETE FROM referrers WHERE (cache, hash, path) IN (
		SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))`, string(list))
	return err
}

// RemoveUnused implements Removal.
func (t *sqliteTx) RemoveUnused(cache int64, hashes []string, before time.Time) (removed, references []string, err error) {
	paths, err := t.paths("paths_by_hash", `cache = ?1 AND hash IN (SELECT value FROM json_each(?2)) AND used < ?3
		AND NOT EXISTS (SELECT 1 FROM referrers r WHERE r.cache = paths.cache AND r.hash = paths.hash)
		AND NOT EXISTS (SELECT 1 FROM pins i WHERE i.path = paths.id AND (i.expires = 0 OR i.expires >= ?4))`,
		cache, textArray(hashes), before.Unix(), t.now)
	if err == nil {
		err = t.removePaths(paths)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("removing unused paths: %w", err)
	}
	for _, p := range paths {
		removed = append(removed, p.Hash)
		references = append(references, p.refs...)
	}
	held, err := t.held(cache, references)
	if err != nil {
		return nil, nil, fmt.Errorf("looking for what the removed paths referred to: %w", err)
	}
	slices.Sort(references)
	references = slices.DeleteFunc(slices.Compact(references), func(h string) bool { return !held[h] })
	return removed, references, nil
}

// RemovePaths implements Removal.
func (t *sqliteTx) RemovePaths(cache int64, hashes []string) (int, error) {
	paths, err := t.paths("paths_by_hash", "cache = ? AND hash IN (SELECT value FROM json_each(?))", cache, textArray(hashes))
	if err == nil {
		err = t.removePaths(paths)
	}
	if err != nil {
		return 0, fmt.Errorf("removing paths: %w", err)
	}
	return len(paths), nil
}

// removeBlobs removes blobs, over which there are no names any more.
func (t *sqliteTx) removeBlobs(ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	if err := t.undoBlobs(ids); err != nil {
		return err
	}
	return t.nextBlobEpoch()
}

// undoBlobs is removeBlobs for blobs that nobody can have seen: what others were seen
// to be stays true.
func (t *sqliteTx) undoBlobs(ids []int64) error {
	list := numberArray(ids)
	for _, from := range []string{"blob_chunks WHERE blob", "aliases WHERE blob", "blobs WHERE id"} {
		if _, err := t.exec("DELETE FROM "+from+" IN (SELECT value FROM json_each(?))", list); err != nil {
			return err
		}
	}
	return nil
}

// nextBlobEpoch ends what readers may count on of the blobs that they found.
func (t *sqliteTx) nextBlobEpoch() error {
	_, err := t.exec("UPDATE blob_epoch SET epoch = epoch + 1")
	return err
}

// next is where a sweep goes on that has seen some rows up to one.
func next(seen, limit int, last int64) int64 {
	if seen < limit {
		return 0
	}
	return last + 1
}

// SweepBlobs implements Removal.
func (t *sqliteTx) SweepBlobs(from int64, limit int, now time.Time) (Swept, error) {
	limit = max(limit, 1)
	var s Swept
	var seen int
	var last int64
	var ids []int64
	err := t.each(func(scan func(...any) error) error {
		var size int64
		var unneeded bool
		if err := scan(&last, &size, &unneeded); err != nil {
			return err
		}
		seen++
		if unneeded {
			ids = append(ids, last)
			s.Bytes += size
		}
		return nil
	}, `SELECT id, size, expires < ? AND NOT EXISTS (SELECT 1 FROM paths WHERE nar = blobs.id)
			AND NOT EXISTS (SELECT 1 FROM objects WHERE blob = blobs.id)
		FROM blobs WHERE id >= ? ORDER BY id LIMIT ?`, now.Unix(), from, limit)
	if err == nil {
		err = t.removeBlobs(ids)
	}
	if err != nil {
		return Swept{}, fmt.Errorf("sweeping blobs: %w", err)
	}
	s.Next, s.Removed = next(seen, limit, last), int64(len(ids))
	return s, nil
}

// storedChunk is a chunk as its removal needs it.
type storedChunk struct{ id, pack, length int64 }

// removeChunks removes chunks that no blob has, and counts their frames as dead.
func (t *sqliteTx) removeChunks(chunks []storedChunk) error {
	if len(chunks) == 0 {
		return nil
	}
	ids := make([]int64, len(chunks))
	dead := map[int64]int64{}
	for i, c := range chunks {
		ids[i] = c.id
		dead[c.pack] += c.length
	}
	if _, err := t.exec("DELETE FROM chunks WHERE id IN (SELECT value FROM json_each(?))", numberArray(ids)); err != nil {
		return err
	}
	return t.addDead(dead)
}

// addDead adds to the dead bytes of packs, or takes away from them.
func (t *sqliteTx) addDead(bytes map[int64]int64) error {
	for id, n := range bytes {
		if _, err := t.exec("UPDATE packs SET dead = dead + ? WHERE id = ?", n, id); err != nil {
			return err
		}
	}
	return nil
}

// SweepChunks implements Removal.
func (t *sqliteTx) SweepChunks(from int64, limit int, before time.Time) (Swept, error) {
	limit = max(limit, 1)
	var s Swept
	var seen int
	var last int64
	var unneeded []storedChunk
	err := t.each(func(scan func(...any) error) error {
		var c storedChunk
		var remove bool
		if err := scan(&c.id, &c.pack, &c.length, &remove); err != nil {
			return err
		}
		seen++
		last = c.id
		if remove {
			unneeded = append(unneeded, c)
			s.Bytes += c.length
		}
		return nil
	}, `SELECT id, pack, length, touched < ? AND NOT EXISTS (SELECT 1 FROM blob_chunks WHERE chunk = chunks.id)
		FROM chunks WHERE id >= ? ORDER BY id LIMIT ?`, before.Unix(), from, limit)
	if err == nil {
		err = t.removeChunks(unneeded)
	}
	if err != nil {
		return Swept{}, fmt.Errorf("sweeping chunks: %w", err)
	}
	s.Next, s.Removed = next(seen, limit, last), int64(len(unneeded))
	return s, nil
}

// MoveChunks implements Removal.
func (t *sqliteTx) MoveChunks(to string, entries []pack.Entry, from []string) (int, error) {
	n, err := t.moveChunks(to, entries, from)
	if err != nil {
		return 0, fmt.Errorf("moving chunks to pack %s: %w", to, err)
	}
	return n, nil
}

func (t *sqliteTx) moveChunks(to string, entries []pack.Entry, from []string) (int, error) {
	var id int64
	if err := one(t.ctx, t.tx, []any{&id}, "SELECT id FROM packs WHERE name = ?", to); err != nil {
		return 0, err
	}
	entries = onlyChunks(entries)
	moves := map[int64]pack.Entry{} // by the chunk
	dead := map[int64]int64{}
	if err := t.each(func(scan func(...any) error) error {
		var entry int
		var c storedChunk
		if err := scan(&entry, &c.id, &c.pack, &c.length); err != nil {
			return err
		}
		if _, twice := moves[c.id]; twice {
			return nil
		}
		moves[c.id] = entries[entry]
		dead[c.pack] += c.length
		dead[id] -= int64(entries[entry].Length)
		return nil
	}, "SELECT j.key, c.id, c.pack, c.length FROM json_each(?) j CROSS JOIN chunks c ON c.hash = "+entryHash+" AND c.size = "+entrySize+`
		WHERE c.pack <> ? AND c.pack IN (SELECT id FROM packs WHERE name IN (SELECT value FROM json_each(?)))`,
		entryArray(entries), id, textArray(from)); err != nil {
		return 0, err
	}
	rows := make([][3]int64, 0, len(moves))
	for chunk, e := range moves {
		rows = append(rows, [3]int64{chunk, e.Offset, int64(e.Length)})
	}
	list, err := json.Marshal(rows)
	if err != nil {
		return 0, err
	}
	if _, err := t.exec(`UPDATE chunks SET pack = ?, offset = to_.value ->> 1, length = to_.value ->> 2
		FROM json_each(?) to_ WHERE chunks.id = to_.value ->> 0`, id, string(list)); err != nil {
		return 0, err
	}
	return len(moves), t.addDead(dead)
}

// DropPacks implements Removal.
func (t *sqliteTx) DropPacks(names []string) ([]string, error) {
	var dropped []string
	err := t.each(func(scan func(...any) error) error {
		var name string
		err := scan(&name)
		dropped = append(dropped, name)
		return err
	}, `DELETE FROM packs WHERE name IN (SELECT value FROM json_each(?))
		AND NOT EXISTS (SELECT 1 FROM chunks WHERE pack = packs.id) RETURNING name`, textArray(names))
	if err != nil {
		return nil, fmt.Errorf("dropping packs: %w", err)
	}
	return dropped, nil
}

// DropChunks implements Removal.
func (t *sqliteTx) DropChunks(chunks []digest.Hash) ([]PathName, error) {
	names, err := t.dropChunks(hashArray(chunks))
	if err != nil {
		return nil, fmt.Errorf("dropping %d chunks: %w", len(chunks), err)
	}
	return names, nil
}

func (t *sqliteTx) dropChunks(list string) ([]PathName, error) {
	var lost []storedChunk
	if err := t.each(func(scan func(...any) error) error {
		var c storedChunk
		err := scan(&c.id, &c.pack, &c.length)
		lost = append(lost, c)
		return err
	}, "SELECT id, pack, length FROM chunks WHERE hash IN (SELECT unhex(value) FROM json_each(?))", list); err != nil {
		return nil, err
	}
	ids := make([]int64, len(lost))
	for i, c := range lost {
		ids[i] = c.id
	}
	var blobs []int64
	if err := t.each(func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		blobs = append(blobs, id)
		return err
	}, "SELECT DISTINCT blob FROM blob_chunks WHERE chunk IN (SELECT value FROM json_each(?))", numberArray(ids)); err != nil {
		return nil, err
	}
	paths, err := t.paths("paths_by_nar", "nar IN (SELECT value FROM json_each(?))", numberArray(blobs))
	if err != nil {
		return nil, err
	}
	if err := t.removePaths(paths); err != nil {
		return nil, err
	}
	if _, err := t.exec("DELETE FROM objects WHERE blob IN (SELECT value FROM json_each(?))", numberArray(blobs)); err != nil {
		return nil, err
	}
	if err := t.removeBlobs(blobs); err != nil {
		return nil, err
	}
	var names []PathName
	for _, p := range paths {
		names = append(names, p.PathName)
	}
	return names, t.removeChunks(lost)
}
