package packstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	// writerTag is the metadata that says which call of Put wrote an object.
	writerTag = "Writer"
	// checkKey follows the prefix in the key of the object that Check writes. It
	// stays: so Check needs no right to delete.
	checkKey = "write-check"
)

// What is known of how the server takes If-None-Match: * with a PUT.
const (
	conditionsUnknown = iota
	conditionsHonoured
	conditionsIgnored
	conditionsRefused
)

// errNoAnswer is why a context ended that was this package's own to end.
var errNoAnswer = errors.New("no answer in time")

// Put implements Store with one request, which does not overwrite. It tries
// again where body is an io.Seeker. A server that knows no conditions is asked
// beforehand whether the pack is there: of two writers at once, the last wins.
func (s *S3) Put(ctx context.Context, name string, size int64, body io.Reader) error {
	if err := CheckName(name); err != nil {
		return err
	}
	w := s3Put{store: s, name: name, size: size, body: body, writer: rand.Text(), doing: "writing pack " + name}
	if size < 0 {
		return fmt.Errorf("%s: a size of %d bytes", w.doing, size)
	}
	if seeker, ok := body.(io.Seeker); ok {
		start, err := seeker.Seek(0, io.SeekCurrent)
		if err != nil {
			return fmt.Errorf("%s: %w", w.doing, err)
		}
		w.rewind = func() error {
			_, err := seeker.Seek(start, io.SeekStart)
			return err
		}
	}
	limit := 2*s.patience.answer + time.Duration(size/s.patience.slowest)*time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errNoAnswer)
	defer cancel()
	return w.write(ctx)
}

// s3Put is one call of Put.
type s3Put struct {
	store  *S3
	name   string
	size   int64
	body   io.Reader
	rewind func() error // nil: the body can be read only once
	writer string
	doing  string
}

func (w *s3Put) write(ctx context.Context) error {
	if w.store.conditions.Load() != conditionsHonoured {
		_, err := w.store.stat(ctx, w.name)
		if err == nil {
			return fmt.Errorf("%s: %w", w.doing, ErrExists)
		}
		if !isNotFound(err) {
			return w.store.fault(ctx, w.doing, err)
		}
	}
	for try := 1; ; try++ {
		err := w.store.putOnce(ctx, w.store.key(w.name), w.size, w.body, w.writer)
		if err == nil {
			return nil
		}
		var own *bodyError
		if errors.As(err, &own) && ctx.Err() == nil {
			return fmt.Errorf("%s: %w", w.doing, own.err)
		}
		sent := wasSent(err)
		err = w.store.fault(ctx, w.doing, err)
		exists := errors.Is(err, ErrExists)
		if exists && try == 1 || !exists && !errors.Is(err, ErrUnavailable) {
			return err
		}
		if sent {
			if known, outcome := w.settle(ctx); known {
				return outcome
			}
		}
		if try == tries || w.rewind == nil || !pause(ctx, try) {
			return err
		}
		if err := w.rewind(); err != nil {
			return fmt.Errorf("%s: %w", w.doing, err)
		}
	}
}

// settle finds out what came of a request without an answer: it may have been
// carried out, and a server that refuses one before it has read the body may
// break the connection faster than its refusal is read.
func (w *s3Put) settle(ctx context.Context) (known bool, outcome error) {
	info, err := w.store.stat(ctx, w.name)
	known = err == nil
	if known && info.UserMetadata[writerTag] != w.writer {
		outcome = fmt.Errorf("%s: %w", w.doing, ErrExists)
	}
	return known, outcome
}

// pause waits before another try, and returns whether there is time for one.
func pause(ctx context.Context, try int) bool {
	select {
	case <-time.After(time.Duration(try) * 200 * time.Millisecond):
		return true
	case <-ctx.Done():
		return false
	}
}

// putOnce makes one request. It does not touch the body any more once it has
// returned. A *bodyError says that the request was broken off for the body's sake.
func (s *S3) putOnce(ctx context.Context, key string, size int64, body io.Reader, writer string) error {
	opts := minio.PutObjectOptions{DisableMultipart: true, UserMetadata: map[string]string{writerTag: writer}}
	if s.conditions.Load() != conditionsRefused {
		opts.SetMatchETagExcept("*")
	}
	whole := &wholeBody{r: contextReader{ctx, body}, size: size, left: size}
	if size == 0 {
		// The client would not even look at it.
		whole.finish()
	}
	var err error
	if whole.err == nil {
		_, err = s.writes.PutObject(ctx, s.bucket, key, whole, size, opts)
	}
	if cause := whole.detach(); cause != nil {
		return &bodyError{cause}
	}
	return err
}

// bodyError is an error of the body, not of the request that sent it.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return e.err.Error() }

// wholeBody gives a body's last bytes only when there are exactly as many as
// announced: a server takes a request that ends too soon for none.
type wholeBody struct {
	mu   sync.Mutex // net/http may still read when its request is over
	r    io.Reader
	size int64
	left int64
	err  error // of r
	over bool
}

func (w *wholeBody) Read(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over:
		return 0, errors.New("the request is over")
	case w.err != nil:
		return 0, w.err
	case w.left == 0:
		return 0, io.EOF
	}
	n, err := w.r.Read(b[:min(int64(len(b)), w.left)])
	w.left -= int64(n)
	switch {
	case w.left == 0:
		w.finish()
	case errors.Is(err, io.EOF):
		w.err = w.wrongLength()
	default:
		w.err = err
	}
	if w.err != nil {
		return 0, w.err
	}
	return n, nil
}

// finish checks that nothing follows.
func (w *wholeBody) finish() {
	switch _, err := io.ReadFull(w.r, make([]byte, 1)); {
	case err == nil:
		w.err = w.wrongLength()
	case !errors.Is(err, io.EOF):
		w.err = err
	}
}

func (w *wholeBody) wrongLength() error {
	return fmt.Errorf("the body has not the %d bytes that were announced", w.size)
}

// detach ends the reading and returns the body's error.
func (w *wholeBody) detach() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	return w.err
}

// Check asks whether the bucket can be used: listed, written and read. It leaves
// a small object, write-check, beside the packs. Storage that is full is in order.
// Until it has succeeded once, Put asks beforehand whether a pack is there.
func (s *S3) Check(ctx context.Context) error {
	const doing = "checking the S3 store"
	ctx, cancel := context.WithTimeoutCause(ctx, 2*s.patience.answer, errNoAnswer)
	defer cancel()
	for o := range s.reads.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix, MaxKeys: 1}) {
		if o.Err != nil {
			return s.fault(ctx, doing, o.Err)
		}
		break
	}
	if err := ctx.Err(); err != nil {
		return s.fault(ctx, doing, err)
	}
	conditions, err := s.tryConditions(ctx)
	if err := s.fault(ctx, doing, err); err != nil {
		if errors.Is(err, ErrNoSpace) {
			return nil
		}
		return err
	}
	if _, err := s.reads.StatObject(ctx, s.bucket, s.prefix+checkKey, minio.StatObjectOptions{}); err != nil {
		return s.fault(ctx, doing, err)
	}
	s.conditions.Store(conditions)
	return nil
}

// tryConditions writes the object of Check, again where it was not there, to see
// whether it could be overwritten.
func (s *S3) tryConditions(ctx context.Context) (int32, error) {
	for range 2 {
		err := s.checkWrite(ctx, true)
		var answer minio.ErrorResponse
		switch {
		case isPrecondition(err):
			return conditionsHonoured, nil
		case errors.As(err, &answer) && answer.StatusCode == http.StatusNotImplemented:
			return conditionsRefused, s.checkWrite(ctx, false)
		case err != nil:
			return conditionsUnknown, err
		}
	}
	return conditionsIgnored, nil
}

func (s *S3) checkWrite(ctx context.Context, conditional bool) error {
	const text = "Written by the cache server to see whether it can.\n"
	opts := minio.PutObjectOptions{DisableMultipart: true, ContentType: "text/plain"}
	if conditional {
		opts.SetMatchETagExcept("*")
	}
	_, err := s.reads.PutObject(ctx, s.bucket, s.prefix+checkKey, strings.NewReader(text), int64(len(text)), opts)
	return err
}
