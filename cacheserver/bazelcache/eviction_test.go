package bazelcache

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
)

// A result whose blobs have gone, or a blob that goes between the answer that names
// it and its download, would break a build that leaves its outputs in the cache.
// One build makes more than the cache may hold, and what was not used for longer than
// a build takes goes while the next ones run.
func TestCollectionNeverBreaksABuild(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	one, other := w.base(t), w.base(t)
	round := func(h *harness, seed int) (took time.Duration) {
		t.Helper()
		began := time.Now()
		remote := "grpc://" + h.conn.Target()[len("passthrough:///"):]
		targets := []string{"--", "//:g9", "//:g19", "//:large", "//:tree", "//:check"}
		minimal := append([]string{"--remote_download_minimal"}, targets...)
		w.seed(t, fmt.Sprint(seed))
		one.clean(t)
		one.build(t, remote, minimal...)
		other.build(t, remote, minimal...)
		other.build(t, remote, targets...) // fetches what was left out
		return time.Since(began)
	}
	warm := open(t, Config{})
	round(warm, -1)
	takes := round(warm, -2)
	// Uses are written down as exactly as a quarter of the retention, so that what a
	// round uses is within the grace at its end. What is past the grace must have more
	// than two of them to live, or collection leaves it to its retention.
	grace, retention := 16*takes, 52*takes
	h := openWithGrace(t, Config{Retention: retention}, grace)
	policy := collect.Policy{Grace: grace, HoldTime: retention, ActionRetention: retention, MaxSize: 64 << 10}
	collector := collect.New(h.store, h.packs, h.idx, policy, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var released atomic.Int64
	collected := make(chan error, 1)
	go func() {
		for {
			r, err := collector.Run(ctx)
			released.Add(r.Released)
			if ctx.Err() != nil {
				err = nil
			}
			if err != nil || ctx.Err() != nil {
				collected <- err
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	const least, most = 20, 60
	n := 0
	for ; n < least || n < most && released.Load() == 0; n++ {
		seed := n
		if n%4 == 3 {
			seed = n / 4 // built long ago: gone, or there in part
		}
		round(h, seed)
	}
	stop()
	must(t, <-collected)
	if released.Load() == 0 {
		t.Errorf("nothing was evicted in %d rounds", n)
	}
	t.Logf("%d blobs went in %d rounds", released.Load(), n)
}
