package cacheserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
)

// CacheChange is what is set of a cache; nil leaves a setting as it is, and of a
// new cache as caches have it that nobody has configured.
type CacheChange struct {
	Public       *bool
	Priority     *int
	Retention    *time.Duration // 0 is for ever, index.GlobalRetention as the server's policy says
	UpstreamKeys []string
}

// DeclaredCache is a cache that is there, and as it says, once a server is open.
type DeclaredCache struct {
	Name string
	CacheChange
	Upstreams []nixcache.Upstream // where it looks for paths that it lacks
}

// CheckPriority returns an error for what no cache can have as its priority.
func CheckPriority(n int64) error {
	if n < math.MinInt32 || n > math.MaxInt32 {
		return fmt.Errorf("want a whole number from %d to %d: the lower, the earlier Nix asks", math.MinInt32, math.MaxInt32)
	}
	return nil
}

// Apply sets what is set, and says whether that changes anything.
func (s CacheChange) Apply(c *index.Cache) (changed bool) {
	if s.Public != nil && *s.Public != c.Public {
		c.Public, changed = *s.Public, true
	}
	if s.Priority != nil && *s.Priority != c.Priority {
		c.Priority, changed = *s.Priority, true
	}
	if s.Retention != nil && *s.Retention != c.Retention {
		c.Retention, changed = *s.Retention, true
	}
	if s.UpstreamKeys != nil && !slices.Equal(s.UpstreamKeys, c.UpstreamKeys) {
		c.UpstreamKeys, changed = s.UpstreamKeys, true
	}
	return changed
}

// CreateCache records a new cache. Its errors wrap index.ErrExists when there is
// one of that name.
func CreateCache(ctx context.Context, idx index.Index, name, storeDir string, settings CacheChange) (index.Cache, error) {
	c, err := nixcache.NewCache(name, storeDir)
	if err != nil {
		return c, err
	}
	settings.Apply(&c)
	err = idx.Update(ctx, func(tx index.Tx) (err error) {
		c.ID, err = tx.AddCache(c)
		return err
	})
	if err != nil {
		return c, fmt.Errorf("making the cache %q: %w", name, err)
	}
	return c, nil
}

// upstreamsOf are those of the declared caches, by name.
func upstreamsOf(declared []DeclaredCache) map[string][]nixcache.Upstream {
	upstreams := map[string][]nixcache.Upstream{}
	for _, d := range declared {
		upstreams[d.Name] = d.Upstreams
	}
	return upstreams
}

// reconcile makes the declared caches that are missing and changes those that are
// otherwise than declared. It removes none: a line that was lost from a file must
// not take a cache with it.
func reconcile(ctx context.Context, idx index.Index, storeDir string, declared []DeclaredCache, log *slog.Logger) error {
	if len(declared) == 0 {
		return nil
	}
	for _, d := range declared {
		for _, u := range d.Upstreams {
			if err := u.Check(); err != nil {
				return fmt.Errorf("the declared cache %q: %w", d.Name, err)
			}
		}
		if err := d.reconcile(ctx, idx, storeDir, log); err != nil {
			return fmt.Errorf("the declared cache %q: %w", d.Name, err)
		}
	}
	there, err := idx.Caches(ctx)
	if err != nil {
		return err
	}
	for _, c := range there {
		if !slices.ContainsFunc(declared, func(d DeclaredCache) bool { return d.Name == c.Name }) && c.Name != DefaultCache {
			log.Info("a cache that is not declared is left as it is", "cache", c.Name)
		}
	}
	return nil
}

func (d DeclaredCache) reconcile(ctx context.Context, idx index.Index, storeDir string, log *slog.Logger) error {
	there, err := idx.Cache(ctx, d.Name)
	if errors.Is(err, index.ErrNotFound) {
		there, err = CreateCache(ctx, idx, d.Name, storeDir, d.CacheChange)
		if err == nil {
			log.Info("cache created", "cache", d.Name, "public", there.Public, "by", "configuration")
			return nil
		}
		if errors.Is(err, index.ErrExists) { // another process was first
			there, err = idx.Cache(ctx, d.Name)
		}
	}
	if err != nil {
		return err
	}
	if there.StoreDir != storeDir {
		return fmt.Errorf("it is for the store %s, not %s: declare another name", there.StoreDir, storeDir)
	}
	if !d.Apply(&there) {
		return nil
	}
	if err := idx.Update(ctx, func(tx index.Tx) error {
		return tx.UpdateCache(there.ID, func(c *index.Cache) error {
			d.Apply(c)
			return nil
		})
	}); err != nil {
		return err
	}
	log.Info("cache configured", "cache", d.Name, "by", "configuration")
	return nil
}
