package packstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
)

// tries is how often a request is made before its failure is the call's.
const tries = 3

// S3 keeps each pack as one object, <prefix>/<name>.pack, of a bucket in S3.
// Buckets with versions or object locks work, but keep what was deleted.
type S3 struct {
	reads, writes *minio.Client
	endpoint      string // for messages
	bucket        string
	prefix        string // empty, or with a "/" at its end
	patience      patience

	conditions atomic.Int32 // what is known of them
}

// NewS3 makes a store without asking the endpoint anything.
func NewS3(c S3Config) (*S3, error) { return newS3(c, defaultPatience) }

func newS3(c S3Config, p patience) (*S3, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	endpoint, err := c.endpointURL()
	if err != nil {
		return nil, err
	}
	s := &S3{endpoint: endpoint.String(), bucket: c.Bucket, patience: p}
	if prefix := strings.Trim(c.Prefix, "/"); prefix != "" {
		s.prefix = prefix + "/"
	}
	if s.reads, s.writes, err = c.clients(endpoint, p); err != nil {
		return nil, err
	}
	return s, nil
}

// OpenS3 is NewS3 and Check. Its error wraps ErrUnavailable where the endpoint
// cannot be reached or is not in order now; a server that is to start
// nevertheless makes its store with NewS3, and calls Check again later.
func OpenS3(ctx context.Context, c S3Config) (*S3, error) {
	s, err := NewS3(c)
	if err != nil {
		return nil, err
	}
	if err := s.Check(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *S3) key(name string) string { return s.prefix + name + suffix }

// bounded gives a request until its answer's header has come. The context lives
// on after arrived was called, until stop is.
func (s *S3) bounded(ctx context.Context) (_ context.Context, arrived, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(s.patience.answer, cancel)
	return ctx, func() { timer.Stop() }, func() {
		timer.Stop()
		cancel()
	}
}

// Open implements Store with a request for that range alone.
func (s *S3) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if offset < 0 || length < 0 || offset > math.MaxInt64-length {
		return nil, fmt.Errorf("reading pack %s: %w: %d bytes at offset %d", name, io.ErrUnexpectedEOF, length, offset)
	}
	if length == 0 {
		// No range is empty in HTTP.
		size, err := s.Size(ctx, name)
		if err != nil {
			return nil, err
		}
		if offset > size {
			return nil, fmt.Errorf("reading pack %s: %w: offset %d of %d", name, io.ErrUnexpectedEOF, offset, size)
		}
		return http.NoBody, nil
	}
	var opts minio.GetObjectOptions
	if err := opts.SetRange(offset, offset+length-1); err != nil {
		return nil, fmt.Errorf("reading pack %s: %w", name, err)
	}
	reqCtx, arrived, stop := s.bounded(ctx)
	body, info, header, err := minio.Core{Client: s.reads}.GetObject(reqCtx, s.bucket, s.key(name), opts)
	arrived()
	switch {
	case err != nil:
		stop()
		return nil, s.fault(ctx, "reading pack "+name, err)
	case header.Get("Content-Range") == "" && offset > 0:
		err = errors.New("the S3 server sends whole objects where it is asked for a part")
	case info.Size < length:
		err = fmt.Errorf("%w: %d bytes at offset %d, where %d are left", io.ErrUnexpectedEOF, length, offset, info.Size)
	default:
		return &s3Reader{store: s, ctx: ctx, name: name, body: body, left: length, stop: stop}, nil
	}
	_ = body.Close()
	stop()
	return nil, fmt.Errorf("reading pack %s: %w", name, err)
}

// s3Reader gives exactly the range that was asked for, or an error: that the
// connection broke must not look like a pack's end.
type s3Reader struct {
	store *S3
	ctx   context.Context
	name  string
	body  io.ReadCloser
	left  int64
	stop  func()
}

func (r *s3Reader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.body.Read(b[:min(int64(len(b)), r.left)])
	r.left -= int64(n)
	if err == nil || r.left == 0 {
		return n, nil
	}
	return n, r.store.fault(r.ctx, "reading pack "+r.name, fmt.Errorf("the connection broke with %d bytes to come: %w", r.left, err))
}

func (r *s3Reader) Close() error {
	err := r.body.Close()
	r.stop()
	return err
}

// Size implements Store.
func (s *S3) Size(ctx context.Context, name string) (int64, error) {
	if err := CheckName(name); err != nil {
		return 0, err
	}
	info, err := s.stat(ctx, name)
	if err != nil {
		return 0, s.fault(ctx, "looking for pack "+name, err)
	}
	return info.Size, nil
}

func (s *S3) stat(ctx context.Context, name string) (minio.ObjectInfo, error) {
	ctx, _, stop := s.bounded(ctx)
	defer stop()
	info, err := s.reads.StatObject(ctx, s.bucket, s.key(name), minio.StatObjectOptions{})
	if isNotFound(err) {
		// The answer has no body that would tell a bucket that is gone from a
		// pack that is: to take all packs for lost could not be made good.
		if ok, bucketErr := s.reads.BucketExists(ctx, s.bucket); bucketErr != nil {
			err = bucketErr
		} else if !ok {
			err = minio.ErrorResponse{Code: minio.NoSuchBucket, StatusCode: http.StatusNotFound}
		}
	}
	return info, err
}

// List implements Store. Objects that are no packs are passed over.
func (s *S3) List(ctx context.Context, visit func(name string, size int64) error) error {
	reqCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := time.AfterFunc(s.patience.answer, cancel)
	defer watch.Stop()
	for o := range s.reads.ListObjectsIter(reqCtx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix}) {
		watch.Stop()
		if o.Err != nil {
			return s.fault(ctx, "listing packs", o.Err)
		}
		name, ok := strings.CutSuffix(strings.TrimPrefix(o.Key, s.prefix), suffix)
		if ok && CheckName(name) == nil {
			if err := visit(name, o.Size); err != nil {
				return err
			}
		}
		watch.Reset(s.patience.answer)
	}
	// The iteration just ends when its context does.
	if err := reqCtx.Err(); err != nil {
		return s.fault(ctx, "listing packs", err)
	}
	return nil
}

// Delete implements Store.
func (s *S3) Delete(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	reqCtx, _, stop := s.bounded(ctx)
	defer stop()
	err := s.reads.RemoveObject(reqCtx, s.bucket, s.key(name), minio.RemoveObjectOptions{})
	if err != nil && !isNotFound(err) {
		return s.fault(ctx, "deleting pack "+name, err)
	}
	return nil
}

// Presign implements Presigner. The URL ends sooner than ttl when the
// credentials that signed it do.
func (s *S3) Presign(ctx context.Context, name string, ttl time.Duration) (string, error) {
	if err := CheckName(name); err != nil {
		return "", err
	}
	reqCtx, _, stop := s.bounded(ctx)
	defer stop()
	u, err := s.reads.PresignedGetObject(reqCtx, s.bucket, s.key(name), ttl, nil)
	if err != nil {
		return "", s.fault(ctx, "making a URL of pack "+name, err)
	}
	return u.String(), nil
}
