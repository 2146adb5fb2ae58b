package bazelcache

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// findStep is how many blobs are looked up at once, so that the length of a
// client's list does not decide how much memory it takes.
const findStep = 4096

// find returns those of the blobs that are stored, by the digest that was asked
// for. The empty blob is never among them.
func (d *Door) find(ctx context.Context, fn function, digests []digest.Digest) (map[digest.Digest]index.Blob, error) {
	found := make(map[digest.Digest]index.Blob, len(digests))
	for part := range slices.Chunk(digests, findStep) {
		for _, f := range fn.names() {
			if err := d.findStep(ctx, f, part, found); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

func (d *Door) findStep(ctx context.Context, fn function, digests []digest.Digest, found map[digest.Digest]index.Blob) error {
	var open []digest.Digest
	for _, want := range digests {
		if _, ok := found[want]; !ok && want.Size > 0 {
			open = append(open, want)
		}
	}
	if len(open) == 0 {
		return nil
	}
	if fn == functionSHA256 {
		blobs, err := d.index.Blobs(ctx, open)
		if err != nil {
			return err
		}
		for want, b := range blobs {
			found[want] = b
		}
		return nil
	}
	blobs, err := d.index.Aliases(ctx, aliasBLAKE3, withoutSize(open))
	if err != nil {
		return err
	}
	for _, want := range open {
		if b, ok := blobs[digest.Digest{Hash: want.Hash}]; ok && b.Size == want.Size {
			found[want] = b
		}
	}
	return nil
}

func withoutSize(digests []digest.Digest) []digest.Digest {
	out := make([]digest.Digest, len(digests))
	for i, d := range digests {
		out[i].Hash = d.Hash
	}
	return out
}

// findOne returns a blob that is to be read, or errNotFound.
func (d *Door) findOne(ctx context.Context, fn function, want digest.Digest) (index.Blob, error) {
	found, err := d.findKnown(ctx, fn, []digest.Digest{want})
	if err != nil {
		return index.Blob{}, err
	}
	b, ok := found[want]
	if !ok {
		return index.Blob{}, fmt.Errorf("%w: blob %s", errNotFound, want)
	}
	return b, nil
}

// findHash returns the blob whose SHA-256 or BLAKE3 that is, or errNotFound: of
// those that are one chunk, every one; of the others, those that came through
// this door.
func (d *Door) findHash(ctx context.Context, h digest.Hash) (index.Blob, error) {
	located, err := d.index.Locate(ctx, []digest.Hash{h})
	if err != nil {
		return index.Blob{}, err
	}
	if len(located) == 1 {
		b, err := d.findOne(ctx, functionSHA256, digest.Digest{Hash: h, Size: int64(located[0].Size)})
		if !errors.Is(err, errNotFound) {
			return b, err
		}
	}
	bare := digest.Digest{Hash: h}
	for _, name := range []string{aliasSHA256, aliasBLAKE3} {
		found, err := d.index.Aliases(ctx, name, []digest.Digest{bare})
		if err != nil {
			return index.Blob{}, err
		}
		if b, ok := found[bare]; ok {
			return b, nil
		}
	}
	return index.Blob{}, fmt.Errorf("%w: blob %s", errNotFound, h)
}

// findHeld is find for an answer that says what is there: it makes what it
// returns live on.
func (d *Door) findHeld(ctx context.Context, fn function, digests []digest.Digest) (map[digest.Digest]index.Blob, error) {
	for {
		found, err := d.find(ctx, fn, digests)
		if err != nil {
			return nil, err
		}
		all, err := d.hold(ctx, found)
		if all || err != nil {
			return found, err
		}
		// Some were collected in between. There are fewer each time.
	}
}

// findOneHeld is findOne for an answer that says that the blob is there.
func (d *Door) findOneHeld(ctx context.Context, fn function, want digest.Digest) (index.Blob, error) {
	found, err := d.findHeld(ctx, fn, []digest.Digest{want})
	if err != nil {
		return index.Blob{}, err
	}
	b, ok := found[want]
	if !ok {
		return index.Blob{}, fmt.Errorf("%w: blob %s", errNotFound, want)
	}
	return b, nil
}
