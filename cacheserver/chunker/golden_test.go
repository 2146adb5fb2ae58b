package chunker_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
)

// goldenInput returns 8 MiB and one byte: random data around a run of zeros
// that is long enough for cuts at the maximum size.
func goldenInput() []byte {
	input := randomBytes(0, 8<<20+1)
	clear(input[3<<20 : 4<<20])
	return input
}

// TestGolden pins the cut points. Stored chunks stop to deduplicate against new
// ones when a cut point moves, so a failure here is a bug in the change that
// caused it, never a reason to update the values. They come from an independent
// implementation, the Rust crate fastcdc (module v2020, normalization level 2),
// and cover what the published vectors don't: other averages, the maximum, and
// odd limits.
func TestGolden(t *testing.T) {
	t.Parallel()
	input := goldenInput()
	const wantInput = "26c6d6211eccbeae6b53368cebde0ca8466bf8db114ff2f569de31e424de1748"
	if got := hexSHA256(input); got != wantInput {
		t.Fatalf("sha256 of the input is %s, want %s; the cut points are not to blame", got, wantInput)
	}

	for _, tc := range []struct {
		name   string
		params chunker.Params
		count  int
		first  []int  // lengths of the first chunks, to ease debugging
		digest string // SHA-256 of all lengths in decimal, one per line
	}{
		{
			name:   "default for NARs",
			params: chunker.Params{Average: chunker.DefaultAverage},
			count:  50,
			first:  []int{142940, 146803, 65499, 131822},
			digest: "2a78ec2a32f1511b013d3cb81053aeaacdd09012d90266d6837dff040a031c2e",
		},
		{
			name:   "recommended by the specification",
			params: chunker.Params{Average: 512 << 10},
			count:  12,
			first:  []int{931330, 605051, 574266, 338900},
			digest: "f72caa239817b9eee6b0eb8c7a76cf73fccbb55e441100af8558e3ee57e04336",
		},
		{
			name:   "smallest average",
			params: chunker.Params{Average: 1 << 10},
			count:  6543,
			first:  []int{498, 1054, 1307, 1751},
			digest: "7619ed6e4a8698424048c24c2746e50abfba01ff85be70c9ffbc3efdbbbdeb4c",
		},
		{
			name:   "largest average",
			params: chunker.Params{Average: 1 << 20},
			count:  6,
			first:  []int{1070966, 1039681, 2151727, 1423534},
			digest: "917789d3cc948cdcdb75d45650514d4d54a7914dcfe9a756d7b53d9a7c548237",
		},
		{
			name:   "published vectors",
			params: chunker.Params{Average: 16384, Min: 4096, Max: 65535},
			count:  406,
			first:  []int{17713, 8519, 19688, 18253},
			digest: "4b2bb53c3428ceb731a55f3ccd1a985e9a99985b1b12f53664581f439ab59434",
		},
		{
			name:   "published vectors, seeded",
			params: chunker.Params{Average: 16384, Min: 4096, Max: 65535, Seed: 666},
			count:  413,
			first:  []int{21144, 4214, 17897, 24838},
			digest: "fa4ad31f6af5d06b34196be793792ffc09db70f70e5cacec7ce1dc2a0efed6b7",
		},
		{
			name:   "odd limits, high seed",
			params: chunker.Params{Average: 2048, Min: 65, Max: 2049, Seed: 1<<32 - 1},
			count:  4560,
			first:  []int{2049, 2049, 2049, 2049},
			digest: "a701a70e7b08c87c07e1d75fefe77516d11721c554bb7c6fe6d36c26eb3451fe",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := lengths(mustSplit(t, bytes.NewReader(input), tc.params))
			if len(got) != tc.count {
				t.Errorf("got %d chunks, want %d", len(got), tc.count)
			}
			if first := got[:min(len(got), len(tc.first))]; !slices.Equal(first, tc.first) {
				t.Errorf("first lengths are %v, want %v", first, tc.first)
			}
			var lines strings.Builder
			for _, n := range got {
				fmt.Fprintln(&lines, n)
			}
			if digest := hexSHA256([]byte(lines.String())); digest != tc.digest {
				t.Errorf("sha256 of the lengths is %s, want %s", digest, tc.digest)
			}
		})
	}
}
