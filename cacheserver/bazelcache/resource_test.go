package bazelcache

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

var hashX = digest.Of([]byte("x")).String()

func TestResourceNames(t *testing.T) {
	t.Parallel()
	d := digest.Digest{Hash: digest.Of([]byte("x")), Size: 1}
	for given, want := range map[string]resource{
		"blobs/" + hashX + "/1":                                        {Digest: d},
		"a/b/blobs/" + hashX + "/1":                                    {instance: "a/b", Digest: d},
		"blobs/blake3/" + hashX + "/1":                                 {fn: functionBLAKE3, Digest: d},
		"blobs/sha256/" + hashX + "/1":                                 {Digest: d},
		"compressed-blobs/zstd/" + hashX + "/1":                        {zstd: true, Digest: d},
		"i/compressed-blobs/zstd/blake3/" + hashX + "/1":               {instance: "i", zstd: true, fn: functionBLAKE3, Digest: d},
		"uploads/u/blobs/" + hashX + "/1":                              {upload: "u", Digest: d},
		"i/uploads/u/blobs/blake3/" + hashX + "/1/a/b":                 {instance: "i", upload: "u", fn: functionBLAKE3, Digest: d},
		"uploads/u/compressed-blobs/zstd/" + hashX + "/1/blobs/foo/16": {upload: "u", zstd: true, Digest: d},
	} {
		parse := parseRead
		if want.upload != "" {
			parse = parseWrite
		}
		if got, err := parse(given); got != want || err != nil {
			t.Errorf("%s: %+v, %v", given, got, err)
		}
	}
	for _, given := range []string{
		"", "/", "blobs", "blobs/" + hashX, "blobs/" + hashX + "/", "blobs/" + hashX + "/-1", "blobs/" + hashX + "/01", "blobs/" + hashX + "/+1",
		"blobs/" + hashX + "/1/more", "/blobs/" + hashX + "/1", "a//blobs/" + hashX + "/1", "blobs/" + hashX[1:] + "/1", "blobs/" + strings.ToUpper(hashX) + "/1",
		"blobs/md5/" + hashX + "/1", "compressed-blobs/" + hashX + "/1", "compressed-blobs/deflate/" + hashX + "/1", "operations/blobs/" + hashX + "/1",
		"blobs/" + hashX + "/9223372036854775808",
	} {
		if got, err := parseRead(given); err == nil {
			t.Errorf("%s: %+v", given, got)
		}
	}
	for _, given := range []string{"uploads", "uploads/u", "uploads//blobs/" + hashX + "/1", "uploads/u/" + hashX + "/1", "blobs/" + hashX + "/1", "uploads/u/uploads/u/blobs/" + hashX + "/1"} {
		if got, err := parseWrite(given); err == nil {
			t.Errorf("%s: %+v", given, got)
		}
	}
}

// FuzzResource sees that a name that is read says again what it was read from.
func FuzzResource(f *testing.F) {
	for _, s := range []string{"blobs/" + hashX + "/1", "i/uploads/u/compressed-blobs/zstd/blake3/" + hashX + "/1/meta", "a/b/c", "uploads/u/blobs//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, parse := range []func(string) (resource, error){parseRead, parseWrite} {
			r, err := parse(s)
			if err != nil {
				continue
			}
			if checkInstance(r.instance) != nil || r.Size < 0 {
				t.Fatalf("%q: %+v", s, r)
			}
			again := readName(r.fn, r.Digest, r.zstd)
			if r.upload != "" {
				again = writeName(r.upload, r.fn, r.Digest, r.zstd)
			}
			if r.instance != "" {
				again = r.instance + "/" + again
			}
			if got, err := parse(again); got != r || err != nil {
				t.Fatalf("%q is %+v, but %q is %+v, %v", s, r, again, got, err)
			}
		}
	})
}

// FuzzPath sees the same of the paths of HTTP.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/ac/" + hashX, "/cas/" + hashX, "/a/b/ac/" + hashX, "//ac/" + hashX, "ac/" + hashX, "/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, ok := parsePath(s)
		if !ok {
			return
		}
		kind := "cas"
		if e.action {
			kind = "ac"
		}
		again := fmt.Sprintf("/%s/%s", kind, e.hash)
		if e.instance != "" {
			again = "/" + e.instance + again
		}
		if got, ok := parsePath(again); got != e || !ok || checkInstance(e.instance) != nil || checkInstance(e.opaque()) == nil {
			t.Fatalf("%q is %+v, but %q is %+v, %t", s, e, again, got, ok)
		}
	})
}

// FuzzTree sees that a Tree that is none ends in an error, not in a panic or in
// memory that is not there.
func FuzzTree(f *testing.F) {
	f.Add([]byte{0x0a, 0x00, 0x12, 0x00})
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = readTree(bufio.NewReader(bytes.NewReader(b)), func(*repb.Directory) error { return nil })
		_ = isResult(b)
	})
}
