package index

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// AddBlob implements Tx.
func (t *sqliteTx) AddBlob(b Blob, chunks []digest.Chunk, expires time.Time) (Blob, error) {
	b, err := t.addBlob(b, chunks, expires.Unix())
	if err != nil {
		return Blob{}, fmt.Errorf("recording blob %s: %w", b.Digest, err)
	}
	return b, nil
}

func (t *sqliteTx) addBlob(b Blob, chunks []digest.Chunk, expires int64) (Blob, error) {
	there, err := scanBlob(t.ctx, t.tx, selectBlob+" WHERE hash = ? AND size = ?", b.Hash[:], b.Size)
	if err == nil {
		return t.renewBlob(there, b, chunks, expires)
	}
	if !errors.Is(err, ErrNotFound) {
		return b, err
	}
	b.Expires = unixTime(expires)
	if err := one(t.ctx, t.tx, []any{&b.ID}, `INSERT INTO blobs (hash, size, file_hash, file_size, created, expires)
		VALUES (?, ?, ?, ?, ?, ?) RETURNING id`, b.Hash[:], b.Size, b.FileHash[:], b.FileSize, t.now, expires); err != nil {
		return b, err
	}
	list := chunkArray(chunks)
	const found = "chunks c ON c.hash = " + entryHash + " AND c.size = " + entrySize
	added, err := t.exec("INSERT INTO blob_chunks (blob, seq, chunk) SELECT ?, j.key, c.id FROM json_each(?) j CROSS JOIN "+found,
		b.ID, list)
	if err != nil {
		return b, err
	}
	if added == len(chunks) {
		return b, nil
	}
	// The change may go on after this error and must not keep half a blob.
	if err := t.undoBlobs([]int64{b.ID}); err != nil {
		return b, err
	}
	var first int
	if err := one(t.ctx, t.tx, []any{&first},
		"SELECT j.key FROM json_each(?) j LEFT JOIN "+found+" WHERE c.id IS NULL ORDER BY j.key LIMIT 1", list); err != nil {
		return b, err
	}
	return b, fmt.Errorf("%d %w, the first is number %d (%s)", len(chunks)-added, ErrMissingChunks, first, chunks[first].Hash)
}

// renewBlob makes a blob live on that is added again, and fills in what is now
// known of its file.
func (t *sqliteTx) renewBlob(there, b Blob, chunks []digest.Chunk, expires int64) (Blob, error) {
	if there.Expires.Unix() < expires {
		there.Expires = unixTime(expires)
		if _, err := t.exec("UPDATE blobs SET expires = ? WHERE id = ?", expires, there.ID); err != nil {
			return there, err
		}
	}
	if there.FileHash != (digest.Hash{}) || b.FileHash == (digest.Hash{}) {
		return there, nil
	}
	// Another list of chunks makes the same blob, but not the same file.
	own := newChunkList(chunks)
	if err := t.each(func(scan func(...any) error) error {
		var hash []byte
		var size uint32
		err := scan(&hash, &size)
		if err == nil {
			own.see(digest.Chunk{Hash: digest.Hash(hash), Size: size})
		}
		return err
	}, "SELECT c.hash, c.size FROM blob_chunks b JOIN chunks c ON c.id = b.chunk WHERE b.blob = ? ORDER BY b.seq", there.ID); err != nil {
		return there, err
	}
	if !own.same() {
		return there, nil
	}
	there.FileHash, there.FileSize = b.FileHash, b.FileSize
	_, err := t.exec("UPDATE blobs SET file_hash = ?, file_size = ? WHERE id = ?", b.FileHash[:], b.FileSize, there.ID)
	return there, err
}

// AddBlobs implements Tx. Those that are new take as many statements together as
// one takes by itself.
func (t *sqliteTx) AddBlobs(blobs []NewBlob, expires time.Time) ([]Blob, error) {
	added := make([]Blob, len(blobs))
	fresh, err := t.fresh(blobs)
	if err != nil {
		return nil, fmt.Errorf("looking up blobs: %w", err)
	}
	if len(fresh) > 1 {
		if err := t.addFresh(blobs, fresh, added, expires.Unix()); err != nil {
			return nil, fmt.Errorf("recording blobs: %w", err)
		}
	}
	for i, b := range blobs {
		if added[i].ID != 0 {
			continue
		}
		if added[i], err = t.AddBlob(b.Blob, b.Chunks, expires); err != nil {
			return nil, err
		}
	}
	return added, nil
}

// fresh returns the places of the blobs that are not there, each blob's first.
func (t *sqliteTx) fresh(blobs []NewBlob) ([]int, error) {
	if len(blobs) < 2 {
		return nil, nil
	}
	at := firstPlaces(blobs)
	digests := make([]digest.Digest, len(blobs))
	for i, b := range blobs {
		digests[i] = b.Digest
	}
	if err := t.each(func(scan func(...any) error) error {
		var hash []byte
		var d digest.Digest
		err := scan(&hash, &d.Size)
		if err == nil {
			d.Hash = digest.Hash(hash)
			delete(at, d)
		}
		return err
	}, "SELECT b.hash, b.size FROM json_each(?) j CROSS JOIN blobs b ON b.hash = "+entryHash+" AND b.size = "+entrySize,
		digestArray(digests)); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Values(at)), nil
}

// addFresh records blobs that are not there, and leaves none where one lacks a
// chunk.
func (t *sqliteTx) addFresh(blobs []NewBlob, fresh []int, added []Blob, expires int64) error {
	ids, err := t.insertBlobs(blobs, fresh, expires)
	if err != nil {
		return err
	}
	var links []blobLink
	for _, i := range fresh {
		for seq, c := range blobs[i].Chunks {
			links = append(links, blobLink{ids[blobs[i].Digest], seq, c})
		}
	}
	linked, err := t.exec("INSERT INTO blob_chunks (blob, seq, chunk) SELECT "+linkBlob+", "+linkSeq+`, c.id
		FROM json_each(?) j CROSS JOIN chunks c ON c.hash = `+entryHash+" AND c.size = "+entrySize, linkArray(links))
	if err != nil {
		return err
	}
	if linked < len(links) {
		return t.undoBlobs(slices.Collect(maps.Values(ids)))
	}
	for _, i := range fresh {
		added[i] = blobs[i].Blob
		added[i].ID, added[i].Expires = ids[blobs[i].Digest], unixTime(expires)
	}
	return nil
}

func (t *sqliteTx) insertBlobs(blobs []NewBlob, fresh []int, expires int64) (ids map[digest.Digest]int64, err error) {
	list := array(len(fresh), 4*digest.Size+2*entryNumber, func(b []byte, i int) []byte {
		n := blobs[fresh[i]]
		b = fmt.Appendf(hex.AppendEncode(b, n.Hash[:]), "%0*d", entryNumber, n.Size)
		return fmt.Appendf(hex.AppendEncode(b, n.FileHash[:]), "%0*d", entryNumber, n.FileSize)
	})
	ids = make(map[digest.Digest]int64, len(fresh))
	err = t.each(func(scan func(...any) error) error {
		var id int64
		var hash []byte
		var size int64
		err := scan(&id, &hash, &size)
		if err == nil {
			ids[digest.Digest{Hash: digest.Hash(hash), Size: size}] = id
		}
		return err
	}, "INSERT INTO blobs (hash, size, file_hash, file_size, created, expires) SELECT "+entryHash+", "+entrySize+", "+
		blobFileHash+", "+blobFileSize+", ?, ? FROM json_each(?) j RETURNING id, hash, size", t.now, expires, list)
	return ids, err
}

// An entry in an array of blobs has the file's hash and size behind its own, one in
// an array of links a blob's ID and the chunk's place in it behind the chunk.
const (
	blobFileHash = "unhex(substr(j.value, 84, 64))"
	blobFileSize = "CAST(substr(j.value, 148, 19) AS INTEGER)"
	linkBlob     = "CAST(substr(j.value, 84, 19) AS INTEGER)"
	linkSeq      = "CAST(substr(j.value, 103, 19) AS INTEGER)"
)

// blobLink is a chunk's place in a blob.
type blobLink struct {
	blob int64
	seq  int
	digest.Chunk
}

func linkArray(links []blobLink) string {
	return array(len(links), 2*digest.Size+3*entryNumber, func(b []byte, i int) []byte {
		l := links[i]
		return fmt.Appendf(hex.AppendEncode(b, l.Hash[:]), "%0*d%0*d%0*d", entryNumber, l.Size, entryNumber, l.blob, entryNumber, l.seq)
	})
}
