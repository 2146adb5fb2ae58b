package nixcache

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

func TestClipIsThatPartOfTheFile(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		// A byte of the file is where it lies.
		type place struct {
			pack string
			at   int64
		}
		places := func(extents []index.Extent) (out []place) {
			for _, e := range extents {
				if e.Length <= 0 {
					rt.Errorf("an extent of %d bytes", e.Length)
				}
				for i := range e.Length {
					out = append(out, place{e.Pack, e.Offset + i})
				}
			}
			return out
		}
		var extents []index.Extent
		for i := range rapid.IntRange(1, 6).Draw(rt, "extents") {
			extents = append(extents, index.Extent{
				Pack: fmt.Sprint("p", i), Offset: rapid.Int64Range(8, 100).Draw(rt, "offset"), Length: rapid.Int64Range(1, 20).Draw(rt, "length"),
			})
		}
		file := places(extents)
		from := rapid.IntRange(0, len(file)).Draw(rt, "from")
		length := rapid.IntRange(0, len(file)-from).Draw(rt, "length")
		got := places(clip(extents, byteRange{int64(from), int64(length)}))
		if want := file[from : from+length]; fmt.Sprint(got) != fmt.Sprint(want) {
			rt.Errorf("%d bytes at %d: got %v, want %v", length, from, got, want)
		}
	})
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"bytes=0-0", "bytes=5-", "bytes=-5", "bytes=-0", "bytes=0-1,2-3", "bytes=9223372036854775807-", "bytes=0-9223372036854775807", "bytes=-9223372036854775807", "bytes= 1-2 "} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		size = max(size, 1)
		r, ok := parseRange(header, size)
		switch {
		case !ok && r != byteRange{}:
			t.Fatalf("no range, and with it %+v", r)
		case ok && (r.length < 0 || r.start < 0 || r.start > size || r.length > size-r.start):
			t.Fatalf("%+v of %d bytes", r, size)
		}
	})
}
