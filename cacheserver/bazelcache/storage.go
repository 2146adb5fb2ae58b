package bazelcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	googleproto "google.golang.org/protobuf/proto"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// storage is the service of blobs. Blobs are those of the whole store: an
// instance is a namespace of action results, and who names a digest knows it.
type storage struct{ *Door }

// FindMissingBlobs implements repb.ContentAddressableStorageServer.
func (s storage) FindMissingBlobs(ctx context.Context, r *repb.FindMissingBlobsRequest) (*repb.FindMissingBlobsResponse, error) {
	fn, err := s.begin(ctx, r.InstanceName, r.DigestFunction, false)
	if err != nil {
		return nil, err
	}
	asked, err := parseDigests(r.BlobDigests)
	if err != nil {
		return nil, err
	}
	there, err := s.there(ctx, fn, asked)
	if err != nil {
		return nil, err
	}
	answer := &repb.FindMissingBlobsResponse{}
	told := map[digest.Digest]bool{}
	for i, a := range asked {
		if !there[i] && !fn.isEmpty(a) && !told[a] {
			told[a] = true
			answer.MissingBlobDigests = append(answer.MissingBlobDigests, r.BlobDigests[i])
		}
	}
	return answer, nil
}

// begin checks what all calls of a blob say.
func (d *Door) begin(ctx context.Context, instance string, v repb.DigestFunction_Value, write bool) (function, error) {
	if err := d.allow(ctx, instance, write); err != nil {
		return 0, err
	}
	return functionOf(v)
}

// BatchUpdateBlobs implements repb.ContentAddressableStorageServer.
func (s storage) BatchUpdateBlobs(ctx context.Context, r *repb.BatchUpdateBlobsRequest) (*repb.BatchUpdateBlobsResponse, error) {
	fn, err := s.begin(ctx, r.InstanceName, r.DigestFunction, true)
	if err != nil {
		return nil, err
	}
	var total int64
	for _, one := range r.Requests {
		size := max(int64(len(one.Data)), one.Digest.GetSizeBytes())
		if total += min(size, maxBatch+1); total > maxBatch {
			return nil, fmt.Errorf("%w: blobs of more than %d bytes in one call", errTooLarge, maxBatch)
		}
	}
	release, err := s.store.Reserve(ctx, 2*total)
	if err != nil {
		return nil, err
	}
	defer release()
	ends := make([]error, len(r.Requests))
	blobs := map[digest.Digest]whole{}
	var order []digest.Digest // as sent: what is written together is read together
	named := make([]digest.Digest, len(r.Requests))
	for i, one := range r.Requests {
		if named[i], ends[i] = parseDigest(one.Digest); ends[i] != nil {
			continue
		}
		w := want{fn, named[i].Hash, named[i].Size}
		var data []byte
		if data, ends[i] = batchData(one); ends[i] != nil {
			continue
		}
		if _, ends[i] = w.match(int64(len(data)), func(f function) digest.Hash { return f.of(data) }); ends[i] != nil || len(data) == 0 {
			continue
		}
		if _, ok := blobs[named[i]]; !ok {
			blobs[named[i]] = whole{fn, w.hash, data}
			order = append(order, named[i])
		}
	}
	if err := s.storeNew(ctx, fn, order, blobs); err != nil {
		for i := range ends {
			if _, ok := blobs[named[i]]; ok && ends[i] == nil {
				ends[i] = err
			}
		}
	}
	answer := &repb.BatchUpdateBlobsResponse{}
	for i, one := range r.Requests {
		answer.Responses = append(answer.Responses, &repb.BatchUpdateBlobsResponse_Response{Digest: one.Digest, Status: s.part(ctx, "BatchUpdateBlobs", ends[i])})
	}
	return answer, nil
}

// unasked is how many bytes of blobs are stored without asking first whether they
// are there, as Bazel has just done that: to store them once more takes little
// longer than to ask.
const unasked = 16 << 10

// storeNew stores those of the blobs that are not stored.
func (s storage) storeNew(ctx context.Context, fn function, order []digest.Digest, blobs map[digest.Digest]whole) (err error) {
	var bytes int64
	for _, name := range order {
		bytes += name.Size
	}
	var there map[digest.Digest]index.Blob
	if bytes > unasked {
		if there, err = s.findHeld(ctx, fn, order); err != nil {
			return err
		}
	}
	var fresh []whole
	for _, name := range order {
		if _, ok := there[name]; !ok {
			fresh = append(fresh, blobs[name])
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	_, err = s.storeAll(ctx, fresh)
	return err
}

// batchData returns the bytes of a blob of a batch, unpacked.
func batchData(r *repb.BatchUpdateBlobsRequest_Request) ([]byte, error) {
	switch r.Compressor {
	case repb.Compressor_IDENTITY:
		return r.Data, nil
	case repb.Compressor_ZSTD:
		z, release := unpack(bytes.NewReader(r.Data))
		defer release()
		data := make([]byte, r.Digest.SizeBytes)
		n, err := io.ReadFull(z, data)
		if err == nil {
			var extra int
			if extra, err = z.Read(make([]byte, 1)); extra > 0 {
				return nil, fmt.Errorf("%w: it unpacks to more than %d bytes", errMismatch, len(data))
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return data[:n], nil
		}
		return data[:n], err
	}
	return nil, fmt.Errorf("%w compressor %s", errUnsupported, r.Compressor)
}

// part is the status of a part of a call.
func (d *Door) part(ctx context.Context, method string, err error) *rpcstatus.Status {
	if err == nil {
		return &rpcstatus.Status{}
	}
	v := judge(err)
	if v.fault && ctx.Err() == nil {
		d.log.Error("part of a call failed", "method", method, "code", v.code.String(), "error", err)
	}
	return v.grpcStatus().Proto()
}

// BatchReadBlobs implements repb.ContentAddressableStorageServer.
func (s storage) BatchReadBlobs(ctx context.Context, r *repb.BatchReadBlobsRequest) (*repb.BatchReadBlobsResponse, error) {
	fn, err := s.begin(ctx, r.InstanceName, r.DigestFunction, false)
	if err != nil {
		return nil, err
	}
	var asked []digest.Digest
	var total int64
	for _, p := range r.Digests {
		a, err := parseDigest(p)
		if err != nil {
			return nil, err
		}
		if total += a.Size; total > maxBatch || a.Size > maxBatch {
			return nil, fmt.Errorf("%w: blobs of more than %d bytes in one call", errTooLarge, maxBatch)
		}
		asked = append(asked, a)
	}
	release, err := s.store.Reserve(ctx, 2*total)
	if err != nil {
		return nil, err
	}
	defer release()
	found, err := s.findKnown(ctx, fn, asked)
	if err != nil {
		return nil, err
	}
	read, err := s.readAll(ctx, found)
	if err != nil {
		return nil, err
	}
	frames := slices.Contains(r.AcceptableCompressors, repb.Compressor_ZSTD)
	answer := &repb.BatchReadBlobsResponse{}
	room := maxMessage
	for i, a := range asked {
		one := &repb.BatchReadBlobsResponse_Response{Digest: r.Digests[i]}
		c, ok := read[a]
		if !ok && !fn.isEmpty(a) {
			c.err = fmt.Errorf("%w: blob %s", errNotFound, a)
		}
		one.Data = c.data
		if frames && c.frame != nil && len(c.frame) < len(c.data) {
			one.Data, one.Compressor = c.frame, repb.Compressor_ZSTD
		}
		if c.err != nil {
			one.Data, one.Compressor = nil, repb.Compressor_IDENTITY
		}
		one.Status = s.part(ctx, "BatchReadBlobs", c.err)
		// A field's tag and length take up to 8 bytes.
		size := googleproto.Size(one) + 8
		if size > room {
			return nil, fmt.Errorf("%w: the answer to %d digests is over %d bytes", errTooMany, len(asked), maxMessage)
		}
		room -= size
		answer.Responses = append(answer.Responses, one)
	}
	return answer, nil
}
