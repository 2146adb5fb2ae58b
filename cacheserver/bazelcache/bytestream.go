package bazelcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	bspb "google.golang.org/genproto/googleapis/bytestream"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
)

// maxPiece is how much of a blob one message of a read has.
const maxPiece = 1 << 20

// sentEarly is what a compressed upload of a blob that is there is answered with:
// no count of bytes would tell anything.
const sentEarly = -1

type byteStream struct{ *Door }

// Read implements bspb.ByteStreamServer.
func (s byteStream) Read(r *bspb.ReadRequest, stream bspb.ByteStream_ReadServer) error {
	name, err := parseRead(r.ResourceName)
	if err != nil {
		return err
	}
	ctx := stream.Context()
	if err := s.allow(ctx, name.instance, false); err != nil {
		return err
	}
	switch {
	case r.ReadOffset < 0 || r.ReadOffset > name.Size:
		return fmt.Errorf("%w: read_offset is %d, the blob has %d bytes", errOutOfRange, r.ReadOffset, name.Size)
	case r.ReadLimit < 0:
		return fmt.Errorf("%w: read_limit is %d", errInvalid, r.ReadLimit)
	case r.ReadLimit != 0 && name.zstd:
		return fmt.Errorf("%w: read_limit of a compressed read is to be 0", errInvalid)
	}
	send := func(b []byte) error {
		for len(b) > 0 {
			n := min(maxPiece, len(b))
			if err := stream.Send(&bspb.ReadResponse{Data: b[:n]}); err != nil {
				return err
			}
			b = b[n:]
		}
		return nil
	}
	if name.zstd {
		return s.readFrames(ctx, name.fn, name.Digest, r.ReadOffset, send)
	}
	return s.readPlain(ctx, name.fn, name.Digest, r.ReadOffset, r.ReadLimit, send)
}

// readPlain sends at most limit bytes of a blob from an offset on; 0 is all.
func (d *Door) readPlain(ctx context.Context, fn function, name digest.Digest, offset, limit int64, send func([]byte) error) error {
	if fn.isEmpty(name) {
		return nil
	}
	b, err := d.findOne(ctx, fn, name)
	if err != nil {
		return err
	}
	d.use(b)
	left := b.Size - offset
	if limit > 0 {
		left = min(left, limit)
	}
	if left == 0 {
		return nil
	}
	err = d.eachChunk(ctx, b, offset, func(_, plain []byte, skip int64) error {
		plain = plain[skip:]
		plain = plain[:min(int64(len(plain)), left)]
		left -= int64(len(plain))
		if err := send(plain); err != nil {
			return err
		}
		if left == 0 {
			return errStop
		}
		return nil
	})
	d.reportDamage(err)
	return unlessStopped(err)
}

// emptyFrame is a zstd frame without contents (RFC 8878, 3.1.1): a reader of a
// stream that is to have one may not take nothing for it.
var emptyFrame = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00}

// readFrames sends a blob from an offset on as zstd, the stored frames as they
// lie. Only of a chunk that has the offset within is what follows it compressed
// anew.
func (d *Door) readFrames(ctx context.Context, fn function, name digest.Digest, offset int64, send func([]byte) error) error {
	if fn.isEmpty(name) {
		return send(emptyFrame)
	}
	b, err := d.findOne(ctx, fn, name)
	if err != nil {
		return err
	}
	d.use(b)
	if offset == b.Size {
		return send(emptyFrame)
	}
	err = d.eachChunk(ctx, b, offset, func(data, plain []byte, skip int64) error {
		if skip > 0 {
			data = frame.Encode(nil, plain[skip:])
		}
		return send(data)
	})
	d.reportDamage(err)
	return err
}

// Write implements bspb.ByteStreamServer.
func (s byteStream) Write(stream bspb.ByteStream_WriteServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	name, err := parseWrite(first.ResourceName)
	if err != nil {
		return err
	}
	ctx := stream.Context()
	if err := s.allow(ctx, name.instance, true); err != nil {
		return err
	}
	if name.Size > s.config.MaxBlob {
		return fmt.Errorf("%w: the blob has %d bytes, the limit is %d", errTooLarge, name.Size, s.config.MaxBlob)
	}
	if first.WriteOffset < 0 || first.WriteOffset > name.Size {
		return fmt.Errorf("%w: write_offset is %d of %d", errInvalid, first.WriteOffset, name.Size)
	}
	whole := first.FinishWrite && first.WriteOffset == 0
	there := false
	if !whole || len(first.Data) > unasked {
		if there, err = s.isThere(ctx, name); err != nil {
			return err
		}
	}
	if there {
		committed := name.Size
		if name.zstd {
			committed = sentEarly
		}
		return stream.SendAndClose(&bspb.WriteResponse{CommittedSize: committed})
	}
	in := &writeReader{stream: stream, name: first.ResourceName, offset: first.WriteOffset, wait: wait{pace: s.pace}}
	if err := in.take(first); err != nil {
		return err
	}
	if whole {
		// Most blobs are one message. They need no pipe, and nothing to go on with.
		err = s.writeWhole(ctx, name, first.Data)
	} else {
		err = s.writeParts(ctx, name, in)
	}
	if err != nil {
		return err
	}
	if !in.finished {
		// The client has ended the call, but not the upload.
		return stream.SendAndClose(&bspb.WriteResponse{CommittedSize: s.uploads.status(name)})
	}
	return stream.SendAndClose(&bspb.WriteResponse{CommittedSize: in.offset})
}

func (s byteStream) isThere(ctx context.Context, name resource) (bool, error) {
	if name.fn.isEmpty(name.Digest) {
		return true, nil
	}
	_, err := s.findOneHeld(ctx, name.fn, name.Digest)
	if errors.Is(err, errNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (s byteStream) writeWhole(ctx context.Context, name resource, data []byte) error {
	w := want{name.fn, name.Hash, name.Size}
	if !name.zstd {
		_, err := s.ingestBytes(ctx, w, data)
		return err
	}
	z, release := unpack(bytes.NewReader(data))
	defer release()
	_, err := s.ingest(ctx, w, z)
	return err
}

// writeParts takes an upload of several messages, or a part of it.
func (s byteStream) writeParts(ctx context.Context, name resource, in *writeReader) error {
	t, err := s.uploads.begin(name, in.offset-int64(len(in.data)))
	if err != nil {
		return err
	}
	// Whatever ends this call but its own finish, the client may come back.
	defer t.leave()
	in.giveUp = t.abandon
	var from io.Reader = in
	if name.zstd {
		z, release := unpack(in)
		defer release()
		from = z
	}
	if _, err = io.Copy(t, from); err != nil && in.err == nil {
		// What was sent is wrong, not the connection: there is nothing to go on with.
		t.abandon()
		return err
	}
	if in.err != nil && !errors.Is(in.err, io.EOF) {
		return in.err
	}
	if !in.finished {
		return nil
	}
	return t.finish(ctx)
}

// writeReader reads the bytes that the messages of a write bring.
type writeReader struct {
	stream bspb.ByteStream_WriteServer
	name   string
	// offset is that of the next message: where the first one began, and all bytes
	// since, compressed or not.
	offset   int64
	data     []byte // not read yet
	finished bool
	err      error // of the stream
	wait     wait
	giveUp   func()
}

// take accepts a message.
func (r *writeReader) take(m *bspb.WriteRequest) error {
	if m.ResourceName != "" && m.ResourceName != r.name {
		return fmt.Errorf("%w: the resource name changes to %.300q", errInvalid, m.ResourceName)
	}
	if m.WriteOffset != r.offset {
		return fmt.Errorf("%w: write_offset is %d, not %d", errInvalid, m.WriteOffset, r.offset)
	}
	r.offset += int64(len(m.Data))
	r.data, r.finished = m.Data, m.FinishWrite
	return nil
}

// Read implements io.Reader. It ends with io.EOF where the client says that the
// upload is complete, and where it says no more; finished tells which.
func (r *writeReader) Read(p []byte) (int, error) {
	for len(r.data) == 0 {
		if r.finished {
			return 0, io.EOF
		}
		if r.err != nil {
			return 0, r.err
		}
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// WriteTo implements io.WriterTo: bytes go on as they came.
func (r *writeReader) WriteTo(w io.Writer) (sent int64, err error) {
	for {
		n, err := w.Write(r.data)
		r.data = r.data[n:]
		sent += int64(n)
		if err != nil || r.finished {
			return sent, err
		}
		if err := r.next(); errors.Is(err, io.EOF) {
			return sent, nil
		} else if err != nil {
			return sent, err
		}
	}
}

func (r *writeReader) next() error {
	begun := time.Now()
	late := time.AfterFunc(r.wait.left(), r.giveUp)
	m, err := r.stream.Recv()
	slow := !late.Stop()
	if err != nil {
		r.err = err
		return err
	}
	if slow {
		return errSlow
	}
	r.wait.came(len(m.Data), time.Since(begun))
	return r.take(m)
}

// QueryWriteStatus implements bspb.ByteStreamServer.
func (s byteStream) QueryWriteStatus(ctx context.Context, r *bspb.QueryWriteStatusRequest) (*bspb.QueryWriteStatusResponse, error) {
	name, err := parseWrite(r.ResourceName)
	if err != nil {
		return nil, err
	}
	if err := s.allow(ctx, name.instance, true); err != nil {
		return nil, err
	}
	there, err := s.isThere(ctx, name)
	if err != nil {
		return nil, err
	}
	if there {
		return &bspb.QueryWriteStatusResponse{CommittedSize: name.Size, Complete: true}, nil
	}
	return &bspb.QueryWriteStatusResponse{CommittedSize: s.uploads.status(name)}, nil
}
