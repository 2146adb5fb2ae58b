package nixcache_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// tree makes files under a name that does not exist yet, and returns it.
func tree(t testing.TB) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	for _, dir := range []string{"bin", "empty", "lib/deep/er"} {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0o700))
	}
	must(t, os.WriteFile(filepath.Join(root, "bin/run"), []byte("#!/bin/sh\n"), 0o700))
	must(t, os.WriteFile(filepath.Join(root, `lib/deep/er/<a & "b">`), noise(300_000, "x"), 0o600))
	must(t, os.WriteFile(filepath.Join(root, "zero"), nil, 0o600))
	must(t, os.Symlink("../bin/run", filepath.Join(root, "lib/link")))
	return root
}

// archiveOf is the path of a file tree, in chunks of 100 kB.
func archiveOf(t testing.TB, root string) *archive {
	t.Helper()
	var b bytes.Buffer
	must(t, nar.Dump(&b, root))
	a := &archive{plain: b.Bytes()}
	a.info = &narinfo.NarInfo{StorePath: "/nix/store/" + hashA + "-tree", NarHash: digest.Of(a.plain), NarSize: int64(b.Len())}
	for rest := a.plain; len(rest) > 0; {
		piece := rest[:min(100_000, len(rest))]
		rest = rest[len(piece):]
		a.frames = append(a.frames, pack.Frame{Chunk: digest.Chunk{Hash: digest.Of(piece), Size: uint32(len(piece))}, Data: frame.Encode(nil, piece)})
	}
	return a
}

const treeListing = `{"root":{"entries":{` +
	`"bin":{"entries":{"run":{"executable":true,"narOffset":400,"size":10,"type":"regular"}},"type":"directory"},` +
	`"empty":{"entries":{},"type":"directory"},` +
	`"lib":{"entries":{"deep":{"entries":{"er":{"entries":{"<a & \"b\">":{"narOffset":1216,"size":300000,"type":"regular"}},` +
	`"type":"directory"}},"type":"directory"},"link":{"target":"../bin/run","type":"symlink"}},"type":"directory"},` +
	`"zero":{"narOffset":301696,"size":0,"type":"regular"}},"type":"directory"},"version":1}`

func TestAListingIsMadeOfAPathThatHasNone(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := archiveOf(t, tree(t))
	route := "/" + hashA + ".ls"
	want(t, "before", r.get(route), http.StatusNotFound)
	// One that comes before its path is taken, and counts until the path is there.
	want(t, "an early one", r.put(route, []byte(`{"version":1}`)), http.StatusNoContent)
	if got := r.get(route); got.Body.String() != `{"version":1}` {
		t.Errorf("an early one: %d %s", got.Code, got.Body)
	}
	r.pushArchive(t, a, 100)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if got := r.get(route); got.Code != http.StatusOK || got.Header().Get("Content-Type") != "application/json" || got.Body.String() != treeListing {
				t.Errorf("%d %s\nwant %s", got.Code, got.Body, treeListing)
			}
		})
	}
	wg.Wait()
	// Offsets are of the files' contents in the NAR.
	if !bytes.HasPrefix(a.plain[400:], []byte("#!/bin/sh\n")) || !bytes.HasPrefix(a.plain[1216:], noise(300_000, "x")) {
		t.Errorf("at 400 the NAR has %q, at 1216 %q", a.plain[400:420], a.plain[1216:1230])
	}
	// It is kept: the NAR is not read again.
	for _, f := range a.frames {
		r.spoil(t, f.Hash)
	}
	if got := r.again().get(route); got.Body.String() != treeListing {
		t.Errorf("again: %d %s", got.Code, got.Body)
	}
}

func TestTheListingOfAFile(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	on := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(on, []byte("hello"), 0o600))
	r.pushArchive(t, archiveOf(t, on), 1)
	const listing = `{"root":{"narOffset":96,"size":5,"type":"regular"},"version":1}`
	if got := r.get("/" + hashA + ".ls"); got.Body.String() != listing || !json.Valid(got.Body.Bytes()) {
		t.Errorf("%d %s", got.Code, got.Body)
	}
}

// A path that was pushed again with other contents has another listing.
func TestTheListingFollowsThePath(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	for _, contents := range []string{"a", "abc"} {
		on := filepath.Join(t.TempDir(), "file")
		must(t, os.WriteFile(on, []byte(contents), 0o600))
		r.pushArchive(t, archiveOf(t, on), 1)
		var got struct {
			Root struct{ Size int }
		}
		if err := json.Unmarshal(r.get("/"+hashA+".ls").Body.Bytes(), &got); err != nil || got.Root.Size != len(contents) {
			t.Errorf("%q: %+v, %v", contents, got, err)
		}
	}
}

func TestTheListingOfADamagedNARIsAnError(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := archiveOf(t, tree(t))
	r.pushArchive(t, a, 100)
	r.spoil(t, a.frames[1].Hash)
	for range 2 {
		want(t, "damaged", r.get("/"+hashA+".ls"), http.StatusInternalServerError)
	}
	r.wantLog(t, "damaged", "-tree")
	if got := r.get("/nar/" + a.info.NarHash.Nix32() + ".nar"); !got.broken {
		t.Errorf("the NAR unpacked: %d, %d bytes, not broken off", got.Code, got.Body.Len())
	}
}
