package cas

import (
	"context"
	"errors"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// CheckChunks reads chunks where the index says that they lie, compares each
// with its hash, and returns those that are damaged. Chunks that follow each
// other are best given in that order. An error is no damage: it could not look.
func (s *Store) CheckChunks(ctx context.Context, chunks []index.Location) ([]*DamagedError, error) {
	var found []*DamagedError
	r := packReader{store: s}
	defer r.close()
	var data, scratch []byte
	for i, l := range chunks {
		var err error
		data, err = r.frame(ctx, chunks[i:], data)
		var damage *DamagedError
		switch {
		case errors.As(err, &damage):
			found = append(found, damage)
			continue
		case err != nil:
			return found, err
		}
		if scratch, err = frame.Check(pack.Frame{Chunk: l.Chunk, Data: data}, scratch); err != nil {
			found = append(found, &DamagedError{l.Hash, l.Pack, err})
		}
	}
	return found, nil
}
