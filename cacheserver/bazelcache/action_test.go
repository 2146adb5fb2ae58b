package bazelcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	googleproto "google.golang.org/protobuf/proto"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

func encode(t testing.TB, m googleproto.Message) []byte {
	t.Helper()
	b, err := googleproto.Marshal(m)
	must(t, err)
	return b
}

// outputs is a result that names blobs in every way, with those blobs.
func outputs(t testing.TB, fn function, salt string) (*repb.ActionResult, map[string][]byte) {
	t.Helper()
	of := func(b []byte) *repb.Digest { return proto(name(fn, b)) }
	salted := func(s string) []byte { return []byte(s + salt) }
	inTree, below, inRoot, deep := salted("a file of the tree"), append(noise(1, 100_000), salt...), salted("a file of the root"), salted("deep")
	sub := &repb.Directory{Files: []*repb.FileNode{{Name: "below", Digest: of(below)}, {Name: "empty", Digest: of(nil)}}}
	tree := &repb.Tree{
		Root:     &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: of(inTree)}}, Directories: []*repb.DirectoryNode{{Name: "sub", Digest: of(encode(t, sub))}}},
		Children: []*repb.Directory{sub},
	}
	rootSub := &repb.Directory{Files: []*repb.FileNode{{Name: "deep", Digest: of(deep)}}}
	root := &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: of(inRoot)}}, Directories: []*repb.DirectoryNode{{Name: "sub", Digest: of(encode(t, rootSub))}}}
	blobs := map[string][]byte{
		"an output file": append(noise(2, 5000), salt...), "stdout": salted("said"), "stderr": salted("warned"),
		"a tree": encode(t, tree), "a file of a tree": inTree, "a file below in a tree": below,
		"a root directory": encode(t, root), "a directory below": encode(t, rootSub),
		"a file of a root directory": inRoot, "a file below a root directory": deep,
	}
	return &repb.ActionResult{
		OutputFiles:       []*repb.OutputFile{{Path: "out", Digest: of(blobs["an output file"])}, {Path: "empty", Digest: of(nil)}},
		OutputDirectories: []*repb.OutputDirectory{{Path: "dir", TreeDigest: of(blobs["a tree"])}, {Path: "both", TreeDigest: of(blobs["a tree"]), RootDirectoryDigest: of(blobs["a root directory"])}},
		OutputSymlinks:    []*repb.OutputSymlink{{Path: "link", Target: "out"}},
		StdoutDigest:      of(blobs["stdout"]), StderrDigest: of(blobs["stderr"]),
	}, blobs
}

func TestAResultIsCompleteOrAbsent(t *testing.T) {
	t.Parallel()
	for fname, f := range functions {
		t.Run(fname, func(t *testing.T) {
			t.Parallel()
			h := open(t, Config{})
			_, names := outputs(t, f.fn, "")
			for left := range names {
				result, blobs := outputs(t, f.fn, left)
				action := proto(name(f.fn, []byte(left)))
				_, err := h.ac.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{ActionDigest: action, ActionResult: result, DigestFunction: f.v})
				must(t, err)
				put := func(names ...string) {
					r := &repb.BatchUpdateBlobsRequest{DigestFunction: f.v}
					for _, n := range names {
						r.Requests = append(r.Requests, &repb.BatchUpdateBlobsRequest_Request{Digest: proto(name(f.fn, blobs[n])), Data: blobs[n]})
					}
					_, err := h.cas.BatchUpdateBlobs(t.Context(), r)
					must(t, err)
				}
				get := func() error {
					got, err := h.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: action, DigestFunction: f.v})
					if err == nil && !googleproto.Equal(got, result) {
						t.Errorf("got %v, want %v", got, result)
					}
					return err
				}
				all := slices.Collect(maps.Keys(blobs))
				put(slices.DeleteFunc(all, func(n string) bool { return n == left })...)
				if err := get(); status.Code(err) != codes.NotFound {
					t.Errorf("without %s: %v", left, err)
				}
				put(left)
				must(t, get())
			}
		})
	}
}

func TestATreeThatIsNoneMakesTheResultAbsent(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	for what, b := range map[string][]byte{
		"noise":               noise(1, 1000),
		"cut short":           encode(t, &repb.Tree{Root: &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: sha(nil)}}}})[:10],
		"a malformed digest":  encode(t, &repb.Tree{Root: &repb.Directory{Files: []*repb.FileNode{{Name: "f"}}}}),
		"a length of 8 EiB":   {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"a field of its own":  {0x1a, 0x00},
		"no Directory within": {0x0a, 0x01, 0xff},
	} {
		h.put(t, b)
		_, err := h.ac.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{ActionDigest: sha(b), ActionResult: &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{{TreeDigest: sha(b)}}}})
		must(t, err)
		_, err = h.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: sha(b)})
		if err == nil {
			t.Errorf("%s: it is told", what)
		}
		wantCode(t, err, codes.NotFound)
	}
}

func TestResultsAreInlinedAsAsked(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	result, blobs := outputs(t, functionSHA256, "")
	large := noise(9, 2<<20)
	result.OutputFiles = append(result.OutputFiles, &repb.OutputFile{Path: "large", Digest: sha(large)})
	for _, b := range blobs {
		h.put(t, b)
	}
	h.put(t, large)
	action := sha([]byte("action"))
	_, err := h.ac.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{ActionDigest: action, ActionResult: result})
	must(t, err)
	got, err := h.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: action, InlineStdout: true, InlineStderr: true, InlineOutputFiles: []string{"out", "large", "empty", "none"}})
	must(t, err)
	if string(got.StdoutRaw) != "said" || string(got.StderrRaw) != "warned" || !bytes.Equal(got.OutputFiles[0].Contents, blobs["an output file"]) {
		t.Errorf("inlined: %q, %q, %d bytes", got.StdoutRaw, got.StderrRaw, len(got.OutputFiles[0].Contents))
	}
	if n := len(got.OutputFiles[2].Contents); n > 0 {
		t.Errorf("%d bytes of a large output are inlined", n)
	}
}

func TestInstancesHaveTheirOwnResults(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	action := sha([]byte("action"))
	for i, instance := range []string{"", "a", "a/b", "A"} {
		_, err := h.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{InstanceName: instance, ActionDigest: action})
		wantCode(t, err, codes.NotFound)
		for range 2 { // the second replaces the first
			_, err = h.ac.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{InstanceName: instance, ActionDigest: action, ActionResult: &repb.ActionResult{ExitCode: int32(i)}})
			must(t, err)
		}
	}
	for i, instance := range []string{"", "a", "a/b", "A"} {
		got, err := h.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{InstanceName: instance, ActionDigest: action})
		must(t, err)
		if got.ExitCode != int32(i) {
			t.Errorf("instance %q: the result of another", instance)
		}
	}
}

func TestResultsThatAreRefused(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	for what, r := range map[string]*repb.ActionResult{
		"none":                  nil,
		"a malformed digest":    {StdoutDigest: &repb.Digest{Hash: "x"}},
		"a file without digest": {OutputFiles: []*repb.OutputFile{{Path: "x"}}},
		"too long":              {StdoutRaw: make([]byte, maxResult)},
	} {
		_, err := h.ac.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{ActionDigest: sha([]byte("a")), ActionResult: r})
		if err == nil {
			t.Errorf("%s: no error", what)
		}
		wantCode(t, err, codes.InvalidArgument)
	}
}

func TestGetTree(t *testing.T) {
	t.Parallel()
	for fname, f := range functions {
		t.Run(fname, func(t *testing.T) {
			t.Parallel()
			h := open(t, Config{})
			var all [][]byte
			// Two directories have the same contents, which are told once.
			leaf := func(i int) *repb.Directory {
				return &repb.Directory{Files: []*repb.FileNode{{Name: fmt.Sprint("file ", i%9), Digest: proto(name(f.fn, nil))}}}
			}
			root := &repb.Directory{}
			for i := range 10 {
				b := encode(t, leaf(i))
				all = append(all, b)
				mid := encode(t, &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "leaf", Digest: proto(name(f.fn, b))}, {Name: "empty", Digest: proto(name(f.fn, nil))}}})
				all = append(all, mid)
				root.Directories = append(root.Directories, &repb.DirectoryNode{Name: fmt.Sprint(i), Digest: proto(name(f.fn, mid))})
			}
			absent := []byte("absent")
			root.Directories = append(root.Directories, &repb.DirectoryNode{Name: "absent", Digest: proto(name(f.fn, absent))})
			all = append(all, encode(t, root))
			for _, b := range all {
				_, err := h.write(t.Context(), writeName("u", f.fn, name(f.fn, b), false), 0, b, 1000, true)
				must(t, err)
			}
			q := &repb.GetTreeRequest{DigestFunction: f.v, RootDigest: proto(name(f.fn, encode(t, root)))}
			whole, err := h.tree(t.Context(), q)
			must(t, err)
			const want = 1 + 9 + 9 + 1 // the root, what is below, and the empty one
			if len(whole) != 1 || len(whole[0].Directories) != want || !googleproto.Equal(whole[0].Directories[0], root) {
				t.Fatalf("%d pages, %d directories, want 1 and %d, the root first", len(whole), len(whole[0].Directories), want)
			}
			q.PageSize = 6
			pages, err := h.tree(t.Context(), q)
			must(t, err)
			for i, p := range pages {
				last := i == len(pages)-1
				if (p.NextPageToken == "") != last || !last && len(p.Directories) != 6 {
					t.Errorf("page %d has %d directories and the token %q", i, len(p.Directories), p.NextPageToken)
				}
			}
			q.PageToken = pages[0].NextPageToken
			rest, err := h.tree(t.Context(), q)
			must(t, err)
			got := append([]*repb.Directory{}, pages[0].Directories...)
			for _, p := range rest {
				got = append(got, p.Directories...)
			}
			for i, d := range whole[0].Directories {
				if len(got) != want || !googleproto.Equal(got[i], d) {
					t.Fatalf("directory %d of %d is another with pages", i, len(got))
				}
			}
			q.PageToken = "x"
			_, err = h.tree(t.Context(), q)
			wantCode(t, err, codes.InvalidArgument)
			_, err = h.tree(t.Context(), &repb.GetTreeRequest{DigestFunction: f.v, RootDigest: proto(name(f.fn, absent))})
			wantCode(t, err, codes.NotFound)
		})
	}
}

func TestRights(t *testing.T) {
	t.Parallel()
	h := open(t, Config{Authorize: func(_ context.Context, instance string, write bool) error {
		switch {
		case instance == "secret":
			return auth.ErrUnauthorized
		case instance == "public" && write:
			return auth.ErrForbidden
		}
		return nil
	}})
	good := sha([]byte("x"))
	for call, err := range h.withDigest(t.Context(), good, repb.DigestFunction_SHA256, "secret") {
		if err == nil {
			t.Errorf("%s: no error", call)
		}
		wantCode(t, err, codes.Unauthenticated)
	}
	for call, err := range h.withDigest(t.Context(), good, repb.DigestFunction_SHA256, "public") {
		switch call {
		case "UpdateActionResult", "SpliceBlob", "RegisterChunkMapping":
			wantCode(t, err, codes.PermissionDenied)
		case "FindMissingBlobs", "BatchReadBlobs":
			must(t, err)
		default:
			wantCode(t, err, codes.NotFound)
		}
	}
	_, err := h.cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{InstanceName: "public"})
	wantCode(t, err, codes.PermissionDenied)
	_, err = h.write(t.Context(), "public/"+writeName("u", 0, name(0, []byte("x")), false), 0, []byte("x"), 1, true)
	wantCode(t, err, codes.PermissionDenied)
	r := readRequest([]byte("x"))
	r.ResourceName = "secret/" + r.ResourceName
	_, err = h.read(t.Context(), r)
	wantCode(t, err, codes.Unauthenticated)
	for instance, writes := range map[string]bool{"": true, "public": false} {
		c, err := h.caps.GetCapabilities(t.Context(), &repb.GetCapabilitiesRequest{InstanceName: instance})
		must(t, err)
		if got := c.CacheCapabilities.ActionCacheUpdateCapabilities.UpdateEnabled; got != writes {
			t.Errorf("instance %q: update_enabled is %t", instance, got)
		}
	}
	_, err = h.caps.GetCapabilities(t.Context(), &repb.GetCapabilitiesRequest{InstanceName: "secret"})
	wantCode(t, err, codes.Unauthenticated)
}

// A result whose blobs are collected while it is looked at is absent, whatever
// was seen of them before.
func TestAResultWhoseBlobsAreCollectedIsAbsent(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	out := []byte("output")
	h.put(t, out)
	_, err := h.ac.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{ActionDigest: sha(out), ActionResult: &repb.ActionResult{StdoutDigest: sha(out)}})
	must(t, err)
	b, err := h.findOne(t.Context(), functionSHA256, digest.Digest{Hash: digest.Of(out), Size: int64(len(out))})
	must(t, err)
	must(t, h.idx.Index.Update(t.Context(), func(tx index.Tx) error {
		_, err := tx.DropChunks([]digest.Hash{b.Hash})
		return err
	}))
	_, err = h.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: sha(out)})
	wantCode(t, err, codes.NotFound)
	if _, err := h.findHash(t.Context(), b.Hash); !errors.Is(err, errNotFound) {
		t.Errorf("by its hash: %v", err)
	}
}
