package bazelcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

const (
	// maxMapping is how many chunks one message may tell of: their digests take up
	// to 80 bytes each.
	maxMapping = maxMessage / 100
	// maxSplice is how many chunks a client may put together.
	maxSplice = 1 << 20
)

// SplitBlob implements repb.ContentAddressableStorageServer.
func (s storage) SplitBlob(ctx context.Context, r *repb.SplitBlobRequest) (*repb.SplitBlobResponse, error) {
	answer := &repb.SplitBlobResponse{}
	err := s.split(ctx, r, func(part []*repb.Digest, cutBy repb.ChunkingFunction_Value) error {
		if len(answer.ChunkDigests)+len(part) > maxMapping {
			return fmt.Errorf("%w: more than %d chunks; GetChunkMapping tells all of them", errTooMany, maxMapping)
		}
		answer.ChunkDigests = append(answer.ChunkDigests, part...)
		answer.ChunkingFunction = cutBy
		return nil
	})
	return answer, err
}

// GetChunkMapping implements repb.ContentAddressableStorageServer.
func (s storage) GetChunkMapping(r *repb.GetChunkMappingRequest, stream repb.ContentAddressableStorage_GetChunkMappingServer) error {
	return s.split(stream.Context(), r, func(part []*repb.Digest, cutBy repb.ChunkingFunction_Value) error {
		return stream.Send(&repb.GetChunkMappingResponse{ChunkDigests: part, ChunkingFunction: cutBy})
	})
}

// splitRequest is one of either call.
type splitRequest interface {
	GetInstanceName() string
	GetBlobDigest() *repb.Digest
	GetDigestFunction() repb.DigestFunction_Value
}

// split makes the chunks of a blob blobs of their own, and tells their digests and
// by which function the blob can have been cut.
func (s storage) split(ctx context.Context, r splitRequest, tell func([]*repb.Digest, repb.ChunkingFunction_Value) error) error {
	fn, err := s.begin(ctx, r.GetInstanceName(), r.GetDigestFunction(), false)
	if err != nil {
		return err
	}
	name, err := parseDigest(r.GetBlobDigest())
	if err != nil {
		return err
	}
	if fn.isEmpty(name) {
		return tell(nil, repb.ChunkingFunction_FAST_CDC_2020)
	}
	blob, err := s.findOneHeld(ctx, fn, name)
	if err != nil {
		return err
	}
	cutBy := repb.ChunkingFunction_FAST_CDC_2020
	short := false
	if err := s.eachWindow(ctx, blob, func(chunks []index.Location) error {
		for _, c := range chunks {
			// What a client has put together may have been cut otherwise.
			if short || c.Size > maxChunk {
				cutBy = repb.ChunkingFunction_UNKNOWN
			}
			short = c.Size < minChunk
		}
		return nil
	}); err != nil {
		return err
	}
	return s.eachWindow(ctx, blob, func(chunks []index.Location) error {
		part, err := s.chunksAsBlobs(ctx, fn, chunks)
		if err != nil {
			return err
		}
		return tell(part, cutBy)
	})
}

// chunksAsBlobs records blobs of one chunk each, and returns their digests.
func (s storage) chunksAsBlobs(ctx context.Context, fn function, chunks []index.Location) ([]*repb.Digest, error) {
	out := make([]*repb.Digest, len(chunks))
	names := make([]digest.Hash, len(chunks))
	for i, c := range chunks {
		names[i] = c.Hash
	}
	if fn == functionBLAKE3 {
		// They are not known by that yet.
		i := 0
		if err := s.eachLocated(ctx, chunks, func(_ index.Location, _, plain []byte) error {
			names[i] = fn.of(plain)
			i++
			return nil
		}); err != nil {
			s.reportDamage(err)
			return nil, err
		}
	}
	asked := make([]digest.Digest, len(chunks))
	for i, c := range chunks {
		asked[i] = digest.Digest{Hash: names[i], Size: int64(c.Size)}
		out[i] = proto(asked[i])
	}
	there, err := s.findHeld(ctx, fn, asked)
	if err != nil {
		return nil, err
	}
	var records []record
	for i, c := range chunks {
		if _, ok := there[asked[i]]; ok {
			continue
		}
		blob := index.Blob{Digest: digest.Digest{Hash: c.Hash, Size: int64(c.Size)}, FileSize: int64(c.Length)}
		records = append(records, newRecord(blob, []digest.Chunk{c.Chunk}, fn, names[i]))
	}
	if len(records) > 0 {
		_, err = s.record(ctx, records)
	}
	return out, err
}

// SpliceBlob implements repb.ContentAddressableStorageServer.
func (s storage) SpliceBlob(ctx context.Context, r *repb.SpliceBlobRequest) (*repb.SpliceBlobResponse, error) {
	fn, err := s.begin(ctx, r.InstanceName, r.DigestFunction, true)
	if err != nil {
		return nil, err
	}
	parts, err := parseDigests(r.ChunkDigests)
	if err != nil {
		return nil, err
	}
	if err := s.splice(ctx, fn, r.BlobDigest, parts); err != nil {
		return nil, err
	}
	return &repb.SpliceBlobResponse{BlobDigest: r.BlobDigest}, nil
}

// RegisterChunkMapping implements repb.ContentAddressableStorageServer.
func (s storage) RegisterChunkMapping(stream repb.ContentAddressableStorage_RegisterChunkMappingServer) error {
	ctx := stream.Context()
	first, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("%w: there is no first message: %w", errInvalid, err)
	}
	fn, err := s.begin(ctx, first.InstanceName, first.DigestFunction, true)
	if err != nil {
		return err
	}
	var parts []digest.Digest
	for next := first; err == nil; next, err = stream.Recv() {
		some, err := parseDigests(next.ChunkDigests)
		if err != nil {
			return err
		}
		if parts = append(parts, some...); len(parts) > maxSplice {
			return fmt.Errorf("%w: more than %d chunks", errTooLarge, maxSplice)
		}
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	if err := s.splice(ctx, fn, first.BlobDigest, parts); err != nil {
		return err
	}
	return stream.SendAndClose(&repb.RegisterChunkMappingResponse{BlobDigest: first.BlobDigest})
}

// splice records a blob as what others make one after the other. Every byte is
// read back: a digest is what a client says until then.
func (s storage) splice(ctx context.Context, fn function, named *repb.Digest, parts []digest.Digest) error {
	name, err := parseDigest(named)
	if err != nil {
		return err
	}
	if name.Size > s.config.MaxBlob {
		return fmt.Errorf("%w: the blob has %d bytes, the limit is %d", errTooLarge, name.Size, s.config.MaxBlob)
	}
	// Their lifetimes count for a client that asks again only for those of the
	// chunks that changed.
	blobs, err := s.findHeld(ctx, fn, parts)
	if err != nil {
		return err
	}
	if fn.isEmpty(name) {
		return nil
	}
	if _, err := s.findOneHeld(ctx, fn, name); !errors.Is(err, errNotFound) {
		return err
	}
	var size int64
	for _, p := range parts {
		if _, ok := blobs[p]; !ok && !fn.isEmpty(p) {
			return fmt.Errorf("%w: chunk %s", errNotFound, p)
		}
		if size += p.Size; size > name.Size {
			break
		}
	}
	if size != name.Size {
		return fmt.Errorf("%w: the chunks have not its %d bytes", errMismatch, name.Size)
	}
	chunks, err := s.chunksOf(ctx, parts, blobs)
	if err != nil {
		return err
	}
	blob, err := s.assemble(ctx, fn, name, chunks)
	if err != nil {
		return err
	}
	_, err = s.record(ctx, []record{newRecord(blob, chunks, fn, name.Hash)})
	return err
}

// chunksOf returns the chunks of blobs one after the other; those that are not
// in the map are empty.
func (s storage) chunksOf(ctx context.Context, parts []digest.Digest, blobs map[digest.Digest]index.Blob) (chunks []digest.Chunk, err error) {
	for some := range slices.Chunk(parts, findStep) {
		hashes := make([]digest.Hash, len(some))
		for i, p := range some {
			hashes[i] = blobs[p].Hash
		}
		located, err := s.index.Locate(ctx, hashes)
		if err != nil {
			return nil, err
		}
		single := make(map[digest.Chunk]bool, len(located))
		for _, l := range located {
			single[l.Chunk] = true
		}
		for _, p := range some {
			b := blobs[p]
			if b.Size == 0 {
				continue
			}
			if c := (digest.Chunk{Hash: b.Hash, Size: uint32(b.Size)}); int64(c.Size) == b.Size && single[c] {
				chunks = append(chunks, c)
				continue
			}
			if err := s.eachWindow(ctx, b, func(window []index.Location) error {
				for _, l := range window {
					chunks = append(chunks, l.Chunk)
				}
				return nil
			}); err != nil {
				return nil, err
			}
		}
		if len(chunks) > maxSplice {
			return nil, fmt.Errorf("%w: more than %d chunks", errTooLarge, maxSplice)
		}
	}
	return chunks, nil
}

// assemble reads chunks and returns the blob that they make, ready to be
// recorded.
func (s storage) assemble(ctx context.Context, fn function, name digest.Digest, chunks []digest.Chunk) (index.Blob, error) {
	blob := index.Blob{Digest: digest.Digest{Size: name.Size}}
	plainSum, nameSum := functionSHA256.new(), fn.new()
	err := s.eachListed(ctx, chunks, func(_ index.Location, data, plain []byte) error {
		plainSum.Write(plain)
		if fn != functionSHA256 {
			nameSum.Write(plain)
		}
		blob.FileSize += int64(len(data))
		return nil
	})
	if err != nil {
		s.reportDamage(err)
		return index.Blob{}, err
	}
	plainSum.Sum(blob.Hash[:0])
	got := blob.Hash
	if fn != functionSHA256 {
		nameSum.Sum(got[:0])
	}
	if got != name.Hash {
		return index.Blob{}, fmt.Errorf("%w: the chunks hash to %s, not %s", errMismatch, got, name.Hash)
	}
	return blob, nil
}
