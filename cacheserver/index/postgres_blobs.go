package index

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// AddBlob implements Tx.
func (t *pgTx) AddBlob(b Blob, chunks []digest.Chunk, expires time.Time) (Blob, error) {
	added, err := t.addBlob(b, chunks, expires.Unix())
	if err != nil {
		return Blob{}, fmt.Errorf("recording blob %s: %w", b.Digest, err)
	}
	return added, nil
}

func (t *pgTx) addBlob(b Blob, chunks []digest.Chunk, expires int64) (Blob, error) {
	for {
		there, ids, err := t.lockBlob(b, chunks, expires)
		if err != nil {
			return there, err
		}
		if there.ID != 0 {
			return t.fillIn(there, b, chunks)
		}
		added, err := t.one(`WITH b AS (
				INSERT INTO blobs (hash, size, file_hash, file_size, created, expires)
				VALUES ($1, $2, $3, $4, $5, $6)
				ON CONFLICT (hash, size) DO NOTHING RETURNING id
			), c AS (
				INSERT INTO blob_chunks (blob, seq, chunk)
				SELECT b.id, u.n - 1, u.chunk FROM b, unnest($7::bigint[]) WITH ORDINALITY AS u (chunk, n)
			)
			SELECT id FROM b`,
			[]any{b.Hash[:], b.Size, b.FileHash[:], b.FileSize, t.now, expires, ids}, []any{&b.ID})
		if added || err != nil {
			b.Expires = pgTime(expires)
			return b, err
		}
		// Another process has just added it. Its row is there to be locked now,
		// unless it was removed as quickly.
	}
}

// fillIn records what is now known of the file of a blob that is locked.
func (t *pgTx) fillIn(there, b Blob, chunks []digest.Chunk) (Blob, error) {
	if there.FileHash != (digest.Hash{}) || b.FileHash == (digest.Hash{}) {
		return there, nil
	}
	// Another list of chunks makes the same blob, but not the same file.
	own := newChunkList(chunks)
	var c digest.Chunk
	if _, err := t.each("SELECT c.hash, c.size FROM blob_chunks b JOIN chunks c ON c.id = b.chunk WHERE b.blob = $1 ORDER BY b.seq",
		[]any{there.ID}, []any{(*pgHash)(&c.Hash), &c.Size}, func() { own.see(c) }); err != nil || !own.same() {
		return there, err
	}
	there.FileHash, there.FileSize = b.FileHash, b.FileSize
	_, err := t.exec("UPDATE blobs SET file_hash = $2, file_size = $3 WHERE id = $1", there.ID, b.FileHash[:], b.FileSize)
	return there, err
}

// lockBlob extends a blob's life, which keeps it from being removed before this
// change is through, and returns it; or, if there is none, keeps its chunks from
// being removed and returns their IDs in order.
func (t *pgTx) lockBlob(b Blob, chunks []digest.Chunk, expires int64) (there Blob, ids []int64, err error) {
	hashes := make([]digest.Hash, len(chunks))
	for i, c := range chunks {
		hashes[i] = c.Hash
	}
	var locked pgBlob
	var q pgx.Batch
	q.Queue("UPDATE blobs b SET expires = greatest(b.expires, $3) WHERE b.hash = $1 AND b.size = $2 RETURNING "+pgBlobColumns,
		b.Hash[:], b.Size, expires).
		Query(func(rows pgx.Rows) error {
			_, err := pgx.ForEachRow(rows, locked.into(), func() error {
				there = locked.blob()
				return nil
			})
			return err
		})
	stored := lockChunks(&q, hashes)
	if err := t.send(&q); err != nil || there.ID != 0 {
		return there, nil, err
	}
	ids = make([]int64, len(chunks))
	for i, c := range chunks {
		id, ok := stored[c]
		if !ok {
			return there, nil, fmt.Errorf("chunk %d (%s): %w", i, c.Hash, ErrMissingChunks)
		}
		ids[i] = id
	}
	return there, ids, nil
}

// AddBlobs implements Tx. Those that are new take three round trips together.
func (t *pgTx) AddBlobs(blobs []NewBlob, expires time.Time) ([]Blob, error) {
	added := make([]Blob, len(blobs))
	if len(blobs) > 1 {
		if err := t.addTogether(blobs, added, expires.Unix()); err != nil {
			return nil, fmt.Errorf("recording %d blobs: %w", len(blobs), err)
		}
	}
	for i, b := range blobs {
		if added[i].ID != 0 {
			continue
		}
		var err error
		if added[i], err = t.AddBlob(b.Blob, b.Chunks, expires); err != nil {
			return nil, err
		}
	}
	return added, nil
}

// addTogether fills in those of added that need no look at what is there: not one
// that lacks a chunk, whose file becomes known, that is in the list twice or is
// added by another process just now.
func (t *pgTx) addTogether(blobs []NewBlob, added []Blob, expires int64) error {
	fresh := firstPlaces(blobs)
	stored, err := t.lockBlobs(blobs, expires, func(there Blob) {
		i, wanted := fresh[there.Digest]
		if !wanted {
			return // of another size
		}
		delete(fresh, there.Digest)
		if there.FileHash != (digest.Hash{}) || blobs[i].FileHash == (digest.Hash{}) {
			added[i] = there
		}
	})
	if err != nil {
		return err
	}
	whole := slices.DeleteFunc(slices.Collect(maps.Values(fresh)), func(i int) bool {
		return slices.ContainsFunc(blobs[i].Chunks, func(c digest.Chunk) bool { return stored[c] == 0 })
	})
	if len(whole) == 0 {
		return nil
	}
	if err := t.insertBlobs(blobs, whole, added, expires); err != nil {
		return err
	}
	var ids, places, chunks []int64
	for _, i := range whole {
		if added[i].ID == 0 {
			continue
		}
		for n, c := range blobs[i].Chunks {
			ids, places, chunks = append(ids, added[i].ID), append(places, int64(n)), append(chunks, stored[c])
		}
	}
	_, err = t.exec("INSERT INTO blob_chunks (blob, seq, chunk) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[])", ids, places, chunks)
	return err
}

// lockBlobs is lockBlob for many, of which it calls there for each that is there.
// It returns the IDs of all chunks that are.
func (t *pgTx) lockBlobs(blobs []NewBlob, expires int64, there func(Blob)) (map[digest.Chunk]int64, error) {
	hashes, sizes := make([]digest.Hash, len(blobs)), make([]int64, len(blobs))
	var chunks []digest.Hash
	for i, b := range blobs {
		hashes[i], sizes[i] = b.Hash, b.Size
		for _, c := range b.Chunks {
			chunks = append(chunks, c.Hash)
		}
	}
	var q pgx.Batch
	// A pair of arrays would be joined, beginning with the table.
	q.Queue(`UPDATE blobs b SET expires = greatest(b.expires, $3) WHERE b.id = ANY (ARRAY (
			SELECT id FROM blobs WHERE hash = ANY ($1) AND size = ANY ($2) ORDER BY hash, size FOR NO KEY UPDATE
		)) RETURNING `+pgBlobColumns, pgHashes(hashes), sizes, expires).
		Query(func(rows pgx.Rows) error {
			var b pgBlob
			_, err := pgx.ForEachRow(rows, b.into(), func() error {
				there(b.blob())
				return nil
			})
			return err
		})
	stored := lockChunks(&q, chunks)
	return stored, t.send(&q)
}

// insertBlobs adds those of the blobs that are at the places, and not the ones that
// another process adds.
func (t *pgTx) insertBlobs(blobs []NewBlob, places []int, added []Blob, expires int64) error {
	slices.SortFunc(places, func(i, j int) int {
		return cmp.Or(bytes.Compare(blobs[i].Hash[:], blobs[j].Hash[:]), cmp.Compare(blobs[i].Size, blobs[j].Size))
	})
	var hashes, fileHashes [][]byte
	var sizes, fileSizes []int64
	at := make(map[digest.Digest]int, len(places))
	for _, i := range places {
		b := &blobs[i]
		at[b.Digest] = i
		hashes, sizes = append(hashes, b.Hash[:]), append(sizes, b.Size)
		fileHashes, fileSizes = append(fileHashes, b.FileHash[:]), append(fileSizes, b.FileSize)
	}
	var id int64
	var d digest.Digest
	_, err := t.each(`INSERT INTO blobs (hash, size, file_hash, file_size, created, expires)
		SELECT u.hash, u.size, u.file_hash, u.file_size, $5, $6
		FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[]) WITH ORDINALITY AS u (hash, size, file_hash, file_size, n)
		ORDER BY u.n
		ON CONFLICT (hash, size) DO NOTHING RETURNING id, hash, size`,
		[]any{hashes, sizes, fileHashes, fileSizes, t.now, expires}, []any{&id, (*pgHash)(&d.Hash), &d.Size}, func() {
			i := at[d]
			added[i] = blobs[i].Blob
			added[i].ID, added[i].Expires = id, pgTime(expires)
		})
	return err
}

// lockChunks asks for chunks that are to stay until the change is through, and
// returns where their IDs are once q was sent.
func lockChunks(q *pgx.Batch, hashes []digest.Hash) map[digest.Chunk]int64 {
	stored := make(map[digest.Chunk]int64, len(hashes))
	q.Queue("SELECT id, hash, size FROM chunks WHERE hash = ANY ($1) ORDER BY hash FOR KEY SHARE", pgHashes(hashes)).
		Query(func(rows pgx.Rows) error {
			var c digest.Chunk
			var id int64
			_, err := pgx.ForEachRow(rows, []any{&id, (*pgHash)(&c.Hash), &c.Size}, func() error {
				stored[c] = id
				return nil
			})
			return err
		})
	return stored
}
