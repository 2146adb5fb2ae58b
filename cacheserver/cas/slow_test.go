package cas_test

import (
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// A pack that took so long to write that collection may take it for an orphan is
// not recorded: what was acknowledged would be deleted.
func TestAPackThatTookTheGraceToWriteIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	r := open(t)
	const grace = 100 * time.Millisecond
	s := cas.New(r.packs, r.index, grace)
	t.Cleanup(s.Close)
	slow := func() error { time.Sleep(grace); return nil }
	r.packs.beforePut.Store(&slow)
	f := numbered("a", 3)
	wantErr(t, s.PutFrames(t.Context(), f), packstore.ErrUnavailable)
	if n := missing(t, s, f...); n != len(f) {
		t.Errorf("%d of %d chunks are missing", n, len(f))
	}
	r.packs.beforePut.Store(nil)
	must(t, r.PutFrames(t.Context(), f)) // by a store with a longer grace
}
