package indextest

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// storageRun is an index of few chunks and blobs, and its model.
type storageRun struct {
	*rapid.T
	t     testing.TB
	x     index.Index
	packs map[string]int64 // bytes of all frames
	lies  map[string]index.Location
	blobs map[string]modelBlob

	epoch int64                        // of blobs, before found
	found map[digest.Digest]index.Blob // after the last change
}

type modelBlob struct {
	chunks  []string
	expired bool
}

var (
	modelChunks = []string{"a", "bb", "ccc", "dddd", "eeeee"}
	modelBlobs  = []string{"x", "y", "z"}
)

func modelStorage(t *testing.T, x index.Index, _ func() index.Index) {
	rapid.Check(t, func(rt *rapid.T) {
		r := &storageRun{
			T: rt, t: t, x: x,
			packs: map[string]int64{}, lies: map[string]index.Location{}, blobs: map[string]modelBlob{},
		}
		for range rapid.IntRange(1, 5).Draw(rt, "changes") {
			var s steps
			for range rapid.IntRange(1, 6).Draw(rt, "steps") {
				s = append(s, r.step())
			}
			s.change(t, x)
			r.compare()
		}
		// The next run needs an empty index, too.
		steps{r.dropChunks(modelChunks), r.dropPacks(slices.Collect(maps.Keys(r.packs)))}.change(t, x)
		sweepBlobsOnce(t, x, future.Add(time.Second)) // those of no chunks
		u, err := x.Usage(t.Context())
		must(t, err)
		if (u != index.Usage{}) {
			t.Fatalf("left are %+v", u)
		}
	})
}

func (r *storageRun) step() step {
	some := rapid.SliceOfN(rapid.SampledFrom(modelChunks), 0, 6).Draw(r.T, "chunks")
	packs := rapid.SliceOfNDistinct(rapid.IntRange(0, 5), 0, 5, rapid.ID).Draw(r.T, "packs")
	var names []string
	for _, n := range packs {
		names = append(names, fmt.Sprint("p", n))
	}
	limit := rapid.IntRange(1, 4).Draw(r.T, "limit")
	switch rapid.SampledFrom([]string{"pack", "pack", "blob", "blob", "sweep blobs", "sweep chunks", "move", "move", "drop packs", "drop chunks"}).Draw(r.T, "step") {
	case "pack":
		return r.addPack(fmt.Sprint("p", limit), r.entries(some))
	case "blob":
		name := rapid.SampledFrom(modelBlobs).Draw(r.T, "blob")
		return r.addBlob(name, modelBlob{some, rapid.Bool().Draw(r.T, "expired")})
	case "sweep blobs":
		return r.sweepBlobs(limit)
	case "sweep chunks":
		return r.sweepChunks(limit, rapid.Bool().Draw(r.T, "settled"))
	case "move":
		slices.Sort(some)
		return r.move("p0", r.entries(slices.Compact(some)), names)
	case "drop packs":
		return r.dropPacks(names)
	default:
		return r.dropChunks(some[:min(len(some), 1)])
	}
}

// entries lays out frames whose lengths have nothing to do with the chunks'.
func (r *storageRun) entries(names []string) []pack.Entry {
	list := entries(names...)
	at := int64(8)
	for i := range list {
		list[i].Offset, list[i].Length = at, uint32(rapid.IntRange(1, 100).Draw(r.T, "length"))
		at += int64(list[i].Length)
		if rapid.IntRange(0, 9).Draw(r.T, "kind") == 9 {
			list[i].Kind = 2
		}
	}
	return list
}

func nameOf(e pack.Entry) string {
	return modelChunks[slices.IndexFunc(modelChunks, func(n string) bool { return chunk(n) == e.Chunk })]
}

func (r *storageRun) addPack(name string, list []pack.Entry) step {
	var refused bool
	return step{func(tx index.Tx) error {
		return unless(tx.AddPack(name, 100, list), index.ErrExists, &refused)
	}, func() { r.checkPack(name, list, refused) }}
}

func (r *storageRun) checkPack(name string, list []pack.Entry, refused bool) {
	_, there := r.packs[name]
	if refused != there {
		r.Errorf("pack %s was refused: %v", name, refused)
	}
	if there {
		return
	}
	r.packs[name] = 0
	for _, e := range list {
		r.packs[name] += int64(e.Length)
		if _, stored := r.lies[nameOf(e)]; !stored && e.Kind == pack.KindChunk {
			r.lies[nameOf(e)] = index.Location{Chunk: e.Chunk, Pack: name, Offset: e.Offset, Length: e.Length}
		}
	}
}

func (r *storageRun) addBlob(name string, b modelBlob) step {
	var refused bool
	return step{func(tx index.Tx) error {
		_, err := tx.AddBlob(blob(name), chunks(b.chunks...), map[bool]time.Time{true: past, false: future}[b.expired])
		return unless(err, index.ErrMissingChunks, &refused)
	}, func() {
		before, there := r.blobs[name]
		if there {
			before.expired = before.expired && b.expired
			b = before
		}
		whole := !slices.ContainsFunc(b.chunks, func(n string) bool { _, stored := r.lies[n]; return !stored })
		if refused == (there || whole) {
			r.Errorf("blob %s of %v was refused: %v", name, b.chunks, refused)
		}
		if there || whole {
			r.blobs[name] = b
		}
	}}
}

func (r *storageRun) sweepBlobs(limit int) step {
	var removed int64
	return step{func(tx index.Tx) error {
		removed = 0
		return sweepTx(func(from int64) (index.Swept, error) { return tx.SweepBlobs(from, limit, time.Now()) }, &removed, new(int64))
	}, func() {
		before := len(r.blobs)
		maps.DeleteFunc(r.blobs, func(_ string, b modelBlob) bool { return b.expired })
		if want := int64(before - len(r.blobs)); removed != want {
			r.Errorf("%d blobs swept, want %d", removed, want)
		}
	}}
}

func (r *storageRun) sweepChunks(limit int, settled bool) step {
	var removed, bytes int64
	return step{func(tx index.Tx) error {
		removed, bytes = 0, 0
		return sweepTx(func(from int64) (index.Swept, error) {
			return tx.SweepChunks(from, limit, map[bool]time.Time{true: future, false: past}[settled])
		}, &removed, &bytes)
	}, func() {
		var want, wantBytes int64
		maps.DeleteFunc(r.lies, func(n string, l index.Location) bool {
			for _, b := range r.blobs {
				if slices.Contains(b.chunks, n) {
					return false
				}
			}
			if settled {
				want++
				wantBytes += int64(l.Length)
			}
			return settled
		})
		if removed != want || bytes != wantBytes {
			r.Errorf("%d chunks of %d bytes swept, want %d of %d", removed, bytes, want, wantBytes)
		}
	}}
}

func sweepTx(step func(from int64) (index.Swept, error), removed, bytes *int64) error {
	for from := int64(0); ; {
		s, err := step(from)
		if err != nil {
			return err
		}
		*removed += s.Removed
		*bytes += s.Bytes
		if s.Next == 0 {
			return nil
		}
		from = s.Next
	}
}

func (r *storageRun) move(to string, list []pack.Entry, from []string) step {
	var refused bool
	var moved int
	return step{func(tx index.Tx) error {
		err := unless(tx.AddPack(to, 100, list), index.ErrExists, &refused)
		if err != nil || refused {
			return err
		}
		moved, err = tx.MoveChunks(to, list, from)
		return err
	}, func() {
		r.checkPack(to, list, refused)
		if refused {
			return
		}
		want := 0
		for _, e := range list {
			l := r.lies[nameOf(e)]
			if e.Kind == pack.KindChunk && l.Pack != to && slices.Contains(from, l.Pack) {
				r.lies[nameOf(e)] = index.Location{Chunk: e.Chunk, Pack: to, Offset: e.Offset, Length: e.Length}
				want++
			}
		}
		if moved != want {
			r.Errorf("%d chunks moved, want %d", moved, want)
		}
	}}
}

func (r *storageRun) dropPacks(names []string) step {
	var dropped []string
	return step{func(tx index.Tx) (err error) {
		dropped, err = tx.DropPacks(names)
		return err
	}, func() {
		var want []string
		for _, n := range names {
			_, there := r.packs[n]
			for _, l := range r.lies {
				there = there && l.Pack != n
			}
			if there {
				want = append(want, n)
				delete(r.packs, n)
			}
		}
		if !slices.Equal(sorted(dropped), sorted(want)) {
			r.Errorf("dropped %v, want %v", dropped, want)
		}
	}}
}

func (r *storageRun) dropChunks(names []string) step {
	return step{func(tx index.Tx) error {
		_, err := tx.DropChunks(hashes(names...))
		return err
	}, func() {
		for _, n := range names {
			if _, stored := r.lies[n]; stored {
				maps.DeleteFunc(r.blobs, func(_ string, b modelBlob) bool { return slices.Contains(b.chunks, n) })
			}
			delete(r.lies, n)
		}
	}}
}

func (r *storageRun) compare() {
	want := map[string]int64{}
	var sum index.Usage
	for name, frames := range r.packs {
		want[name] = frames
		sum.PackBytes += 100
	}
	for _, l := range r.lies {
		want[l.Pack] -= int64(l.Length)
		sum.ChunkBytes += int64(l.Size)
	}
	for _, n := range want {
		sum.DeadBytes += n
	}
	if got := dead(r.t, r.x); !maps.Equal(got, want) {
		r.Errorf("dead bytes %v, want %v", got, want)
	}
	if got := where(r.t, r.x, modelChunks...); !maps.Equal(got, r.lies) {
		r.Errorf("places %v, want %v", got, r.lies)
	}
	for _, name := range modelBlobs {
		r.compareBlob(name)
	}
	r.compareEpoch()
	sum.Packs, sum.Chunks, sum.Blobs, sum.BlobBytes = int64(len(r.packs)), int64(len(r.lies)), int64(len(r.blobs)), int64(42*len(r.blobs))
	got, err := r.x.Usage(r.t.Context())
	must(r.t, err)
	if got != sum {
		r.Errorf("usage %+v, want %+v", got, sum)
	}
	total, dead, err := r.x.Stored(r.t.Context())
	if err != nil || total != sum.PackBytes || dead != sum.DeadBytes {
		r.Errorf("stored %d, dead %d, %v, want %+v", total, dead, err, sum)
	}
}

func (r *storageRun) compareBlob(name string) {
	b, err := r.x.Blob(r.t.Context(), blob(name).Digest)
	model, there := r.blobs[name]
	var missing bool
	must(r.t, unless(err, index.ErrNotFound, &missing))
	if missing == there {
		r.Errorf("blob %s is missing: %v", name, missing)
	}
	if missing {
		return
	}
	got, err := r.x.Chunks(r.t.Context(), b.ID, 0, 100)
	must(r.t, err)
	if !slices.EqualFunc(got, model.chunks, func(l index.Location, n string) bool { return l.Chunk == chunk(n) }) {
		r.Errorf("blob %s has the chunks %v, want %v", name, got, model.chunks)
	}
}

// compareEpoch sees that nothing that was found is gone in the same epoch.
func (r *storageRun) compareEpoch() {
	epoch := epoch(r.t, r.x)
	var names []digest.Digest
	for _, name := range modelBlobs {
		names = append(names, blob(name).Digest)
	}
	found, err := r.x.Blobs(r.t.Context(), names)
	must(r.t, err)
	for d, before := range r.found {
		if b, there := found[d]; epoch == r.epoch && (!there || b.Expires.Before(before.Expires)) {
			r.Errorf("in epoch %d it was %+v and is %+v, %v", epoch, before, b, there)
		}
	}
	r.epoch, r.found = epoch, found
}
