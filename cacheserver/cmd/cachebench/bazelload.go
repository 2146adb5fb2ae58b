package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"golang.org/x/sync/errgroup"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

const (
	// findCalls is how often a round asks what is missing, each time of other blobs.
	findCalls = 5
	// streamStep is how much of a large blob one message has, as Bazel's do.
	streamStep = 16 << 10
)

// load is a client's work on one server.
type load struct {
	o     bazelOptions
	conns []*grpc.ClientConn
	seed  uint64
	made  uint64

	missing []*repb.FindMissingBlobsRequest
	written []blob // by the last work that wrote small ones
	large   []blob
	next    []blob // small ones, made before the time is taken
}

type blob struct {
	digest *repb.Digest
	data   []byte
}

func newLoad(address string, seed uint64, o bazelOptions) (_ *load, err error) {
	l := &load{o: o, seed: seed + 1}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	for range manyConnections {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		l.conns = append(l.conns, conn)
	}
	for range o.streams {
		l.large = append(l.large, l.blob(int(o.streamSize)))
	}
	return l, nil
}

func (l *load) close() (err error) {
	for _, c := range l.conns {
		err = errors.Join(err, c.Close())
	}
	return err
}

// blob makes up one that there was not yet, of which every other 64 bytes are zero.
func (l *load) blob(n int) blob {
	l.made++
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], l.seed)
	binary.LittleEndian.PutUint64(key[8:], l.made)
	data := make([]byte, n)
	random := rand.NewChaCha8(key)
	for at := 0; at < n; at += 128 {
		_, _ = random.Read(data[at:min(n, at+64)])
	}
	return blob{&repb.Digest{Hash: digest.Of(data).String(), SizeBytes: int64(n)}, data}
}

// makeMissing makes lists of blobs, every other one of which it stores.
func (l *load) makeMissing(ctx context.Context) error {
	l.missing = nil
	var there []blob
	for range findCalls {
		r := &repb.FindMissingBlobsRequest{}
		for i := range l.o.asked {
			b := l.blob(128)
			if i%2 == 0 {
				there = append(there, b)
			}
			r.BlobDigests = append(r.BlobDigests, b.digest)
		}
		l.missing = append(l.missing, r)
	}
	return l.update(ctx, there, 1000)
}

// makeSmall makes the blobs that the next work is to write, which takes time of its
// own.
func (l *load) makeSmall(context.Context) error {
	l.next = nil
	for range l.o.blobs {
		l.next = append(l.next, l.blob(smallBlob))
	}
	return nil
}

// makeLarge makes others of the large blobs.
func (l *load) makeLarge(context.Context) error {
	for i, b := range l.large {
		l.made++
		for at := 0; at+8 <= len(b.data); at += smallBlob { // so that they share nothing
			binary.LittleEndian.PutUint64(b.data[at:], l.made)
		}
		l.large[i].digest = &repb.Digest{Hash: digest.Of(b.data).String(), SizeBytes: b.digest.SizeBytes}
	}
	return nil
}

// each runs work for 0 to n-1, one at a time on each connection.
func (l *load) each(ctx context.Context, n int, work func(ctx context.Context, conn *grpc.ClientConn, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for c, conn := range l.conns {
		g.Go(func() error {
			for i := c; i < n; i += len(l.conns) {
				if err := work(ctx, conn, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (l *load) find(ctx context.Context) error {
	return l.each(ctx, findCalls, func(ctx context.Context, conn *grpc.ClientConn, i int) error {
		a, err := repb.NewContentAddressableStorageClient(conn).FindMissingBlobs(ctx, l.missing[i])
		if err == nil && len(a.MissingBlobDigests) != l.o.asked/2 {
			err = fmt.Errorf("FindMissingBlobs: %d are missing, not %d", len(a.MissingBlobDigests), l.o.asked/2)
		}
		return err
	})
}

// update stores blobs, so many in one call.
func (l *load) update(ctx context.Context, blobs []blob, each int) error {
	return l.each(ctx, (len(blobs)+each-1)/each, func(ctx context.Context, conn *grpc.ClientConn, i int) error {
		r := &repb.BatchUpdateBlobsRequest{}
		for _, b := range blobs[i*each : min(len(blobs), (i+1)*each)] {
			r.Requests = append(r.Requests, &repb.BatchUpdateBlobsRequest_Request{Digest: b.digest, Data: b.data})
		}
		a, err := repb.NewContentAddressableStorageClient(conn).BatchUpdateBlobs(ctx, r)
		for _, one := range a.GetResponses() {
			err = errors.Join(err, status.ErrorProto(one.Status))
		}
		return err
	})
}

func (l *load) writeBatches(ctx context.Context, each int) error {
	l.written = l.next
	return l.update(ctx, l.written, each)
}

func (l *load) readBatches(ctx context.Context, each int) error {
	return l.each(ctx, len(l.written)/each, func(ctx context.Context, conn *grpc.ClientConn, i int) error {
		r := &repb.BatchReadBlobsRequest{}
		for _, b := range l.written[i*each : (i+1)*each] {
			r.Digests = append(r.Digests, b.digest)
		}
		a, err := repb.NewContentAddressableStorageClient(conn).BatchReadBlobs(ctx, r)
		for _, one := range a.GetResponses() {
			err = errors.Join(err, status.ErrorProto(one.Status))
			if len(one.Data) != smallBlob {
				err = errors.Join(err, fmt.Errorf("BatchReadBlobs: %d bytes", len(one.Data)))
			}
		}
		return err
	})
}

func (l *load) writeSmall(ctx context.Context) error {
	l.written = l.next
	return l.writeStreams(ctx, l.written)
}

func (l *load) writeLarge(ctx context.Context) error { return l.writeStreams(ctx, l.large) }
func (l *load) readSmall(ctx context.Context) error  { return l.readStreams(ctx, l.written) }
func (l *load) readLarge(ctx context.Context) error  { return l.readStreams(ctx, l.large) }

func (l *load) writeStreams(ctx context.Context, blobs []blob) error {
	return l.each(ctx, len(blobs), func(ctx context.Context, conn *grpc.ClientConn, i int) error {
		s, err := bspb.NewByteStreamClient(conn).Write(ctx)
		if err != nil {
			return err
		}
		d, data := blobs[i].digest, blobs[i].data
		name := fmt.Sprintf("uploads/00000000-0000-4000-8000-%012x/blobs/%s/%d", i, d.Hash, d.SizeBytes)
		for at := 0; at < len(data); at += streamStep {
			end := min(len(data), at+streamStep)
			if err := s.Send(&bspb.WriteRequest{ResourceName: name, WriteOffset: int64(at), Data: data[at:end], FinishWrite: end == len(data)}); err != nil {
				break // the answer says why
			}
			name = ""
		}
		a, err := s.CloseAndRecv()
		if err == nil && a.CommittedSize != d.SizeBytes {
			err = fmt.Errorf("ByteStream.Write: %d of %d bytes were taken", a.CommittedSize, d.SizeBytes)
		}
		return err
	})
}

func (l *load) readStreams(ctx context.Context, blobs []blob) error {
	return l.each(ctx, len(blobs), func(ctx context.Context, conn *grpc.ClientConn, i int) error {
		d := blobs[i].digest
		s, err := bspb.NewByteStreamClient(conn).Read(ctx, &bspb.ReadRequest{ResourceName: fmt.Sprintf("blobs/%s/%d", d.Hash, d.SizeBytes)})
		if err != nil {
			return err
		}
		var n int64
		for {
			m, err := s.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			n += int64(len(m.Data))
		}
		if n != d.SizeBytes {
			return fmt.Errorf("ByteStream.Read: %d of %d bytes came", n, d.SizeBytes)
		}
		return nil
	})
}

// fill stores n small blobs, with no more of them in memory than a step has.
func (l *load) fill(ctx context.Context, n int, progress func(done int)) error {
	const step = 50_000
	for done := 0; done < n; {
		var blobs []blob
		for range min(step, n-done) {
			blobs = append(blobs, l.blob(smallBlob))
		}
		if err := l.update(ctx, blobs, perBatch); err != nil {
			return err
		}
		done += len(blobs)
		progress(done)
	}
	return nil
}
