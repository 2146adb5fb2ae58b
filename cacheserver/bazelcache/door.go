// Package bazelcache is the door for Bazel and for what speaks its protocols:
// the Remote Execution API's cache (gRPC), and the HTTP cache that compiler
// caches use, too. It serves the same store as the other doors: an action result
// is a name over blobs, a blob is chunks.
package bazelcache

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

const (
	// DefaultRetention is how long blobs and action results live after their last
	// use.
	DefaultRetention = 30 * 24 * time.Hour
	// DefaultMaxBlob is the longest blob that is taken, in bytes.
	DefaultMaxBlob = 16 << 30
)

// Config says how a door behaves.
type Config struct {
	// Retention is how long blobs and action results live after their last use;
	// DefaultRetention when 0.
	Retention time.Duration
	// MaxBlob is the longest blob that is taken, in bytes; DefaultMaxBlob when 0.
	MaxBlob int64
	// Authorize says whether the caller may read an instance, or write to it. Its
	// errors are those of auth.Subject.Check; everyone may do everything when it
	// is nil. The context has the gRPC metadata of a call.
	Authorize func(ctx context.Context, instance string, write bool) error
	// Options are for the gRPC servers, such as interceptors that say who calls.
	Options []grpc.ServerOption
	Log     *slog.Logger // nothing is logged when nil
}

// Door answers Bazel. Handler has its HTTP routes and gRPC, ServeGRPC only gRPC;
// Run does what goes on beside the requests.
type Door struct {
	store  *cas.Store
	index  index.Index
	config Config
	log    *slog.Logger
	pace   pace

	known   *known
	present *present
	uses    *uses
	uploads *uploads
	health  *health.Server
	// overHTTP answers the gRPC that net/http is given. It is a server of its own:
	// one that serves both ways cannot be stopped gracefully.
	overHTTP *grpc.Server
}

// New makes the door.
func New(store *cas.Store, idx index.Index, c Config) *Door {
	if c.Retention == 0 {
		c.Retention = DefaultRetention
	}
	if c.MaxBlob == 0 {
		c.MaxBlob = DefaultMaxBlob
	}
	if c.Authorize == nil {
		c.Authorize = func(context.Context, string, bool) error { return nil }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	d := &Door{
		store: store, index: idx, config: c, log: c.Log,
		pace:  pace{patience: bodyTime, slowest: slowestBody},
		known: newKnown(), present: newPresent(), uses: newUses(), health: health.NewServer(),
	}
	d.uploads = newUploads(d)
	d.overHTTP = d.grpcServer()
	return d
}

// Run writes down what is used until ctx is done. It then breaks off the uploads
// that wait for their clients to come back, and writes down what is left.
func (d *Door) Run(ctx context.Context) error {
	turn := time.NewTicker(usesEvery)
	defer turn.Stop()
	for {
		select {
		case <-turn.C:
			d.recordUses(ctx)
		case <-ctx.Done():
			d.uploads.close()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			d.recordUses(last)
			return nil
		}
	}
}

// Draining makes the health service say that no more calls are to come.
func (d *Door) Draining() { d.health.Shutdown() }

// ServeGRPC answers gRPC on a listener, which it closes, until ctx is done; calls
// under way then have as long as drain says to end.
func (d *Door) ServeGRPC(ctx context.Context, l net.Listener, drain time.Duration) error {
	s := d.grpcServer()
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	late := time.AfterFunc(drain, s.Stop)
	defer late.Stop()
	s.GracefulStop()
	if err := <-failed; !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil // it ended before it had begun
}
