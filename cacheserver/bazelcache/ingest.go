package bazelcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// Chunks are cut as those of NARs are, so that they share them.
const (
	averageChunk = chunker.DefaultAverage
	minChunk     = averageChunk / 4
	maxChunk     = averageChunk * 4
)

// inMemory is how long a blob may be that is stored from memory. Longer ones are
// streamed, which takes more memory than that.
const inMemory = 4 << 20

// want is the blob that a client says it sends.
type want struct {
	fn   function
	hash digest.Hash
	size int64 // -1 where the client does not say
}

// match says by which function the bytes are what was announced, of which those
// are the digests; or errMismatch.
func (w want) match(size int64, sum func(function) digest.Hash) (function, error) {
	for _, f := range w.fn.names() {
		if (w.size < 0 || w.size == size) && sum(f) == w.hash {
			return f, nil
		}
	}
	return 0, fmt.Errorf("%w: want %s of %d bytes, not %s of %d", errMismatch, w.hash, w.size, sum(w.fn.names()[0]), size)
}

// record is a blob whose chunks are stored, ready to be recorded. Its FileHash is
// left unknown: only the door for Nix tells it, which first sees whether the blob
// is a NAR.
type record struct {
	blob    index.Blob
	chunks  []digest.Chunk
	aliases map[string]digest.Hash
}

func newRecord(blob index.Blob, chunks []digest.Chunk, fn function, named digest.Hash) record {
	blob.FileHash = digest.Hash{}
	r := record{blob: blob, chunks: chunks, aliases: map[string]digest.Hash{}}
	if len(chunks) > 1 {
		r.aliases[aliasSHA256] = blob.Hash
	}
	if fn == functionBLAKE3 {
		r.aliases[aliasBLAKE3] = named
	}
	return r
}

// record makes blobs visible. When it returns nil, all of them survive a crash.
func (d *Door) record(ctx context.Context, records []record) (blobs []index.Blob, err error) {
	err = d.index.Update(ctx, func(tx index.Tx) error {
		if blobs, err = tx.AddBlobs(newBlobs(records), d.expiry()); err != nil {
			return err
		}
		return putAliases(tx, records, blobs)
	})
	return blobs, err
}

func newBlobs(records []record) []index.NewBlob {
	blobs := make([]index.NewBlob, len(records))
	for i, r := range records {
		blobs[i] = index.NewBlob{Blob: r.blob, Chunks: r.chunks}
	}
	return blobs
}

func putAliases(tx index.Tx, records []record, blobs []index.Blob) error {
	for i, r := range records {
		for name, h := range r.aliases {
			if err := tx.PutAlias(name, digest.Digest{Hash: h}, blobs[i].ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// ingest stores a blob from a stream and returns it. One that is not what was
// announced is errMismatch, and is not recorded.
func (d *Door) ingest(ctx context.Context, w want, r io.Reader) (index.Blob, error) {
	if w.size >= 0 && w.size <= inMemory {
		release, err := d.store.Reserve(ctx, 3*w.size)
		if err != nil {
			return index.Blob{}, err
		}
		defer release()
		data := make([]byte, w.size)
		if n, err := io.ReadFull(r, data); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return index.Blob{}, fmt.Errorf("%w: it ends after %d of %d bytes", errMismatch, n, w.size)
		} else if err != nil {
			return index.Blob{}, err
		}
		if n, err := io.ReadFull(r, make([]byte, 1)); n > 0 {
			return index.Blob{}, fmt.Errorf("%w: it has more than %d bytes", errMismatch, w.size)
		} else if !errors.Is(err, io.EOF) {
			return index.Blob{}, err
		}
		return d.ingestBytes(ctx, w, data)
	}
	limit := d.config.MaxBlob
	if w.size >= 0 {
		limit = min(limit, w.size)
	}
	sums := map[function]hash.Hash{}
	var also []hash.Hash // SHA-256 comes by itself
	if w.fn != functionSHA256 {
		sums[functionBLAKE3] = functionBLAKE3.new()
		also = append(also, sums[functionBLAKE3])
	}
	stored, err := d.store.PutWithoutFile(ctx, r, limit, also...)
	var tooLong *cas.TooLongError
	if errors.As(err, &tooLong) && tooLong.Limit == w.size {
		return index.Blob{}, fmt.Errorf("%w: it has more than %d bytes", errMismatch, w.size)
	}
	if err != nil {
		return index.Blob{}, err
	}
	fn, err := w.match(stored.Size, func(f function) digest.Hash {
		if f == functionSHA256 {
			return stored.Hash
		}
		return digest.Hash(sums[f].Sum(nil))
	})
	if err != nil || stored.Size == 0 {
		return index.Blob{}, err
	}
	blobs, err := d.record(ctx, []record{newRecord(stored.Blob, stored.Chunks, fn, w.hash)})
	if err != nil {
		return index.Blob{}, err
	}
	return blobs[0], nil
}

// ingestBytes is ingest from memory.
func (d *Door) ingestBytes(ctx context.Context, w want, data []byte) (index.Blob, error) {
	fn, err := w.match(int64(len(data)), func(f function) digest.Hash { return f.of(data) })
	if err != nil {
		return index.Blob{}, err
	}
	if len(data) == 0 {
		return index.Blob{}, nil
	}
	blobs, err := d.storeAll(ctx, []whole{{fn, w.hash, data}})
	if err != nil {
		return index.Blob{}, err
	}
	return blobs[0], nil
}

// whole is a blob in memory, and the digest by which it is named.
type whole struct {
	fn   function
	hash digest.Hash
	data []byte // not empty
}

// storeAll stores blobs that were compared with their digests, in one pack and
// one change of the index, which others share that come at the same time.
func (d *Door) storeAll(ctx context.Context, blobs []whole) ([]index.Blob, error) {
	records := make([]record, len(blobs))
	var chunks []pack.Frame // not packed
	for i, b := range blobs {
		cut, err := cutAll(b.data)
		if err != nil {
			return nil, err
		}
		chunks = append(chunks, cut...)
		records[i] = recordOf(b, cut)
	}
	var recorded []index.Blob
	var locations map[digest.Hash]index.Location
	if err := d.store.PutChunks(ctx, chunks, cas.Record{
		Blobs: newBlobs(records), Expires: d.expiry(),
		Then: func(tx index.Tx, added []index.Blob, at map[digest.Hash]index.Location) error {
			recorded, locations = added, at
			return putAliases(tx, records, added)
		},
	}); err != nil {
		return nil, err
	}
	for i, b := range recorded {
		if blobs[i].fn != functionSHA256 {
			d.known.put(knownName{blobs[i].fn, digest.Digest{Hash: blobs[i].hash, Size: b.Size}}, knownBlob{blob: b})
		}
		if l := locations[b.Hash]; len(records[i].chunks) == 1 && l.Length > 0 {
			d.known.locate(b, l)
		}
	}
	return recorded, nil
}

// cutAll cuts bytes into chunks, each with its bytes.
func cutAll(data []byte) (chunks []pack.Frame, err error) {
	err = eachCut(data, func(piece []byte) {
		chunks = append(chunks, pack.Frame{Chunk: digest.Chunk{Hash: digest.Of(piece), Size: uint32(len(piece))}, Data: piece})
	})
	return chunks, err
}

func recordOf(b whole, cut []pack.Frame) record {
	blob := index.Blob{Digest: digest.Digest{Hash: cut[0].Hash, Size: int64(len(b.data))}}
	if len(cut) > 1 {
		blob.Hash = digest.Of(b.data)
	}
	chunks := make([]digest.Chunk, len(cut))
	for i, c := range cut {
		chunks[i] = c.Chunk
	}
	return newRecord(blob, chunks, b.fn, b.hash)
}

// eachCut cuts bytes into chunks.
func eachCut(data []byte, visit func(piece []byte)) error {
	if len(data) <= minChunk {
		visit(data)
		return nil
	}
	c, err := chunker.New(bytes.NewReader(data), chunker.Params{Average: averageChunk})
	if err != nil {
		return err
	}
	for at := 0; ; {
		piece, err := c.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		visit(data[at : at+len(piece)])
		at += len(piece)
	}
}
