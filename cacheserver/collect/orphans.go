package collect

import (
	"context"
	"fmt"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// removeOrphans deletes packs that the index does not know: ones whose upload
// was cut off before it was acknowledged, and ones whose deletion was. A pack
// that is younger than the grace may be about to be recorded. One that is older
// than the index is from before an index was lost, and holds what fsck can save.
func (c *Collector) removeOrphans(ctx context.Context, r *Report) error {
	type stored struct {
		name string
		size int64
		made time.Time
	}
	var old []stored
	limit := time.Now().Add(-c.policy.Grace)
	err := c.packs.List(ctx, func(name string, size int64) error {
		if made, ok := cas.PackTime(name); ok && made.Before(limit) {
			old = append(old, stored{name, size, made})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("looking for orphaned packs: %w", err)
	}
	// The index is asked after the storage: what was recorded in between is known.
	known := map[string]bool{}
	if err := c.eachPack(ctx, func(p index.Pack) { known[p.Name] = true }); err != nil {
		return fmt.Errorf("looking for orphaned packs: %w", err)
	}
	began, err := c.index.Began(ctx)
	if err != nil {
		return fmt.Errorf("looking for orphaned packs: %w", err)
	}
	for _, p := range old {
		switch {
		case known[p.name]:
			continue
		case p.made.Before(began):
			r.Foreign++
			continue
		}
		if err := c.packs.Delete(ctx, p.name); err != nil {
			return err
		}
		r.Orphans++
		r.Freed += p.size
	}
	return nil
}
