package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// loose are items of their own, which refer to nothing.
func loose(name string, n int) []*item {
	seed := [32]byte(digest.Of([]byte(name)))
	items := make([]*item, n)
	for i := range items {
		it := newItem(seed, i, 0, nil)
		items[i] = &it
	}
	return items
}

// upload sends the chunks of an item that the server lacks.
func (v *server) upload(ctx context.Context, it *item) ([]digest.Chunk, error) {
	return v.push.Upload(ctx, it.info.NarSize, chunker.DefaultAverage, func(w io.Writer) error {
		_, err := w.Write(it.nar())
		return err
	})
}

// put pushes an item and returns its chunks.
func (v *server) put(ctx context.Context, it *item) ([]digest.Chunk, error) {
	chunks, err := v.upload(ctx, it)
	if err != nil {
		return nil, fmt.Errorf("uploading %s: %w", it.base, err)
	}
	if _, err := v.push.Commit(ctx, it.info, chunks); err != nil {
		return nil, fmt.Errorf("%s: %w", it.base, err)
	}
	return chunks, nil
}

// mustPut pushes items that the server has to take, and to serve then.
func (v *server) mustPut(t testing.TB, items ...*item) {
	t.Helper()
	for _, it := range items {
		_, err := v.put(t.Context(), it)
		must(t, err)
	}
	v.mustServe(t, items...)
}

// mustServe gets items that have to be there.
func (v *server) mustServe(t testing.TB, items ...*item) {
	t.Helper()
	for _, it := range items {
		if err := v.fetch(t.Context(), it); err != nil {
			t.Fatalf("server %d, %s: %v\n%s", v.number, it.base, err, v.log.notable())
		}
	}
}

func TestWhatOneReplicaTakesTheOthersServeAtOnce(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, s *storage) {
		pair := []*server{s.start(t, 0), s.start(t, 1)}
		if pair[0].key != pair[1].key {
			t.Errorf("they sign with different keys, %s and %s", pair[0].key, pair[1].key)
		}
		for i, it := range loose(t.Name(), 12) {
			one, other := pair[i%2], pair[(i+1)%2]
			// To have asked too early must not hide it.
			if err := other.fetch(t.Context(), it); !errors.Is(err, errGone) {
				t.Fatalf("before it was pushed: %v", err)
			}
			_, err := one.put(t.Context(), it)
			must(t, err)
			other.mustServe(t, it)
			one.mustServe(t, it)
		}
	})
}

// Replicas that are given the same paths at the same time take them all, and the
// index knows one copy of each chunk. What was stored twice is dead, and goes.
func TestReplicasThatTakeTheSamePathsKeepOneCopy(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, s *storage) {
		// Only the collection has a short grace: a server refuses a pack that a slow disk
		// takes longer for.
		const grace = "1s"
		pair := []*server{s.start(t, 0, "--gc-interval", "0"), s.start(t, 1, "--gc-interval", "0")}
		items := loose(t.Name(), 24)
		lists := make([][]digest.Chunk, len(items))
		for i, it := range items {
			g, ctx := errgroup.WithContext(t.Context())
			for p := range 4 {
				g.Go(func() error {
					chunks, err := pair[p%2].put(ctx, it)
					if p == 0 {
						lists[i] = chunks
					}
					return err
				})
			}
			must(t, g.Wait())
		}
		distinct := map[digest.Hash]bool{}
		for _, chunks := range lists {
			for _, c := range chunks {
				distinct[c.Hash] = true
			}
		}
		for _, v := range pair {
			v.mustServe(t, items...)
			v.stop(t)
		}
		before := s.inspect(t)
		if int(before.usage.Chunks) != len(distinct) || int(before.usage.Paths) != len(items) {
			t.Errorf("the index has %d paths of %d chunks, want %d of %d", before.usage.Paths, before.usage.Chunks, len(items), len(distinct))
		}
		time.Sleep(2 * time.Second) // past the grace
		// A limit that what lives just fits makes collection thorough.
		s.mustRun(t, "gc", "--grace", grace, "--max-size", fmt.Sprint(before.usage.PackBytes-before.usage.DeadBytes/2))
		after := s.inspect(t)
		t.Logf("%d chunks, %d copies stored, %d after collection", len(distinct), before.copies, after.copies)
		if after.usage.Chunks != before.usage.Chunks || after.usage.DeadBytes > after.usage.PackBytes/10 {
			t.Errorf("after collection: %+v", after.usage)
		}
		v := s.start(t, 0)
		v.mustServe(t, items...)
	})
}
