package bazelcache

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// forget is what time does.
func (k *known) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.blobs.young)
	clear(k.blobs.old)
}

// What is remembered of a blob must not be what a client is told of its being
// there, and its bytes must not be missed.
func TestABlobThatIsRememberedMayBeGone(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	b := []byte("remembered")
	h.put(t, b)
	_, err := h.read(t.Context(), readRequest(b))
	must(t, err)
	must(t, h.idx.Index.Update(t.Context(), func(tx index.Tx) error {
		found, err := h.idx.Blobs(t.Context(), []digest.Digest{name(functionSHA256, b)})
		if err != nil {
			return err
		}
		for _, blob := range found {
			if _, err := tx.ReleaseBlobs([]int64{blob.ID}, time.Now().Add(2*DefaultRetention)); err != nil {
				return err
			}
		}
		if _, err := tx.SweepBlobs(0, 100, time.Now()); err != nil {
			return err
		}
		_, err = tx.SweepChunks(0, 100, time.Now().Add(24*time.Hour))
		return err
	}))
	if !h.missing(t, b) {
		t.Error("it is said to be there")
	}
	must(t, filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Remove(path)
	}))
	_, err = h.read(t.Context(), readRequest(b))
	wantCode(t, err, codes.NotFound)
	a, err := h.cas.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{sha(b)}})
	must(t, err)
	wantCode(t, status.ErrorProto(a.Responses[0].Status), codes.NotFound)
	// Nor what keeps it from being stored anew.
	h.put(t, b)
	got, err := h.read(t.Context(), readRequest(b))
	must(t, err)
	if !bytes.Equal(got, b) {
		t.Errorf("it is %q", got)
	}
}

func TestFewBlobsAreRemembered(t *testing.T) {
	t.Parallel()
	k := newKnown()
	named := func(i int) knownName { return knownName{functionSHA256, name(functionSHA256, fmt.Append(nil, i))} }
	for i := range 2*maxKnown + 1 {
		k.put(named(i), knownBlob{})
		if n := len(k.blobs.young) + len(k.blobs.old); n > maxKnown {
			t.Fatalf("%d are remembered", n)
		}
	}
	if _, ok := k.get(named(2*maxKnown - 1)); !ok {
		t.Error("one of the last ones is forgotten")
	}
	if _, ok := k.get(named(0)); ok {
		t.Error("the first one is remembered")
	}
}
