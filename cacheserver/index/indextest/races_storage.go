package indextest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

var storageRaces = suite{
	"ABlobIsSweptWhileAPathComes":       raceName,
	"ABlobIsSweptWhileItIsAddedAgain":   raceExpiry,
	"ChunksAreSweptWhileABlobComes":     raceBlob,
	"ChunksAreDroppedWhileABlobComes":   raceDrop,
	"ChunksAreMovedWhileTheyAreSwept":   raceMove,
	"APackIsDroppedWhileChunksComeToIt": racePack,
	"TheSameChunksComeTwice":            raceSameChunks,
}

func raceName(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	for i := range rounds {
		b := addBlob(t, x, fmt.Sprint(i), "a")
		var refused bool
		both(t, func() error {
			return change(x, func(tx index.Tx) error {
				_, err := tx.SweepBlobs(0, 1000, future)
				return err
			})
		}, func() error {
			// What error says that the blob is gone is the engine's to choose.
			err := change(y, func(tx index.Tx) error {
				_, err := tx.PutPath(path(c, b, i))
				return err
			})
			refused = err != nil
			return nil
		})
		got, err := x.NAR(t.Context(), c.ID, b.Hash)
		if there := err == nil && got == b; there == refused || holds(t, x, c, i) == refused {
			t.Fatalf("round %d: NAR = %+v, %v; the path was refused: %v", i, got, err, refused)
		}
	}
}

func raceExpiry(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a")
	for i := range rounds {
		addBlob(t, x, fmt.Sprint(i), "a")
		var b index.Blob
		both(t, func() error {
			return change(x, func(tx index.Tx) error {
				_, err := tx.SweepBlobs(0, 1000, time.Now())
				return err
			})
		}, func() error {
			return change(y, func(tx index.Tx) (err error) {
				b, err = tx.AddBlob(blob(fmt.Sprint(i)), chunks("a"), future)
				return err
			})
		})
		if got, err := x.Blob(t.Context(), b.Digest); got != b || err != nil {
			t.Fatalf("round %d: Blob = %+v, %v; it was acknowledged as %+v", i, got, err, b)
		}
		wantWhole(t, x, b, 1)
	}
}

// wantWhole fails the test when a blob does not have all of its chunks.
func wantWhole(t testing.TB, x index.Index, b index.Blob, n int) {
	t.Helper()
	got, err := x.Chunks(t.Context(), b.ID, 0, n+1)
	must(t, err)
	extents, err := x.Extents(t.Context(), b.ID)
	must(t, err)
	var inChunks, inExtents int64
	for _, l := range got {
		inChunks += int64(l.Length)
	}
	for _, e := range extents {
		inExtents += e.Length
	}
	if len(got) != n || inChunks != inExtents {
		t.Fatalf("it has %d chunks of %d, %d bytes in chunks, %d in extents", len(got), n, inChunks, inExtents)
	}
}

func raceBlob(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	for i := range rounds {
		names := numbered(fmt.Sprint(i, "-"), 20)
		addPack(t, x, fmt.Sprintf("p%d", i), names...)
		var b index.Blob
		var refused bool
		both(t, func() error {
			return change(x, func(tx index.Tx) error {
				_, err := tx.SweepChunks(0, 1000, future)
				return err
			})
		}, func() error {
			return unless(change(y, func(tx index.Tx) (err error) {
				b, err = tx.AddBlob(blob(fmt.Sprint(i)), chunks(names...), past)
				return err
			}), index.ErrMissingChunks, &refused)
		})
		if !refused {
			wantWhole(t, x, b, len(names))
		} else if _, err := x.Blob(t.Context(), blob(fmt.Sprint(i)).Digest); !errors.Is(err, index.ErrNotFound) {
			t.Fatalf("round %d: of a blob that was refused: %v", i, err)
		}
		sweepBlobsOnce(t, x, future)
		sweepChunksOnce(t, x, future)
		if got := where(t, x, names...); len(got) != 0 {
			t.Fatalf("round %d: %d chunks are left", i, len(got))
		}
	}
}

func raceDrop(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	c := addCache(t, x, "main")
	for i := range rounds {
		names := numbered(fmt.Sprint(i, "-"), 5)
		addPack(t, x, fmt.Sprintf("p%d", i), names...)
		var refused bool
		var lost []index.PathName
		both(t, func() error {
			return change(x, func(tx index.Tx) (err error) {
				lost, err = tx.DropChunks(hashes(names[2]))
				return err
			})
		}, func() error {
			return unless(change(y, func(tx index.Tx) error {
				b, err := tx.AddBlob(blob(fmt.Sprint(i)), chunks(names...), past)
				if err != nil {
					return err
				}
				_, err = tx.PutPath(path(c, b, i))
				return err
			}), index.ErrMissingChunks, &refused)
		})
		if refused == (len(lost) == 1) || holds(t, x, c, i) {
			t.Fatalf("round %d: the path was refused: %v; lost are %v", i, refused, lost)
		}
		wantDead(t, x, map[string]int64{fmt.Sprintf("p%d", i): int64(len(names[2]))})
		update(t, x, func(tx index.Tx) error {
			_, err := tx.DropChunks(hashes(names...))
			_, err2 := tx.DropPacks([]string{fmt.Sprintf("p%d", i)})
			return errors.Join(err, err2)
		})
	}
}

func raceMove(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	for i := range rounds {
		names := numbered(fmt.Sprint(i, "-"), 10)
		addPack(t, x, "old", names...)
		addBlob(t, x, "kept", names[:5]...)
		both(t, func() error {
			return change(x, func(tx index.Tx) error {
				_, err := tx.SweepChunks(0, 1000, future)
				return err
			})
		}, func() error {
			return change(y, func(tx index.Tx) error {
				list := entries(names...)
				if err := tx.AddPack("new", 100, list); err != nil {
					return err
				}
				_, err := tx.MoveChunks("new", list, []string{"old"})
				return err
			})
		})
		length := int64(len(names[0]))
		packs := dead(t, x)
		live, err := x.ChunksIn(t.Context(), "new")
		must(t, err)
		if packs["old"] != 10*length || packs["new"] != (10-int64(len(live)))*length {
			t.Fatalf("round %d: dead bytes %v, %d chunks of %d bytes lie in the new pack", i, packs, len(live), length)
		}
		sweepBlobsOnce(t, x, future)
		sweepChunksOnce(t, x, future)
		wantDead(t, x, map[string]int64{"old": 10 * length, "new": 10 * length})
		update(t, x, func(tx index.Tx) error {
			dropped, err := tx.DropPacks([]string{"old", "new"})
			if len(dropped) != 2 {
				t.Errorf("round %d: dropped %v", i, dropped)
			}
			return err
		})
	}
}

func racePack(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	for i := range rounds {
		name := fmt.Sprint("c", i)
		addPack(t, x, "old", name)
		addPack(t, x, "new", name) // no chunk lies in it yet
		var dropped []string
		var moved int
		var refused bool
		both(t, func() error {
			return change(x, func(tx index.Tx) (err error) {
				dropped, err = tx.DropPacks([]string{"new"})
				return err
			})
		}, func() error {
			// What error says that the pack is gone is the engine's to choose.
			err := change(y, func(tx index.Tx) (err error) {
				moved, err = tx.MoveChunks("new", entries(name), []string{"old"})
				return err
			})
			refused = err != nil
			return nil
		})
		if refused != (len(dropped) == 1) || refused == (moved == 1) {
			t.Fatalf("round %d: dropped %v, %d moved, the move was refused: %v", i, dropped, moved, refused)
		}
		lies := map[bool]string{true: "old", false: "new"}[refused]
		wantEqual(t, "place", where(t, x, name), map[string]index.Location{name: place(name, lies, 8)})
		update(t, x, func(tx index.Tx) error {
			_, err := tx.DropChunks(hashes(name))
			_, err2 := tx.DropPacks([]string{"old", "new"})
			return errors.Join(err, err2)
		})
	}
}

func raceSameChunks(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	var frames int64
	for i := range rounds {
		names := numbered(fmt.Sprint(i, "-"), 30)
		backwards := slices.Clone(names)
		slices.Reverse(backwards)
		add := func(x index.Index, pack string, names []string) func() error {
			return func() error {
				return change(x, func(tx index.Tx) error { return tx.AddPack(fmt.Sprint(pack, i), 100, entries(names...)) })
			}
		}
		both(t, add(x, "x", names), add(y, "y", backwards))
		if got := where(t, x, names...); len(got) != len(names) {
			t.Fatalf("round %d: %d chunks are stored, want %d", i, len(got), len(names))
		}
		frames += int64(len(names) * len(names[0]))
	}
	if _, dead, err := x.Stored(t.Context()); dead != frames || err != nil {
		t.Errorf("%d bytes are dead, %v, want %d: one frame of two of each chunk", dead, err, frames)
	}
}
