package bazelcache

import (
	"context"
	"sync"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

const (
	// maxKnown is how many blobs are remembered: about 20 MB.
	maxKnown = 1 << 16
	// knownTime is how long what was found is read by without another question to the
	// index.
	knownTime = time.Minute
)

// known remembers where blobs lie that were stored or read lately. To read a small
// one takes less than to look it up.
//
// It is for reads only, which see for themselves whether the bytes are there. What a
// client is told to be there is not taken from it.
type known struct {
	mu    sync.Mutex
	blobs *recent[knownName, knownBlob]
}

type knownName struct {
	fn function
	digest.Digest
}

type knownBlob struct {
	blob  index.Blob
	at    index.Location // of its only chunk; the zero one when that is not known
	until time.Time
}

func newKnown() *known {
	return &known{blobs: newRecent[knownName, knownBlob](maxKnown)}
}

func (k *known) get(name knownName) (knownBlob, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b, ok := k.blobs.get(name)
	return b, ok && time.Now().Before(b.until)
}

func (k *known) put(name knownName, b knownBlob) {
	b.until = time.Now().Add(knownTime)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.blobs.put(name, b)
}

// located returns where the only chunk of a blob lies, if it has one and that is
// known.
func (k *known) located(b index.Blob) (index.Location, bool) {
	found, ok := k.get(knownName{functionSHA256, b.Digest})
	return found.at, ok && found.at.Length > 0 && found.blob.ID == b.ID
}

// locate notes where the only chunk of a blob lies.
func (k *known) locate(b index.Blob, l index.Location) {
	k.put(knownName{functionSHA256, b.Digest}, knownBlob{blob: b, at: l})
}

// findKnown is find for blobs that are to be read.
func (d *Door) findKnown(ctx context.Context, fn function, digests []digest.Digest) (map[digest.Digest]index.Blob, error) {
	found := make(map[digest.Digest]index.Blob, len(digests))
	var open []digest.Digest
	for _, want := range digests {
		b, ok := d.known.get(knownName{fn, want})
		if due, _ := d.due(b.blob); ok && !due {
			found[want] = b.blob
		} else {
			open = append(open, want) // when due, to see whether the use was written down
		}
	}
	if len(open) == 0 {
		return found, nil
	}
	looked, err := d.find(ctx, fn, open)
	if err != nil {
		return nil, err
	}
	for want, b := range looked {
		found[want] = b
		d.known.put(knownName{fn, want}, knownBlob{blob: b})
	}
	return found, nil
}
