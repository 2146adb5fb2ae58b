package bazelcache

import (
	"context"
	"sync"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

const (
	// maxPresent is how many blobs are remembered to be there: about 15 MB.
	maxPresent = 1 << 17
	// worthAsking is how many blobs a client must ask for, for it to be worth a
	// question of its own whether what is remembered still holds.
	worthAsking = 32
)

// present remembers blobs that were found, for Bazel asks for the same ones with
// every build. They are there for as long as the index's epoch of blobs is the one
// that was read before they were looked up.
type present struct {
	mu    sync.Mutex
	epoch int64
	blobs *recent[knownName, int64] // when each expires, in seconds since 1970
}

func newPresent() *present {
	return &present{blobs: newRecent[knownName, int64](maxPresent)}
}

// mark sets those of there, by their places, whose blobs are known to be there and
// expire after a time.
func (p *present) mark(epoch int64, fn function, digests []digest.Digest, after time.Time, there []bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch != epoch {
		return
	}
	for i, d := range digests {
		expires, ok := p.blobs.get(knownName{fn, d})
		there[i] = ok && expires > after.Unix()
	}
}

// put remembers blobs that were looked up after the epoch was read.
func (p *present) put(epoch int64, fn function, found map[digest.Digest]index.Blob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case epoch < p.epoch:
		return
	case epoch > p.epoch:
		p.epoch, p.blobs = epoch, newRecent[knownName, int64](maxPresent)
	}
	for name, b := range found {
		p.blobs.put(knownName{fn, name}, b.Expires.Unix())
	}
}

// there says by their places which of the blobs are stored, for an answer that says
// so: it makes them live on.
func (d *Door) there(ctx context.Context, fn function, digests []digest.Digest) ([]bool, error) {
	there := make([]bool, len(digests))
	remember := len(digests) >= worthAsking
	var epoch int64
	if remember {
		var err error
		if epoch, err = d.index.BlobEpoch(ctx); err != nil {
			return nil, err
		}
		d.present.mark(epoch, fn, digests, d.dueBefore(), there)
	}
	var open []digest.Digest
	for i, there := range there {
		if !there {
			open = append(open, digests[i])
		}
	}
	found, err := d.findHeld(ctx, fn, open)
	if err != nil {
		return nil, err
	}
	if remember {
		d.present.put(epoch, fn, found)
	}
	for i, a := range digests {
		if _, ok := found[a]; ok {
			there[i] = true
		}
	}
	return there, nil
}
