package bazelcache

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// askedIndex counts how many blobs it is asked for.
type askedIndex struct {
	index.Index
	asked atomic.Int64
}

func (x *askedIndex) Blobs(ctx context.Context, digests []digest.Digest) (map[digest.Digest]index.Blob, error) {
	x.asked.Add(int64(len(digests)))
	return x.Index.Blobs(ctx, digests)
}

// manyBlobs makes so many that they are worth remembering.
func manyBlobs(what string) (blobs [][]byte, request *repb.FindMissingBlobsRequest, digests []digest.Digest) {
	request = &repb.FindMissingBlobsRequest{}
	for i := range 2 * worthAsking {
		b := fmt.Appendf(nil, "%s %d", what, i)
		blobs = append(blobs, b)
		request.BlobDigests = append(request.BlobDigests, sha(b))
		digests = append(digests, name(functionSHA256, b))
	}
	return blobs, request, digests
}

func (h *harness) countMissing(t *testing.T, r *repb.FindMissingBlobsRequest) int {
	t.Helper()
	a, err := h.cas.FindMissingBlobs(t.Context(), r)
	must(t, err)
	return len(a.MissingBlobDigests)
}

func TestWhatWasFoundIsNotLookedUpAgain(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	x := &askedIndex{Index: h.idx.Index}
	h.idx.Index = x
	blobs, request, digests := manyBlobs("stored")
	_, missing, _ := manyBlobs("missing")
	h.put(t, blobs...)
	request.BlobDigests = append(request.BlobDigests, missing.BlobDigests...)
	for _, want := range []int{2 * len(digests), len(digests), len(digests)} {
		before := x.asked.Load()
		if n := h.countMissing(t, request); n != len(missing.BlobDigests) {
			t.Errorf("%d are missing", n)
		}
		if asked := x.asked.Load() - before; asked != int64(want) {
			t.Errorf("%d were looked up, want %d", asked, want)
		}
	}
}

func (h *harness) blobsOf(t *testing.T, digests []digest.Digest) (blobs []index.Blob) {
	t.Helper()
	found, err := h.idx.Blobs(t.Context(), digests)
	must(t, err)
	for _, d := range digests {
		if b, ok := found[d]; ok {
			blobs = append(blobs, b)
		}
	}
	return blobs
}

// release ends the hold of blobs as an eviction does.
func (h *harness) release(t *testing.T, blobs []index.Blob) {
	t.Helper()
	var ids []int64
	for _, b := range blobs {
		ids = append(ids, b.ID)
	}
	must(t, h.idx.Index.Update(t.Context(), func(tx index.Tx) error {
		_, err := tx.ReleaseBlobs(ids, time.Now().Add(2*DefaultRetention))
		return err
	}))
}

func (h *harness) sweep(t *testing.T) {
	t.Helper()
	must(t, h.idx.Index.Update(t.Context(), func(tx index.Tx) error {
		_, err := tx.SweepBlobs(0, 1000, time.Now())
		return err
	}))
}

func TestWhatWasFoundAndIsGoneIsMissing(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	blobs, request, digests := manyBlobs("stored")
	h.put(t, blobs...)
	for gone := 0; gone < len(digests); gone += 16 {
		if n := h.countMissing(t, request); n != gone {
			t.Errorf("%d are missing, want %d", n, gone)
		}
		h.release(t, h.blobsOf(t, digests[gone:gone+16]))
		h.sweep(t)
	}
}

// A client that was told of a blob between its release and the sweep must find it
// after the sweep.
func TestWhatWasFoundIsHeldAgainWhenItIsReleased(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	blobs, request, digests := manyBlobs("stored")
	h.put(t, blobs...)
	for range 3 {
		if n := h.countMissing(t, request); n != 0 {
			t.Fatalf("%d are missing", n)
		}
		h.sweep(t)
		if n := len(h.blobsOf(t, digests)); n != len(digests) {
			t.Fatalf("%d of %d are there after the sweep", n, len(digests))
		}
		h.release(t, h.blobsOf(t, digests))
	}
}

// What is remembered must not keep uses from being written down.
func TestWhatWasFoundLivesOn(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	blobs, request, digests := manyBlobs("stored")
	h.put(t, blobs...)
	h.countMissing(t, request)
	h.config.Retention += 2 * refreshStep // as if it were so much later
	before := time.Now().Add(h.config.Retention).Truncate(time.Second)
	h.countMissing(t, request)
	h.recordUses(t.Context())
	for _, b := range h.blobsOf(t, digests) {
		if b.Expires.Before(before) {
			t.Fatalf("blob %s expires at %v, want %v at least", b.Digest, b.Expires, before)
		}
	}
}

func TestWhatIsRememberedIsOfOneEpoch(t *testing.T) {
	t.Parallel()
	now := time.Now()
	names := []digest.Digest{name(functionSHA256, []byte("a")), name(functionSHA256, []byte("b"))}
	of := func(d digest.Digest, lives time.Duration) map[digest.Digest]index.Blob {
		return map[digest.Digest]index.Blob{d: {Digest: d, Expires: now.Add(lives)}}
	}
	p := newPresent()
	p.put(5, functionSHA256, of(names[0], time.Hour))
	p.put(5, functionSHA256, of(names[1], time.Minute))
	p.put(4, functionBLAKE3, of(names[0], time.Hour)) // by one who was slow
	for _, c := range []struct {
		what  string
		epoch int64
		fn    function
		lives time.Duration
		want  [2]bool
	}{
		{"as found", 5, functionSHA256, 0, [2]bool{true, true}},
		{"soon to be refreshed", 5, functionSHA256, time.Minute, [2]bool{true, false}},
		{"another epoch", 6, functionSHA256, 0, [2]bool{}},
		{"an earlier epoch", 4, functionSHA256, 0, [2]bool{}},
		{"another function", 5, functionBLAKE3, 0, [2]bool{}},
	} {
		got := make([]bool, 2)
		p.mark(c.epoch, c.fn, names, now.Add(c.lives), got)
		if [2]bool(got) != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
	p.put(6, functionSHA256, of(names[1], time.Hour))
	got := make([]bool, 2)
	p.mark(6, functionSHA256, names, now, got)
	if got[0] || !got[1] {
		t.Errorf("in the next epoch: %v", got)
	}
}
