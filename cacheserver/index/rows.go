package index

import (
	"fmt"
	"slices"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// chunkList compares a list of chunks with one that comes row by row.
type chunkList struct {
	want    []digest.Chunk
	seen    int
	differs bool
}

func newChunkList(want []digest.Chunk) *chunkList { return &chunkList{want: want} }

func (l *chunkList) see(c digest.Chunk) {
	if l.seen >= len(l.want) || l.want[l.seen] != c {
		l.differs = true
	}
	l.seen++
}

// same is true after the last row if it was the same list.
func (l *chunkList) same() bool { return !l.differs && l.seen == len(l.want) }

// firstPlaces is where each blob of a list stands first.
func firstPlaces(blobs []NewBlob) map[digest.Digest]int {
	at := make(map[digest.Digest]int, len(blobs))
	for i, b := range slices.Backward(blobs) {
		at[b.Digest] = i
	}
	return at
}

// beginHeld is the expiry and the ID that a page of held blobs follows.
func beginHeld(now time.Time, after HeldBlob) (expires, id int64) {
	if expires = after.Expires.Unix(); expires < now.Unix() {
		return now.Unix(), 0
	}
	return expires, after.ID
}

// updateCache records what change makes of the cache that was found, if one was.
func updateCache(id int64, found []Cache, err error, change func(*Cache) error, record func(Cache) error) error {
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	if err == nil {
		if err := change(&found[0]); err != nil {
			return err
		}
		err = record(found[0])
	}
	if err != nil {
		return fmt.Errorf("changing cache %d: %w", id, err)
	}
	return nil
}

// changed is ErrNotFound where a change of one row found none.
func changed(rows int, err error) error {
	if err == nil && rows == 0 {
		return ErrNotFound
	}
	return err
}

// notNil makes an empty value of none at all, which would be NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
