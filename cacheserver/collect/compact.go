package collect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

const (
	// A pack is compacted once this share of its bytes is dead; where the packs
	// are over the size limit, earlier.
	halfDead    = 0.5
	crowdedDead = 0.1
	// Packs below smallPack are joined once there are manySmall of them: each
	// costs an inode, or a request.
	smallPack = 1 << 20
	manySmall = 32
	// compactedSize is how many bytes of frames are rewritten as one pack, and
	// what a compaction holds in memory.
	compactedSize = 32 << 20
	packPage      = 1000
)

func (c *Collector) compact(ctx context.Context, r *Report) error {
	return c.compactBelow(ctx, r, halfDead)
}

// compactBelow deletes the packs that are all dead, and rewrites what lives in
// those of which that share is.
func (c *Collector) compactBelow(ctx context.Context, r *Report, share float64) error {
	var touched, sparse, small []index.Pack
	settled := time.Now().Add(-c.policy.Grace)
	err := c.eachPack(ctx, func(p index.Pack) {
		if p.Dead > 0 {
			touched = append(touched, p)
		}
		if float64(p.Dead) >= share*float64(p.Size) {
			sparse = append(sparse, p)
		} else if p.Size < smallPack && p.Created.Before(settled) {
			small = append(small, p)
		}
	})
	if err != nil {
		return fmt.Errorf("listing packs: %w", err)
	}
	dropped, err := c.dropDead(ctx, r, touched)
	if err != nil {
		return err
	}
	if len(small) >= manySmall {
		sparse = append(sparse, small...)
	}
	var group []index.Pack
	var size int64
	for _, p := range sparse {
		if dropped[p.Name] {
			continue
		}
		live := p.Size - p.Dead
		if size+live > compactedSize && len(group) > 0 {
			if err := c.rewrite(ctx, r, group); err != nil {
				return err
			}
			group, size = nil, 0
		}
		group = append(group, p)
		size += live
	}
	return c.rewrite(ctx, r, group)
}

func (c *Collector) eachPack(ctx context.Context, visit func(index.Pack)) error {
	for after := ""; ; {
		page, err := c.index.Packs(ctx, after, packPage)
		if err != nil {
			return err
		}
		for _, p := range page {
			visit(p)
			after = p.Name
		}
		if len(page) < packPage {
			return nil
		}
	}
}

// dropDead deletes those of the packs in which no chunk lies.
func (c *Collector) dropDead(ctx context.Context, r *Report, packs []index.Pack) (map[string]bool, error) {
	dropped := map[string]bool{}
	for step := range slices.Chunk(packs, packPage) {
		sizes := map[string]int64{}
		names := make([]string, len(step))
		for i, p := range step {
			names[i], sizes[p.Name] = p.Name, p.Size
		}
		var gone []string
		err := c.index.Update(ctx, func(tx index.Tx) (err error) {
			gone, err = tx.DropPacks(names)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("removing dead packs: %w", err)
		}
		for _, name := range gone {
			dropped[name] = true
			if err := c.packs.Delete(ctx, name); err != nil {
				return nil, err
			}
			r.PacksDeleted++
			r.Freed += sizes[name]
		}
	}
	return dropped, nil
}

// rewrite puts what lives in the packs into a new one, but for packs that are
// damaged.
func (c *Collector) rewrite(ctx context.Context, r *Report, group []index.Pack) error {
	if len(group) == 0 || (len(group) == 1 && group[0].Dead == 0) {
		return nil
	}
	names := make([]string, len(group))
	sizes := map[string]int64{}
	for i, p := range group {
		names[i], sizes[p.Name] = p.Name, p.Size
	}
	done, err := c.store.Compact(ctx, names)
	r.Freed -= done.Written
	var damage *cas.DamagedError
	if errors.As(err, &damage) && sizes[damage.Pack] > 0 {
		c.log.Error("a pack cannot be compacted", "error", err)
		if !slices.Contains(r.Damaged, damage.Pack) {
			r.Damaged = append(r.Damaged, damage.Pack)
		}
		others := slices.DeleteFunc(slices.Clone(group), func(p index.Pack) bool { return p.Name == damage.Pack })
		return c.rewrite(ctx, r, others)
	}
	if err != nil {
		return fmt.Errorf("compacting packs: %w", err)
	}
	for _, name := range done.Dropped {
		if err := c.packs.Delete(ctx, name); err != nil {
			return err
		}
		r.PacksCompacted++
		r.Freed += sizes[name]
	}
	return nil
}
