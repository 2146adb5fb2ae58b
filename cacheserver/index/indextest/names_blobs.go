package indextest

import (
	"fmt"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

var held = suite{
	"AHeldBlobIsNotSwept":                         holdBlobs,
	"AHoldIsNeverShortened":                       holdLonger,
	"AReleasedBlobGoesUnlessItHasAName":           releaseBlobs,
	"ABlobThatWasHeldLongerMeanwhileIsKept":       releaseLater,
	"HeldBlobsAreListedByTheirExpiry":             heldBlobs,
	"ABlobUnderAnObjectIsNotSwept":                objectsBlobStays,
	"LostChunksTakeObjectsAlong":                  dropObjects,
	"AFileHashThatWasNotKnownIsFilledIn":          fillIn,
	"AFileHashIsNotFilledInForOtherChunks":        fillInOthers,
	"AFileHashThatIsKnownIsNotReplaced":           fillInKnown,
	"ABlobTellsWhenItExpires":                     blobTellsExpiry,
	"HoldingAndReleasingNothingIsNothing":         holdNothing,
	"AHoldOfManyBlobsCountsThoseThatAreThereOnce": holdMany,
}

func hold(t testing.TB, x index.Index, until time.Time, ids ...int64) (n int) {
	t.Helper()
	update(t, x, func(tx index.Tx) (err error) {
		n, err = tx.HoldBlobs(ids, until)
		return err
	})
	return n
}

func release(t testing.TB, x index.Index, notAfter time.Time, ids ...int64) (n int) {
	t.Helper()
	update(t, x, func(tx index.Tx) (err error) {
		n, err = tx.ReleaseBlobs(ids, notAfter)
		return err
	})
	return n
}

// middle is between past and future.
var middle = time.Unix(2_000_000_000, 0)

func holdBlobs(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	b, other := addBlob(t, x, "b", "a"), addBlob(t, x, "other", "a")
	wantEqual(t, "held", hold(t, x, middle, b.ID), 1)
	wantEqual(t, "swept before", sweepBlobsOnce(t, x, middle), index.Swept{Removed: 1, Bytes: 42})
	_, err := x.Blob(t.Context(), other.Digest)
	wantErr(t, err, index.ErrNotFound)
	wantEqual(t, "held of those that are there", hold(t, x, middle, b.ID, other.ID), 1)
	wantEqual(t, "swept after", sweepBlobsOnce(t, x, middle.Add(time.Second)), index.Swept{Removed: 1, Bytes: 42})
}

func holdLonger(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	b := addBlob(t, x, "b", "a")
	for _, until := range []time.Time{middle, past} {
		wantEqual(t, "held", hold(t, x, until, b.ID), 1)
		got, err := x.Blob(t.Context(), b.Digest)
		must(t, err)
		wantEqual(t, "expires", got.Expires.Unix(), middle.Unix())
	}
}

func releaseBlobs(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	bare, named := addBlob(t, x, "bare", "a"), addBlob(t, x, "named", "a")
	putPath(t, x, path(c, named, 1))
	hold(t, x, middle, bare.ID, named.ID)
	wantEqual(t, "released", release(t, x, middle, bare.ID, named.ID), 2)
	wantEqual(t, "swept", sweepBlobsOnce(t, x, time.Now()), index.Swept{Removed: 1, Bytes: 42})
	if !holds(t, x, c, 1) {
		t.Error("the path is gone")
	}
	if got, err := x.NAR(t.Context(), c.ID, named.Hash); err != nil || got.ID != named.ID {
		t.Errorf("its NAR: %+v, %v", got, err)
	}
}

func releaseLater(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	b := addBlob(t, x, "b", "a")
	hold(t, x, middle.Add(time.Second), b.ID)
	wantEqual(t, "released", release(t, x, middle, b.ID), 0)
	wantEqual(t, "swept", sweepBlobsOnce(t, x, middle), index.Swept{})
}

func heldBlobs(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	var all []index.HeldBlob
	for i := range 20 {
		b := addBlob(t, x, fmt.Sprint(i), "a")
		expires := middle.Add(time.Duration(i*7%5) * time.Hour)
		switch i {
		case 3:
			continue // long expired
		case 4:
			putPath(t, x, path(c, b, 1))
		default:
			all = append(all, index.HeldBlob{ID: b.ID, Expires: expires, FileSize: b.FileSize})
		}
		hold(t, x, expires, b.ID)
	}
	for hours := range 6 {
		now := middle.Add(time.Duration(hours)*time.Hour + time.Millisecond) // times are whole seconds
		var want []index.HeldBlob
		for h := hours; h < 5; h++ {
			for _, b := range all {
				if b.Expires.Equal(middle.Add(time.Duration(h) * time.Hour)) {
					want = append(want, b)
				}
			}
		}
		for _, limit := range []int{1, 3, 100} {
			var got []index.HeldBlob
			for after := (index.HeldBlob{}); ; {
				page, err := x.HeldBlobs(t.Context(), now, after, limit)
				must(t, err)
				got = append(got, page...)
				if len(page) < limit {
					break
				}
				after = page[len(page)-1]
			}
			wantEqual(t, fmt.Sprintf("held after %d hours, %d at a time", hours, limit), got, want)
		}
	}
}

func objectsBlobStays(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addBlob(t, x, "b", "a")
	putObject(t, x, c, "log/a", b, past)
	wantEqual(t, "swept", sweepBlobsOnce(t, x, future), index.Swept{})
	update(t, x, func(tx index.Tx) error {
		_, err := tx.SweepObjects(0, 10, time.Now(), 0)
		return err
	})
	wantEqual(t, "swept without the object", sweepBlobsOnce(t, x, future), index.Swept{Removed: 1, Bytes: 42})
}

func dropObjects(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "b")
	c := addCache(t, x, "main")
	putObject(t, x, c, "hit", addBlob(t, x, "hit", "a"), time.Time{})
	putObject(t, x, c, "spared", addBlob(t, x, "spared", "b"), time.Time{})
	update(t, x, func(tx index.Tx) error {
		_, err := tx.DropChunks(hashes("a"))
		return err
	})
	_, err := x.Object(t.Context(), c.ID, "hit")
	wantErr(t, err, index.ErrNotFound)
	_, err = x.Object(t.Context(), c.ID, "spared")
	must(t, err)
}

// addAgain adds a blob once more, with that file and those chunks.
func addAgain(t testing.TB, x index.Index, b index.Blob, expires time.Time, names ...string) (got index.Blob) {
	t.Helper()
	update(t, x, func(tx index.Tx) (err error) {
		got, err = tx.AddBlob(b, chunks(names...), expires)
		return err
	})
	stored, err := x.Blob(t.Context(), b.Digest)
	must(t, err)
	wantEqual(t, "what is stored", stored, got)
	return got
}

func fillIn(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "b")
	full := blob("b")
	unknown := full
	unknown.FileHash, unknown.FileSize = digest.Hash{}, 0
	names := []string{"a", "b", "a"}
	first := addAgain(t, x, unknown, past, names...)
	if first.FileHash != (digest.Hash{}) {
		t.Errorf("it was added without a FileHash, and has %s", first.FileHash)
	}
	wantEqual(t, "again without", addAgain(t, x, unknown, past, names...), first)
	got := addAgain(t, x, full, middle, names...)
	full.ID, full.Expires = first.ID, got.Expires
	wantEqual(t, "filled in", got, full)
	wantEqual(t, "again without, once it is known", addAgain(t, x, unknown, past, names...), full)
	wantWhole(t, x, got, 3)
}

func fillInOthers(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "b", "c")
	unknown := blob("b")
	unknown.FileHash, unknown.FileSize = digest.Hash{}, 0
	first := addAgain(t, x, unknown, past, "a", "b")
	for _, others := range [][]string{{"a"}, {"a", "b", "c"}, {"b", "a"}, {"c"}, {}} {
		wantEqual(t, "left as it is", addAgain(t, x, blob("b"), past, others...), first)
	}
	wantWhole(t, x, first, 2)
}

func fillInKnown(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	first := addBlob(t, x, "b", "a")
	other := first
	other.FileHash, other.FileSize = digest.Of([]byte("another file")), 1
	wantEqual(t, "left as it is", addAgain(t, x, other, past, "a"), first)
}

func blobTellsExpiry(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addAgain(t, x, blob("b"), middle.Add(time.Millisecond), "a")
	wantEqual(t, "expires", b.Expires.Unix(), middle.Unix())
	wantEqual(t, "an earlier one", addAgain(t, x, blob("b"), past, "a"), b)
	later := addAgain(t, x, blob("b"), future, "a")
	wantEqual(t, "a later one", later.Expires.Unix(), future.Unix())
	putPath(t, x, path(c, b, 1))
	p, err := x.Path(t.Context(), c.ID, hash32(1))
	must(t, err)
	wantEqual(t, "of a path's NAR", p.NAR, later)
	nar, err := x.NAR(t.Context(), c.ID, b.Hash)
	must(t, err)
	wantEqual(t, "of a NAR", nar, later)
}

func holdNothing(t *testing.T, x index.Index, _ func() index.Index) {
	wantEqual(t, "held", hold(t, x, middle), 0)
	wantEqual(t, "released", release(t, x, middle), 0)
	wantEqual(t, "held of those that are not there", hold(t, x, middle, 7, 8), 0)
	wantEqual(t, "released of those that are not there", release(t, x, middle, 7, 8), 0)
}

func holdMany(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	var ids []int64
	update(t, x, func(tx index.Tx) error {
		for i := range 500 {
			b, err := tx.AddBlob(blob(fmt.Sprint(i)), chunks("a"), past)
			if err != nil {
				return err
			}
			ids = append(ids, b.ID)
		}
		return nil
	})
	twice := append(ids, ids...)
	for i := range int64(50_000) {
		twice = append(twice, ids[len(ids)-1]+1+i)
	}
	wantEqual(t, "held", hold(t, x, middle, twice...), 500)
	wantEqual(t, "released", release(t, x, middle, twice...), 500)
}
