package bazelcache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/bazelbuild/remote-apis/build/bazel/semver"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
)

const (
	// maxMessage is the longest message that is taken: clients have the same limit
	// unless they are told otherwise.
	maxMessage = 4 << 20
	// maxBatch is how many bytes of blobs are taken or given in one message. The
	// rest of maxMessage is for their digests.
	maxBatch = maxMessage - 512<<10
	// maxStreams is how many calls one connection may have open.
	maxStreams = 256
	// aliveEvery is how often a silent connection is asked whether it still is one.
	aliveEvery, aliveTimeout = 30 * time.Second, 20 * time.Second
)

// grpcServer makes a server with all services.
func (d *Door) grpcServer() *grpc.Server {
	s := grpc.NewServer(append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: aliveEvery, Timeout: aliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(d.unary),
		grpc.ChainStreamInterceptor(d.stream),
	}, d.config.Options...)...)
	repb.RegisterCapabilitiesServer(s, capabilities{d})
	repb.RegisterActionCacheServer(s, actionCache{d})
	repb.RegisterContentAddressableStorageServer(s, storage{d})
	bspb.RegisterByteStreamServer(s, byteStream{d})
	healthpb.RegisterHealthServer(s, d.health)
	reflection.Register(s)
	return s
}

// unary gives the errors of calls their codes.
func (d *Door) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	defer func() { err = d.end(ctx, info.FullMethod, err, recover()) }()
	return handle(ctx, req)
}

func (d *Door) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer func() { err = d.end(s.Context(), info.FullMethod, err, recover()) }()
	return handle(srv, s)
}

func (d *Door) end(ctx context.Context, method string, err error, panicked any) error {
	if panicked != nil {
		err = fmt.Errorf("panic: %v\n%s", panicked, debug.Stack())
	}
	if err == nil {
		return nil
	}
	v := judge(err)
	switch {
	case v.fault && ctx.Err() != nil && v.code == codes.Internal:
		// The client has left, or the server is closing: nobody reads an answer.
		v.code, v.message = codes.Canceled, "broken off"
	case v.fault:
		d.log.Error("call failed", "method", method, "code", v.code.String(), "error", err)
	default:
		d.log.Debug("call refused", "method", method, "code", v.code.String(), "error", err)
	}
	return v.grpcStatus().Err()
}

// allow checks an instance's name and the caller's rights on it.
func (d *Door) allow(ctx context.Context, instance string, write bool) error {
	if err := checkInstance(instance); err != nil {
		return err
	}
	return d.config.Authorize(ctx, instance, write)
}

type capabilities struct{ *Door }

// GetCapabilities implements repb.CapabilitiesServer.
func (c capabilities) GetCapabilities(ctx context.Context, r *repb.GetCapabilitiesRequest) (*repb.ServerCapabilities, error) {
	if err := c.allow(ctx, r.InstanceName, false); err != nil {
		return nil, err
	}
	writes := c.config.Authorize(ctx, r.InstanceName, true)
	if writes != nil && judge(writes).code == codes.Unavailable {
		return nil, writes
	}
	zstd := []repb.Compressor_Value{repb.Compressor_ZSTD}
	return &repb.ServerCapabilities{
		CacheCapabilities: &repb.CacheCapabilities{
			DigestFunctions:                 []repb.DigestFunction_Value{repb.DigestFunction_SHA256, repb.DigestFunction_BLAKE3},
			ActionCacheUpdateCapabilities:   &repb.ActionCacheUpdateCapabilities{UpdateEnabled: writes == nil},
			MaxBatchTotalSizeBytes:          maxBatch,
			SymlinkAbsolutePathStrategy:     repb.SymlinkAbsolutePathStrategy_ALLOWED,
			SupportedCompressors:            zstd,
			SupportedBatchUpdateCompressors: zstd,
			MaxCasBlobSizeBytes:             c.config.MaxBlob,
			SplitBlobSupport:                true,
			SpliceBlobSupport:               true,
			FastCdc_2020Params:              &repb.FastCdc2020Params{AvgChunkSizeBytes: averageChunk},
		},
		LowApiVersion:  &semver.SemVer{Major: 2},
		HighApiVersion: &semver.SemVer{Major: 2, Minor: 13},
	}, nil
}

// errStop ends a walk that has all that it was for.
var errStop = errors.New("enough")

// unlessStopped is err, unless that is how a walk was ended.
func unlessStopped(err error) error {
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}
