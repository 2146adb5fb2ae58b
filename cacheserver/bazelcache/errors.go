package bazelcache

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

var (
	errInvalid     = errors.New("invalid request")
	errMismatch    = errors.New("the digest is another than the bytes have")
	errNotFound    = errors.New("not in the cache")
	errOutOfRange  = errors.New("the offset lies behind the end")
	errTooLarge    = errors.New("too large")
	errTooMany     = errors.New("too much for one answer")
	errSlow        = errors.New("the upload came too slowly")
	errTakenOver   = errors.New("another call goes on with this upload")
	errUnsupported = errors.New("unsupported")
)

// retryAfter is how long a client is asked to wait for storage or database to
// come back.
const retryAfter = 5 * time.Second

// verdict is what a client is told of an error.
type verdict struct {
	code    codes.Code
	status  int
	message string
	// fault is true for what is the server's own affair and is for its log.
	fault bool
}

// judge is the one place where errors become codes and statuses. What is the
// server's own affair, such as its paths, is not told.
func judge(err error) verdict {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	told := func(code codes.Code, status int) verdict {
		return verdict{code: code, status: status, message: err.Error()}
	}
	var missing *cas.MissingChunksError
	var tooLong *cas.TooLongError
	switch {
	case is(auth.ErrIssuerUnavailable):
		return told(codes.Unavailable, http.StatusServiceUnavailable)
	case is(auth.ErrForbidden):
		return told(codes.PermissionDenied, http.StatusForbidden)
	case is(auth.ErrUnauthorized):
		return told(codes.Unauthenticated, http.StatusUnauthorized)
	case is(cas.ErrDamaged):
		// Before the client's faults: what is damaged may look like one.
		return verdict{codes.DataLoss, http.StatusInternalServerError, "stored bytes are damaged; the server's log says which", true}
	case is(packstore.ErrNoSpace, index.ErrNoSpace):
		return verdict{codes.ResourceExhausted, http.StatusInsufficientStorage, "the server has no space left", true}
	case is(packstore.ErrUnavailable, index.ErrUnavailable, cas.ErrClosed, index.ErrClosed):
		return verdict{codes.Unavailable, http.StatusServiceUnavailable, "the server's storage or database cannot be reached now; try again later", true}
	case is(errSlow, os.ErrDeadlineExceeded):
		return verdict{code: codes.DeadlineExceeded, status: http.StatusRequestTimeout, message: errSlow.Error()}
	case is(errTooLarge):
		return told(codes.InvalidArgument, http.StatusRequestEntityTooLarge)
	case errors.As(err, &tooLong):
		return verdict{code: codes.InvalidArgument, status: http.StatusRequestEntityTooLarge, message: tooLong.Error()}
	case is(errUnsupported):
		return told(codes.InvalidArgument, http.StatusUnsupportedMediaType)
	case is(errInvalid, errMismatch):
		return told(codes.InvalidArgument, http.StatusBadRequest)
	case is(errTakenOver, errGivenUp):
		return told(codes.Aborted, http.StatusConflict)
	case is(errOutOfRange):
		return told(codes.OutOfRange, http.StatusRequestedRangeNotSatisfiable)
	case is(errTooMany):
		return told(codes.ResourceExhausted, http.StatusInsufficientStorage)
	case is(errNotFound):
		return told(codes.NotFound, http.StatusNotFound)
	case is(index.ErrNotFound, index.ErrMissingChunks), errors.As(err, &missing):
		// Chunks that were collected between two steps of a request are a blob that
		// is gone, too.
		return verdict{code: codes.NotFound, status: http.StatusNotFound, message: errNotFound.Error()}
	case is(context.Canceled, io.ErrClosedPipe):
		return verdict{code: codes.Canceled, status: http.StatusServiceUnavailable, message: "broken off"}
	case is(context.DeadlineExceeded):
		return verdict{code: codes.DeadlineExceeded, status: http.StatusRequestTimeout, message: "the client's time was over"}
	}
	if s, ok := status.FromError(err); ok {
		// Of the transport, or of an interceptor.
		return verdict{code: s.Code(), status: http.StatusInternalServerError, message: s.Message()}
	}
	return verdict{codes.Internal, http.StatusInternalServerError, "internal error; the server's log says which", true}
}

// grpcStatus is the status that a call ends with.
func (v verdict) grpcStatus() *status.Status {
	s := status.New(v.code, v.message)
	if v.code != codes.Unavailable {
		return s
	}
	if with, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)}); err == nil {
		return with
	}
	return s
}
