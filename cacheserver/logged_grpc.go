package cacheserver

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
)

// callLog writes a line for each gRPC call, at debug.
type callLog struct {
	log     *slog.Logger
	callers *auth.Authenticator
}

type call struct {
	method string
	bytes  atomic.Int64 // of the messages sent
}

type callKey struct{}

// TagRPC implements stats.Handler.
func (l callLog) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if !l.log.Enabled(ctx, slog.LevelDebug) {
		return ctx
	}
	return context.WithValue(ctx, callKey{}, &call{method: info.FullMethodName})
}

// HandleRPC implements stats.Handler.
func (l callLog) HandleRPC(ctx context.Context, s stats.RPCStats) {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return
	}
	switch s := s.(type) {
	case *stats.OutPayload:
		c.bytes.Add(int64(s.WireLength))
	case *stats.End:
		from := ""
		if p, ok := peer.FromContext(ctx); ok {
			from = p.Addr.String()
		}
		l.log.Debug("request", "method", "gRPC", "path", c.method, "status", status.Code(s.Error).String(),
			"bytes", c.bytes.Load(), "seconds", time.Since(s.BeginTime).Seconds(),
			"door", doorBazel, "caller", callerOf(ctx, l.callers).Name(), "from", from)
	}
}

// TagConn implements stats.Handler.
func (callLog) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (callLog) HandleConn(context.Context, stats.ConnStats) {}
