package index_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/pgtest"
)

var (
	past   = time.Unix(1, 0)
	future = time.Now().Add(time.Hour)
)

// replicas opens an index twice, with a cache in it.
func replicas(t *testing.T) (one, two *index.Postgres, cache int64) {
	t.Helper()
	url := pgtest.Database(t)
	one, two = openPostgres(t, url), openPostgres(t, url)
	must(t, one.Update(t.Context(), func(tx index.Tx) (err error) {
		cache, err = tx.AddCache(index.Cache{Name: "main"})
		return err
	}))
	return one, two, cache
}

// put records a path over a blob of one chunk of the same name.
func put(tx index.Tx, cache int64, n int, blob string, references ...int) (absent []string, err error) {
	b, err := tx.AddBlob(blobOf(blob), chunksOf(blob), past)
	if err != nil {
		return nil, err
	}
	p := index.Path{CacheID: cache, Hash: hashOf(n), Name: "name", NAR: b}
	for _, r := range references {
		p.References = append(p.References, hashOf(r)+"-name")
	}
	return tx.PutPath(p)
}

func TestReplicasStoreTheSameAtOnce(t *testing.T) {
	t.Parallel()
	one, two, cache := replicas(t)
	const packs, chunks = 40, 60
	stored := make([][]string, packs)
	var g errgroup.Group
	for i := range packs {
		for _, n := range rand.Perm(chunks)[:20] {
			stored[i] = append(stored[i], fmt.Sprint("chunk ", n))
		}
		g.Go(func() error {
			x := []*index.Postgres{one, two}[i%2]
			return x.Update(t.Context(), func(tx index.Tx) error {
				if err := tx.AddPack(fmt.Sprintf("p%02d", i), 1000, entriesOf(stored[i]...)); err != nil {
					return err
				}
				for _, n := range stored[i][:5] {
					if _, err := put(tx, cache, len(n)*100+i%7, n); err != nil {
						return err
					}
				}
				return tx.TouchPaths(cache, []string{hashOf(1), hashOf(2)})
			})
		})
	}
	must(t, g.Wait())
	places := map[string]bool{}
	all, err := one.Packs(t.Context(), "", packs+1)
	must(t, err)
	if len(all) != packs {
		t.Errorf("%d packs, want %d", len(all), packs)
	}
	for i, p := range all {
		var frames, live int64
		for _, name := range stored[i] {
			frames += int64(len(name))
		}
		held, err := one.ChunksIn(t.Context(), p.Name)
		must(t, err)
		for _, l := range held {
			live += int64(l.Length)
			if places[l.Hash.String()] {
				t.Errorf("chunk %s has two places", l.Hash)
			}
			places[l.Hash.String()] = true
		}
		if p.Dead != frames-live {
			t.Errorf("pack %s has %d dead bytes, want %d", p.Name, p.Dead, frames-live)
		}
	}
	for _, names := range stored {
		for _, n := range names {
			if !places[chunkOf(n).Hash.String()] {
				t.Errorf("chunk %q is nowhere", n)
			}
		}
	}
}

// Each of two changes waits for what the other has written.
func TestChangesThatWaitForEachOtherAreRunAgain(t *testing.T) {
	t.Parallel()
	one, two, _ := replicas(t)
	var met sync.WaitGroup
	met.Add(2)
	crosswise := func(x index.Index, first, second string) error {
		arrive := sync.OnceFunc(met.Done)
		return x.Update(t.Context(), func(tx index.Tx) error {
			if err := tx.AddPack("p"+first, 1000, entriesOf(first)); err != nil {
				return err
			}
			arrive()
			met.Wait()
			return tx.AddPack("p"+first+second, 1000, entriesOf(second))
		})
	}
	var g errgroup.Group
	g.Go(func() error { return crosswise(one, "a", "b") })
	g.Go(func() error { return crosswise(two, "b", "a") })
	must(t, g.Wait())
	total, dead, err := one.Stored(t.Context())
	if total != 4000 || dead != 2 || err != nil {
		t.Errorf("%d bytes, %d of them dead, %v", total, dead, err)
	}
}

// Within a change of one replica, the other collects.
func TestWhatAChangeUnderWayNeedsIsNotCollected(t *testing.T) {
	t.Parallel()
	one, two, cache := replicas(t)
	must(t, one.Update(t.Context(), addPack("p", "chunk", "old")))
	must(t, one.Update(t.Context(), func(tx index.Tx) error {
		if _, err := tx.AddBlob(blobOf("old"), chunksOf("old"), past); err != nil {
			return err
		}
		_, err := put(tx, cache, 1, "old")
		return err
	}))
	var expired index.Blob
	must(t, one.Update(t.Context(), func(tx index.Tx) (err error) {
		expired, err = tx.AddBlob(blobOf("expired"), chunksOf("old"), past)
		return err
	}))
	must(t, one.Update(t.Context(), func(tx index.Tx) error {
		if _, err := tx.AddBlob(expired, nil, past); err != nil {
			return err
		}
		if absent, err := put(tx, cache, 2, "chunk", 1); len(absent) != 0 || err != nil {
			t.Errorf("absent: %v, %v", absent, err)
		}
		return two.Update(t.Context(), func(tx index.Tx) error {
			removed, _, err := tx.RemoveUnused(cache, []string{hashOf(1)}, future)
			blobs, err2 := tx.SweepBlobs(0, 100, future)
			chunks, err3 := tx.SweepChunks(0, 100, future)
			if len(removed) != 0 || blobs.Removed != 0 || chunks.Removed != 0 {
				t.Errorf("removed paths %v, blobs %+v, chunks %+v", removed, blobs, chunks)
			}
			return errors.Join(err, err2, err3)
		})
	}))
}

// A change comes while what it needs is being removed: it has to wait, and then
// to learn that it is gone.
func TestAChangeLearnsOfWhatWasJustCollected(t *testing.T) {
	t.Parallel()
	one, two, cache := replicas(t)
	must(t, one.Update(t.Context(), addPack("p", "garbage", "reference", "path")))
	must(t, one.Update(t.Context(), func(tx index.Tx) error {
		if _, err := tx.AddBlob(blobOf("path"), chunksOf("path"), future); err != nil {
			return err
		}
		_, err := put(tx, cache, 1, "reference")
		return err
	}))
	var g errgroup.Group
	must(t, one.Update(t.Context(), func(tx index.Tx) error {
		swept, err := tx.SweepChunks(0, 100, future)
		removed, _, err2 := tx.RemoveUnused(cache, []string{hashOf(1)}, future)
		if swept.Removed != 1 || len(removed) != 1 {
			t.Errorf("swept %+v, removed %v", swept, removed)
		}
		g.Go(func() error {
			return two.Update(t.Context(), func(tx index.Tx) error {
				absent, err := put(tx, cache, 2, "path", 1)
				if want := []string{hashOf(1) + "-name"}; !slices.Equal(absent, want) {
					t.Errorf("absent: %v, want %v", absent, want)
				}
				_, missing := tx.AddBlob(blobOf("garbage"), chunksOf("garbage"), future)
				wantErr(t, missing, index.ErrMissingChunks)
				wantErr(t, tx.AddPin(index.Pin{CacheID: cache, Name: "pin", Hash: hashOf(1)}, 1), index.ErrNotFound)
				return err
			})
		})
		return errors.Join(err, err2)
	}))
	must(t, g.Wait())
}

// Pushes to one replica, all of the same few paths, and no rest for the
// collector of the other.
func TestCollectionLeavesNoHoles(t *testing.T) {
	t.Parallel()
	one, two, cache := replicas(t)
	const names, rounds = 12, 50
	ctx, done := context.WithCancel(t.Context())
	var collector, pushes errgroup.Group
	collector.Go(func() error {
		for ctx.Err() == nil {
			if err := collect(t.Context(), two, cache, names); err != nil {
				return err
			}
		}
		return nil
	})
	for pusher := range 4 {
		pushes.Go(func() error {
			for round := range rounds {
				if err := push(t.Context(), one, cache, fmt.Sprintf("p%dx%d", pusher, round), rand.N(names)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := pushes.Wait()
	done()
	must(t, errors.Join(err, collector.Wait()))
	for n := range names {
		p, err := one.Path(t.Context(), cache, hashOf(n))
		if errors.Is(err, index.ErrNotFound) {
			continue
		}
		must(t, err)
		if extents, err := one.Extents(t.Context(), p.NAR.ID); len(extents) == 0 || err != nil {
			t.Errorf("path %d: its NAR is at %v, %v", n, extents, err)
		}
		for _, ref := range p.References {
			if _, err := one.Path(t.Context(), cache, ref[:32]); err != nil {
				t.Errorf("path %d: its reference: %v", n, err)
			}
		}
	}
	for range names {
		must(t, collect(t.Context(), two, cache, names))
	}
	u, err := one.Usage(t.Context())
	if (u != index.Usage{}) || err != nil {
		t.Errorf("left when all may go: %+v, %v", u, err)
	}
}

var errAbsent = errors.New("a reference was collected")

// push stores a path as a client does: once more, with what it refers to before
// it, for as long as something that it needs has just been collected.
func push(ctx context.Context, x index.Index, cache int64, pack string, n int) error {
	var references []int
	if n%3 != 2 {
		references = []int{n + 1}
	}
	for attempt := 0; ; attempt++ {
		err := x.Update(ctx, func(tx index.Tx) error {
			name := fmt.Sprint("path ", n)
			if err := tx.AddPack(fmt.Sprint(pack, "x", attempt), 1000, entriesOf(name, "shared")); err != nil {
				return err
			}
			absent, err := put(tx, cache, n, name, references...)
			if len(absent) > 0 {
				return errAbsent
			}
			return err
		})
		switch {
		case errors.Is(err, errAbsent):
			if err := push(ctx, x, cache, fmt.Sprint(pack, "x", attempt, "r"), n+1); err != nil {
				return err
			}
		case !errors.Is(err, index.ErrMissingChunks):
			return err
		}
	}
}

// collect removes all that nothing needs.
func collect(ctx context.Context, x index.Index, cache int64, paths int) error {
	var hashes, packs []string
	for n := range paths {
		hashes = append(hashes, hashOf(n))
	}
	known, err := x.Packs(ctx, "", 10_000)
	if err != nil {
		return err
	}
	for _, p := range known {
		packs = append(packs, p.Name)
	}
	for _, step := range []func(index.Tx) error{
		func(tx index.Tx) error {
			_, _, err := tx.RemoveUnused(cache, hashes, future)
			return err
		},
		func(tx index.Tx) error {
			_, err := tx.SweepBlobs(0, 1000, future)
			return err
		},
		func(tx index.Tx) error {
			_, err := tx.SweepChunks(0, 1000, future)
			return err
		},
		func(tx index.Tx) error {
			_, err := tx.DropPacks(packs)
			return err
		},
	} {
		if err := x.Update(ctx, step); err != nil {
			return err
		}
	}
	return nil
}
