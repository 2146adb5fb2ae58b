package cacheserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/observe"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// Config says where a server keeps its data and how it treats it.
type Config struct {
	// Data is the directory of what is kept on this machine, created when it is
	// missing: packs and index, where they are not said to be elsewhere, and the
	// local cache of packs.
	Data string
	// Storage is where packs are kept: a directory, s3://bucket/prefix, or empty
	// for a directory in Data. Of an S3 URL, S3 says the rest; a bucket that it
	// does not name is S3's.
	Storage string
	S3      packstore.S3Config
	// PackCache is how many bytes of packs that are on S3 are kept in Data as
	// well; 0 keeps none.
	PackCache int64
	// Index is the URL of a PostgreSQL database, the name of an SQLite file, or
	// empty for a file in Data.
	Index string
	// Redirect sends clients to S3 itself for a NAR that is all that its pack
	// holds.
	Redirect bool
	// Policy is what is collected, CollectEvery how often; 0 is never. Its HoldTime
	// is also how long Bazel's door holds blobs, and, unless it says otherwise, its
	// ActionRetention.
	Policy       collect.Policy
	CollectEvery time.Duration
	// Auth says who may do what; its zero value lets everyone do everything.
	Auth auth.Config
	// Caches are there once the server is open; others stay as they are.
	Caches []DeclaredCache
	Limits Limits
	Drain  Drain
	// PublicURL is where clients reach the server, for those that are told; empty
	// is what their own requests say.
	PublicURL string
	// Traces takes the spans of requests; none are made where it is nil.
	Traces   trace.TracerProvider
	observer *observe.Observer // nil for engines without a server
	StoreDir string            // of the paths it holds; storepath.DefaultDir when empty
	Log      *slog.Logger      // nothing is logged when nil
}

// Where says in a few words where the data is, without passwords.
func (c *Config) Where() string {
	where := c.Data
	if c.Storage != "" {
		where += ", packs in " + c.Storage
	}
	if scheme, rest, ok := strings.Cut(c.Index, "://"); ok {
		where += ", index in " + scheme + "://…" + rest[strings.LastIndex(rest, "@")+1:]
	} else if c.Index != "" {
		where += ", index in " + c.Index
	}
	return where
}

// Engines are what holds a server's data.
type Engines struct {
	Packs packstore.Store
	Index index.Index
	Store *cas.Store

	policy collect.Policy
	log    *slog.Logger
}

// OpenEngines opens packs and index, and fills in what c leaves open.
func OpenEngines(ctx context.Context, c *Config) (_ *Engines, err error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Policy.Grace == 0 {
		c.Policy.Grace = cas.DefaultGrace
	}
	if c.Policy.HoldTime == 0 {
		c.Policy.HoldTime = collect.DefaultHoldTime
	}
	if c.Policy.ActionRetention == 0 {
		c.Policy.ActionRetention = c.Policy.HoldTime
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return nil, fmt.Errorf("opening the data directory: %w", err)
	}
	e := &Engines{policy: c.Policy, log: c.Log}
	if e.Packs, err = openPacks(ctx, c); err != nil {
		return nil, err
	}
	if e.Index, err = openIndex(ctx, c); err != nil {
		return nil, errors.Join(err, closePacks(e.Packs))
	}
	e.Index = c.observer.Index(e.Index)
	e.Store = cas.New(e.Packs, e.Index, c.Policy.Grace)
	return e, nil
}

func openPacks(ctx context.Context, c *Config) (packstore.Store, error) {
	if !strings.HasPrefix(c.Storage, "s3://") {
		dir := c.Storage
		if dir == "" {
			dir = filepath.Join(c.Data, "packs")
		}
		return packstore.OpenDisk(dir)
	}
	bucket, prefix, err := packstore.ParseS3URL(c.Storage)
	if err != nil {
		return nil, err
	}
	if bucket != "" {
		c.S3.Bucket = bucket
	}
	c.S3.Prefix = prefix
	s3, err := packstore.NewS3(c.S3)
	if err != nil {
		return nil, err
	}
	if err := s3.Check(ctx); errors.Is(err, packstore.ErrUnavailable) {
		// It may come back as it would have later; until then the local cache serves.
		c.Log.Warn("the storage cannot be reached yet", "error", err)
	} else if err != nil {
		return nil, err
	}
	far := c.observer.Packs(s3)
	if c.PackCache == 0 {
		return far, nil
	}
	return packstore.OpenCached(filepath.Join(c.Data, "pack-cache"), c.PackCache, far)
}

func openIndex(ctx context.Context, c *Config) (index.Index, error) {
	switch {
	case strings.HasPrefix(c.Index, "postgres://"), strings.HasPrefix(c.Index, "postgresql://"):
		return index.OpenPostgres(ctx, c.Index)
	case strings.Contains(c.Index, "://"):
		scheme, _, _ := strings.Cut(c.Index, "://")
		return nil, fmt.Errorf("an index is postgres://… or a file, not %s://…", scheme)
	case c.Index != "":
		return index.OpenSQLite(ctx, c.Index)
	}
	return index.OpenSQLite(ctx, filepath.Join(c.Data, "index.sqlite"))
}

func closePacks(packs packstore.Store) error {
	if c, ok := packs.(interface{ Close() error }); ok {
		return c.Close()
	}
	return nil
}

// Collector collects what is not needed any more.
func (e *Engines) Collector() *collect.Collector {
	return collect.New(e.Store, e.Packs, e.Index, e.policy, e.log)
}

// Close ends the engines once nothing uses them any more.
func (e *Engines) Close() error {
	e.Store.Close()
	return errors.Join(e.Index.Close(), closePacks(e.Packs))
}
