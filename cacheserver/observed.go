package cacheserver

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/observe"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/page"
)

// observed is how a server tells how it fares: to Prometheus, and on its pages.
type observed struct {
	*observe.Observer
	usage   *observe.Usage
	pages   *page.Pages
	sampler *page.Sampler
}

func newObserved(s *Server) *observed {
	o := &observed{Observer: s.config.observer, usage: observe.NewUsage(s.Index.Usage, s.config.Log)}
	o.Register(o.usage, observe.UploadMemory(s.Store.Held))
	if pg, ok := observe.Unwrap(s.Index).(interface {
		Pools() map[string]*pgxpool.Stat
	}); ok {
		o.Register(observe.Pools(pg.Pools))
	}
	if cached, ok := s.Packs.(interface{ Stats() packstore.CacheStats }); ok {
		o.Register(observe.PackCache(cached.Stats))
	}
	retention := s.config.Policy.Retention
	if retention == 0 {
		retention = nixcache.DefaultRetention
	}
	o.pages = page.New(s.Index, page.Config{
		DefaultCache: DefaultCache, URL: s.door.URL, Usage: o.usage.Recent, Retention: retention, Log: s.config.Log,
	})
	o.sampler = &page.Sampler{Index: s.Index, Usage: o.usage.Count, Lookups: o.Lookups, Log: s.config.Log}
	return o
}

// run counts and takes samples until ctx is done.
func (o *observed) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return o.usage.Run(ctx) })
	g.Go(func() error { return o.sampler.Run(ctx) })
	return g.Wait()
}

// collector is one whose collections are counted.
func (s *Server) collector() *collect.Collector {
	c := s.Collector()
	c.OnReport(func(r collect.Report, err error) {
		s.observed.Collected(observe.Collection{
			Skipped: errors.Is(err, index.ErrLocked), Err: err, Took: r.Took, Freed: r.Freed, OverLimit: r.OverLimit,
			Removed: map[string]int64{
				"path": r.Paths + r.Evicted, "object": r.Objects, "action": r.Actions, "blob": r.Blobs, "chunk": r.Chunks, "pack": r.PacksDeleted,
			},
		})
	})
	return c
}
