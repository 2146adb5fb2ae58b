package cacheserver

import (
	"context"
	"errors"
	"net/http"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// uploadPatience is how long an upload waits for its turn.
const uploadPatience = 20 * time.Second

// errBusy is an upload's whose turn does not come.
var errBusy = errors.New("too many uploads at a time: try again")

// uploads are the places of those that are worked on, by whatever door. The others
// wait, unread, so that their clients do, too; what waits for too long is refused, to
// be tried again.
type uploads chan struct{}

func newUploads(limit int) uploads { return make(uploads, limit) }

// enter waits for a place, and returns errBusy where there is none for too long, or
// ctx's error.
func (u uploads) enter(ctx context.Context) (leave func(), err error) {
	leave = func() { <-u }
	select {
	case u <- struct{}{}:
		return leave, nil
	default:
	}
	late := time.NewTimer(uploadPatience)
	defer late.Stop()
	select {
	case u <- struct{}{}:
		return leave, nil
	case <-late.C:
		return nil, errBusy
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// handler lets requests with bodies through as there are places.
func (u uploads) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 || isGRPC(r) {
			next.ServeHTTP(w, r)
			return
		}
		leave, err := u.enter(r.Context())
		if errors.Is(err, errBusy) {
			w.Header().Set("Retry-After", "5")
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
		if err != nil {
			return
		}
		defer leave()
		next.ServeHTTP(w, r)
	})
}

// storing are the calls of gRPC that store something.
var storing = map[string]bool{
	"/google.bytestream.ByteStream/Write":                          true,
	repb.ContentAddressableStorage_BatchUpdateBlobs_FullMethodName: true,
	repb.ContentAddressableStorage_SpliceBlob_FullMethodName:       true,
	repb.ActionCache_UpdateActionResult_FullMethodName:             true,
}

// call is enter for a call of gRPC.
func (u uploads) call(ctx context.Context, method string) (leave func(), err error) {
	if !storing[method] {
		return func() {}, nil
	}
	leave, err = u.enter(ctx)
	switch {
	case errors.Is(err, errBusy):
		err = status.Error(codes.Unavailable, err.Error())
	case err != nil:
		err = status.FromContextError(err).Err()
	}
	return leave, err
}

func (u uploads) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	leave, err := u.call(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	defer leave()
	return next(ctx, req)
}

func (u uploads) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	leave, err := u.call(s.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	defer leave()
	return next(srv, s)
}
