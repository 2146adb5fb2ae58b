package indextest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

var blobs = suite{
	"AChunkKeepsItsFirstPlace":          chunksOfAPack,
	"LocateOfManyChunks":                locateMany,
	"APackIsRecordedOnce":               packTwice,
	"FramesThatHoldNoChunkAreDead":      deadOnArrival,
	"BlobIsItsChunksInOrder":            blobInOrder,
	"BlobWithMissingChunks":             blobMissingChunks,
	"BlobOfManyChunks":                  manyChunks,
	"ABlobIsLeftAsItIs":                 blobTwice,
	"BlobsTogetherAreAsEachByItself":    blobsTogether,
	"TheChunksOfABlobPageByPage":        chunkPages,
	"ABlobsNumberIsNeverUsedAgain":      numbersOfBlobs,
	"WhatIsInUseIsTouched":              touchChunks,
	"PacksPageByPage":                   packPages,
	"TheChunksInAPackByOffset":          chunksIn,
	"UsageCountsEverythingOnce":         usage,
	"AMovedChunkIsFoundInItsNewPlace":   moved,
	"OnlyChunksInThePacksNamedAreMoved": movedFrom,
}

// where returns the places of all chunks of that name, of which there should be
// one each.
func where(t testing.TB, x index.Index, names ...string) map[string]index.Location {
	t.Helper()
	found, err := x.Locate(t.Context(), hashes(names...))
	must(t, err)
	places := map[string]index.Location{}
	for _, n := range names {
		for _, l := range found {
			if l.Hash == chunk(n).Hash {
				if l.Touched.Before(past) || l.Touched.After(time.Now()) || l.Touched.Nanosecond() != 0 {
					t.Errorf("chunk %q was touched at %v", n, l.Touched)
				}
				l.Touched = time.Time{}
				places[n] = l
			}
		}
	}
	if len(places) != len(found) {
		t.Errorf("%d places of %d chunks", len(found), len(places))
	}
	return places
}

// place is where a frame lies that is as long as its chunk's name.
func place(name, pack string, offset int64) index.Location {
	return index.Location{Chunk: chunk(name), Pack: pack, Offset: offset, Length: uint32(len(name))}
}

func dead(t testing.TB, x index.Index) map[string]int64 {
	t.Helper()
	packs, err := x.Packs(t.Context(), "", 1000)
	must(t, err)
	out := map[string]int64{}
	for _, p := range packs {
		out[p.Name] = p.Dead
	}
	return out
}

func wantDead(t testing.TB, x index.Index, want map[string]int64) {
	t.Helper()
	if got := dead(t, x); !maps.Equal(got, want) {
		t.Errorf("dead bytes %v, want %v", got, want)
	}
}

func chunksOfAPack(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "one", "three", "one")
	addPack(t, x, "p2", "three", "fifteen")
	wantEqual(t, "places", where(t, x, "one", "three", "fifteen", "never stored"), map[string]index.Location{
		"one":     place("one", "p1", 8),
		"three":   place("three", "p1", 11),
		"fifteen": place("fifteen", "p2", 13),
	})
	if got, err := x.Locate(t.Context(), nil); len(got) != 0 || err != nil {
		t.Errorf("of none: %v, %v", got, err)
	}
	if got, err := x.Locate(t.Context(), hashes("one", "one")); len(got) != 1 || err != nil {
		t.Errorf("asked for twice: %v, %v", got, err)
	}
}

// numbered makes n names of the same length.
func numbered(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%06d", prefix, i)
	}
	return out
}

func locateMany(t *testing.T, x index.Index, _ func() index.Index) {
	names := numbered("c", many)
	addPack(t, x, "p1", names...)
	found, err := x.Locate(t.Context(), hashes(append(names, numbered("other", 1000)...)...))
	must(t, err)
	offsets := map[int64]bool{}
	for _, l := range found {
		offsets[l.Offset] = true
	}
	if len(found) != many || len(offsets) != many {
		t.Errorf("%d chunks found at %d offsets, want %d", len(found), len(offsets), many)
	}
}

func packTwice(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	err := x.Update(t.Context(), func(tx index.Tx) error { return tx.AddPack("p1", 200, entries("b")) })
	wantErr(t, err, index.ErrExists)
	if got := where(t, x, "b"); len(got) != 0 {
		t.Errorf("a chunk of the pack that was refused: %v", got)
	}
	total, dead, err := x.Stored(t.Context())
	if total != 100 || dead != 0 || err != nil {
		t.Errorf("stored %d, dead %d, %v", total, dead, err)
	}
}

func deadOnArrival(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "one", "three", "one", "one")
	addPack(t, x, "p2", "fifteen", "three", "nine", "nine")
	addPack(t, x, "p3")
	other := entries("other", "chunk")
	other[0].Kind = 7
	update(t, x, func(tx index.Tx) error { return tx.AddPack("p4", 100, other) })
	wantDead(t, x, map[string]int64{"p1": 6, "p2": 9, "p3": 0, "p4": 5})
	if got := where(t, x, "other"); len(got) != 0 {
		t.Errorf("an entry of another kind is a chunk: %v", got)
	}
	total, sum, err := x.Stored(t.Context())
	if total != 400 || sum != 20 || err != nil {
		t.Errorf("stored %d, dead %d, %v", total, sum, err)
	}
}

func blobInOrder(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "bb", "ccc")
	addPack(t, x, "p2", "dddd")
	b := addBlob(t, x, "b", "dddd", "a", "bb", "a", "ccc")
	got, err := x.Extents(t.Context(), b.ID)
	must(t, err)
	wantEqual(t, "extents, neighbours joined, order kept", got, []index.Extent{
		{Pack: "p2", Offset: 8, Length: 4},
		{Pack: "p1", Offset: 8, Length: 3},
		{Pack: "p1", Offset: 8, Length: 1},
		{Pack: "p1", Offset: 11, Length: 3},
	})
	empty := addBlob(t, x, "empty")
	if got, err := x.Extents(t.Context(), empty.ID); len(got) != 0 || err != nil {
		t.Errorf("extents of the empty blob: %v, %v", got, err)
	}
	if got, err := x.Chunks(t.Context(), empty.ID, 0, 10); len(got) != 0 || err != nil {
		t.Errorf("chunks of the empty blob: %v, %v", got, err)
	}
}

func blobTwice(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "bb")
	b := addBlob(t, x, "b", "a", "bb")
	if b.ID == 0 {
		t.Error("it has no number")
	}
	if again := addBlob(t, x, "b", "a"); again != b {
		t.Errorf("adding it again gave %+v, want %+v", again, b)
	}
	otherFile := blob("b")
	otherFile.FileHash, otherFile.FileSize = digest.Of(nil), 1
	update(t, x, func(tx index.Tx) error {
		again, err := tx.AddBlob(otherFile, chunks("never stored"), past)
		if again != b {
			t.Errorf("adding it again gave %+v, want %+v", again, b)
		}
		return err
	})
	if there, err := x.Blob(t.Context(), b.Digest); there != b || err != nil {
		t.Errorf("Blob = %+v, %v", there, err)
	}
	if got, err := x.Chunks(t.Context(), b.ID, 0, 10); len(got) != 2 || err != nil {
		t.Errorf("its chunks: %v, %v", got, err)
	}
	// The same hash with another size is another blob.
	longer := blob("b")
	longer.Size++
	update(t, x, func(tx index.Tx) error {
		other, err := tx.AddBlob(longer, chunks("a"), past)
		if other.ID == b.ID {
			t.Error("a blob of another size has the same number")
		}
		return err
	})
}

// Many blobs at once are what each by itself is.
func blobsTogether(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "bb", "ccc")
	there := addBlob(t, x, "there", "a")
	withFile := blob("late file")
	late := withFile
	late.FileHash, late.FileSize = digest.Hash{}, 0
	update(t, x, func(tx index.Tx) error {
		_, err := tx.AddBlob(late, chunks("bb"), past)
		return err
	})
	longer := blob("new")
	longer.Size++
	list := []index.NewBlob{
		{Blob: blob("new"), Chunks: chunks("a", "bb", "a")},
		{Blob: blob("there"), Chunks: chunks("bb")},
		{Blob: longer, Chunks: chunks("ccc")},
		{Blob: withFile, Chunks: chunks("bb")},
		{Blob: blob("new"), Chunks: chunks("ccc")},
		{Blob: blob("empty")},
	}
	var added []index.Blob
	update(t, x, func(tx index.Tx) (err error) {
		added, err = tx.AddBlobs(list, future)
		return err
	})
	if added[1].ID != there.ID || added[4].ID != added[0].ID || added[2].ID == added[0].ID {
		t.Errorf("blobs that are one have the numbers %+v", added)
	}
	for i, want := range [][]digest.Chunk{chunks("a", "bb", "a"), chunks("a"), chunks("ccc"), chunks("bb"), chunks("a", "bb", "a"), nil} {
		if b, err := x.Blob(t.Context(), list[i].Digest); b != added[i] || err != nil {
			t.Errorf("blob %d is %+v, %v, and AddBlobs gave %+v", i, b, err, added[i])
		}
		if added[i].FileHash != list[i].FileHash || !added[i].Expires.Equal(future) {
			t.Errorf("blob %d is %+v", i, added[i])
		}
		got, err := x.Chunks(t.Context(), added[i].ID, 0, 10)
		if err != nil || !slices.EqualFunc(got, want, func(l index.Location, c digest.Chunk) bool { return l.Chunk == c }) {
			t.Errorf("the chunks of blob %d are %v, %v", i, got, err)
		}
	}
	update(t, x, func(tx index.Tx) error {
		if none, err := tx.AddBlobs(nil, future); len(none) != 0 || err != nil {
			t.Errorf("of no blobs: %v, %v", none, err)
		}
		return nil
	})
	// What one lacks is told of that one, and leaves no half of it.
	lacking := []index.NewBlob{
		{Blob: blob("whole"), Chunks: chunks("a")},
		{Blob: blob("half"), Chunks: chunks("a", "never stored")},
		{Blob: blob("another"), Chunks: chunks("bb")},
	}
	update(t, x, func(tx index.Tx) error {
		_, err := tx.AddBlobs(lacking, future)
		if !errors.Is(err, index.ErrMissingChunks) || !strings.Contains(err.Error(), blob("half").String()) {
			t.Errorf("got error %v", err)
		}
		return nil
	})
	if _, err := x.Blob(t.Context(), blob("half").Digest); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("half a blob: %v", err)
	}
	update(t, x, func(tx index.Tx) error {
		lacking[1].Chunks = chunks("a", "ccc")
		_, err := tx.AddBlobs(lacking, future)
		return err
	})
}

func blobMissingChunks(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	otherSize := chunk("a")
	otherSize.Size++
	for name, list := range map[string][]digest.Chunk{
		"one was never stored":   chunks("a", "never stored", "a"),
		"one is of another size": {chunk("a"), otherSize},
	} {
		err := x.Update(t.Context(), func(tx index.Tx) error {
			_, err := tx.AddBlob(blob("b"), list, future)
			return err
		})
		if !errors.Is(err, index.ErrMissingChunks) {
			t.Errorf("%s: got error %v", name, err)
		}
		// The change goes on after the error.
		update(t, x, func(tx index.Tx) error {
			if _, err := tx.AddBlob(blob("b"), list, future); !errors.Is(err, index.ErrMissingChunks) {
				t.Errorf("%s: got error %v", name, err)
			}
			return tx.TouchChunks(hashes("a"))
		})
	}
	_, err := x.Blob(t.Context(), blob("b").Digest)
	wantErr(t, err, index.ErrNotFound)
	update(t, x, func(tx index.Tx) error {
		if s, err := tx.SweepChunks(0, 10, future); s.Removed != 1 || err != nil {
			t.Errorf("the chunk is in use by half a blob: %+v, %v", s, err)
		}
		return nil
	})
}

func manyChunks(t *testing.T, x index.Index, _ func() index.Index) {
	names := numbered("c", min(many, 10_000))
	addPack(t, x, "p1", names...)
	b := addBlob(t, x, "b", append(names, names...)...)
	got, err := x.Extents(t.Context(), b.ID)
	must(t, err)
	length := int64(len(strings.Join(names, "")))
	wantEqual(t, "extents", got, []index.Extent{{Pack: "p1", Offset: 8, Length: length}, {Pack: "p1", Offset: 8, Length: length}})
}

func chunkPages(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "bb", "ccc")
	addPack(t, x, "p2", "dddd")
	b := addBlob(t, x, "b", "dddd", "a", "bb", "a", "ccc")
	addBlob(t, x, "another", "bb", "ccc")
	all := []index.Location{
		place("dddd", "p2", 8), place("a", "p1", 8), place("bb", "p1", 9), place("a", "p1", 8), place("ccc", "p1", 11),
	}
	for limit := 1; limit <= len(all)+1; limit++ {
		for from := range len(all) + 2 {
			got, err := x.Chunks(t.Context(), b.ID, from, limit)
			must(t, err)
			for i := range got {
				got[i].Touched = time.Time{}
			}
			want := all[min(from, len(all)):min(from+limit, len(all))]
			if !slices.Equal(got, want) {
				t.Errorf("from %d, limit %d:\ngot  %v\nwant %v", from, limit, got, want)
			}
		}
	}
}

// A reader that holds a blob's number while the blob is removed must not be
// given another's bytes.
func numbersOfBlobs(t *testing.T, x index.Index, reopen func() index.Index) {
	addPack(t, x, "p1", "a", "bb")
	c := addCache(t, x, "main")
	before := addBlob(t, x, "before", "a")
	update(t, x, func(tx index.Tx) error {
		_, err := tx.SweepBlobs(0, 10, future)
		return err
	})
	x = reopen()
	after := addBlob(t, x, "after", "bb")
	if after.ID == before.ID {
		t.Error("a new blob has the number of one that was removed")
	}
	_, err := x.Extents(t.Context(), before.ID)
	wantErr(t, err, index.ErrNotFound)
	_, err = x.Chunks(t.Context(), before.ID, 0, 10)
	wantErr(t, err, index.ErrNotFound)
	err = x.Update(t.Context(), func(tx index.Tx) error {
		_, err := tx.PutPath(path(c, before, 1))
		return err
	})
	if err == nil || holds(t, x, c, 1) {
		t.Errorf("a path over a blob that was removed is recorded, error %v", err)
	}
}

func touchChunks(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "bb")
	before, err := x.Locate(t.Context(), hashes("a", "bb"))
	must(t, err)
	stored := before[0].Touched
	if !before[1].Touched.Equal(stored) {
		t.Errorf("two chunks of one pack were stored at %v and %v", stored, before[1].Touched)
	}
	eventually(t, "the chunk is touched", func() bool {
		update(t, x, func(tx index.Tx) error { return tx.TouchChunks(hashes("never stored", "bb", "bb")) })
		found, err := x.Locate(t.Context(), hashes("bb"))
		must(t, err)
		return found[0].Touched.After(stored)
	})
	found, err := x.Locate(t.Context(), hashes("a"))
	must(t, err)
	if !found[0].Touched.Equal(stored) {
		t.Error("another chunk is touched, too")
	}
	// It is the time of the touch that a sweep goes by.
	update(t, x, func(tx index.Tx) error {
		if s, err := tx.SweepChunks(0, 10, stored.Add(time.Second)); s.Removed != 1 || err != nil {
			t.Errorf("swept %+v, %v, want the one that was not touched", s, err)
		}
		return nil
	})
	if got := where(t, x, "a", "bb"); len(got) != 1 || got["bb"].Pack != "p1" {
		t.Errorf("left are %v", got)
	}
}

func packPages(t *testing.T, x index.Index, _ func() index.Index) {
	var want []string
	for i := range 25 {
		want = append(want, fmt.Sprintf("0%02dabcdef", i*7%25))
		addPack(t, x, want[i], want[i])
	}
	slices.Sort(want)
	for _, limit := range []int{1, 7, 25, 100} {
		var got []string
		for after := ""; ; {
			page, err := x.Packs(t.Context(), after, limit)
			must(t, err)
			for _, p := range page {
				got = append(got, p.Name)
				if p.Size != 100 || p.Dead != 0 || p.Created.Before(past) || p.Created.After(time.Now()) {
					t.Errorf("pack %+v", p)
				}
			}
			if len(page) > limit {
				t.Errorf("a page of %d, the limit is %d", len(page), limit)
			}
			if len(page) < limit {
				break
			}
			after = page[len(page)-1].Name
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v, want %v", limit, got, want)
		}
	}
}

func chunksIn(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "ccc", "a", "ccc", "bb")
	addPack(t, x, "p2", "bb", "dddd")
	for pack, want := range map[string][]index.Location{
		"p1": {place("ccc", "p1", 8), place("a", "p1", 11), place("bb", "p1", 15)},
		"p2": {place("dddd", "p2", 10)},
		"p3": nil,
	} {
		got, err := x.ChunksIn(t.Context(), pack)
		must(t, err)
		for i := range got {
			got[i].Touched = time.Time{}
		}
		wantEqual(t, "in pack "+pack, got, want)
	}
}

func usage(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "bb", "bb")
	addPack(t, x, "p2", "bb", "ccc")
	addBlob(t, x, "without a name", "a")
	b := addBlob(t, x, "b", "a", "bb", "a")
	for _, name := range []string{"one", "two"} {
		c := addCache(t, x, name)
		for i := range 3 {
			putPath(t, x, path(c, b, i))
			putPath(t, x, path(c, b, i))
		}
	}
	u, err := x.Usage(t.Context())
	must(t, err)
	wantEqual(t, "usage", u, index.Usage{
		Packs: 2, PackBytes: 200, DeadBytes: 4, Paths: 6, Blobs: 2, BlobBytes: 2 * 42, Chunks: 3, ChunkBytes: 2 + 4 + 6,
	})
	total, dead, err := x.Stored(t.Context())
	if total != 200 || dead != 4 || err != nil {
		t.Errorf("stored %d, dead %d, %v", total, dead, err)
	}
}

func move(t testing.TB, x index.Index, to string, list []pack.Entry, from ...string) (moved int) {
	t.Helper()
	update(t, x, func(tx index.Tx) (err error) {
		if err := tx.AddPack(to, 100, list); err != nil {
			return err
		}
		moved, err = tx.MoveChunks(to, list, from)
		return err
	})
	return moved
}

func moved(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "bb", "ccc", "dddd")
	b := addBlob(t, x, "b", "a", "ccc", "dddd")
	before := where(t, x, "a", "bb", "ccc", "dddd")
	// The new frames are of other lengths than the old ones.
	list := entries("dddd", "a", "ccc", "new", "ccc")
	at := int64(8)
	for i := range list {
		list[i].Offset, list[i].Length = at, list[i].Length+10
		at += int64(list[i].Length)
	}
	other := pack.Entry{Kind: 9, Chunk: chunk("bb"), Offset: at, Length: 50}
	if n := move(t, x, "p2", append(list, other), "p1"); n != 3 {
		t.Errorf("%d chunks moved, want 3", n)
	}
	want := map[string]index.Location{"bb": before["bb"]}
	for _, e := range list[:4] {
		name := map[digest.Hash]string{
			chunk("dddd").Hash: "dddd", chunk("a").Hash: "a", chunk("ccc").Hash: "ccc", chunk("new").Hash: "new",
		}[e.Hash]
		want[name] = index.Location{Chunk: e.Chunk, Pack: "p2", Offset: e.Offset, Length: e.Length}
	}
	got := where(t, x, "a", "bb", "ccc", "dddd", "new")
	if got["ccc"].Offset == list[4].Offset { // it may lie in either of its frames
		want["ccc"] = index.Location{Chunk: chunk("ccc"), Pack: "p2", Offset: list[4].Offset, Length: list[4].Length}
	}
	wantEqual(t, "places", got, want)
	wantDead(t, x, map[string]int64{"p1": 1 + 3 + 4, "p2": 13 + 50})
	extents, err := x.Extents(t.Context(), b.ID)
	must(t, err)
	for _, e := range extents {
		if e.Pack != "p2" {
			t.Errorf("a part of the blob is said to lie at %+v", e)
		}
	}
	update(t, x, func(tx index.Tx) error {
		if dropped, err := tx.DropPacks([]string{"p1", "p2"}); len(dropped) != 0 || err != nil {
			t.Errorf("dropped packs with chunks: %v, %v", dropped, err)
		}
		return nil
	})
	err = x.Update(t.Context(), func(tx index.Tx) error {
		_, err := tx.MoveChunks("never added", list, []string{"p1", "p2"})
		return err
	})
	if err == nil {
		t.Error("chunks were moved to a pack that is not there")
	}
}

func movedFrom(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	addPack(t, x, "p2", "bb")
	addPack(t, x, "p3", "ccc")
	if n := move(t, x, "p4", entries("a", "bb", "ccc", "new"), "p1", "p3", "never added"); n != 2 {
		t.Errorf("%d chunks moved, want 2", n)
	}
	wantEqual(t, "places", where(t, x, "a", "bb", "ccc", "new"), map[string]index.Location{
		"a": place("a", "p4", 8), "bb": place("bb", "p2", 8), "ccc": place("ccc", "p4", 11), "new": place("new", "p4", 14),
	})
	wantDead(t, x, map[string]int64{"p1": 1, "p2": 0, "p3": 3, "p4": 2})
	if n := move(t, x, "p5", entries("a", "bb")); n != 0 {
		t.Errorf("%d chunks moved from no pack", n)
	}
	wantDead(t, x, map[string]int64{"p1": 1, "p2": 0, "p3": 3, "p4": 2, "p5": 3})
	var dropped []string
	update(t, x, func(tx index.Tx) (err error) {
		dropped, err = tx.DropPacks([]string{"p5", "p4", "p3", "p2", "p1", "never added", "p1"})
		return err
	})
	slices.Sort(dropped)
	wantEqual(t, "dropped", dropped, []string{"p1", "p3", "p5"})
	wantDead(t, x, map[string]int64{"p2": 0, "p4": 2})
	addPack(t, x, "p1", "dddd") // its name is free
}
