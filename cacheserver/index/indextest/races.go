package indextest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// rounds is how often each race is run.
const rounds = 40

var races = suite{
	"APathIsRemovedWhileAReferrerComes":     raceReferrer,
	"APathIsRemovedWhileItIsPinned":         racePin,
	"APathIsRemovedWhileItIsUsed":           raceUse,
	"ABlobIsSweptWhileAPathComes":           raceName,
	"ABlobIsSweptWhileItIsAddedAgain":       raceExpiry,
	"ChunksAreSweptWhileABlobComes":         raceBlob,
	"ChunksAreDroppedWhileABlobComes":       raceDrop,
	"ChunksAreMovedWhileTheyAreSwept":       raceMove,
	"APackIsDroppedWhileChunksComeToIt":     racePack,
	"TheSameChunksComeTwice":                raceSameChunks,
	"TheSameBlobPathAndCacheComeTwice":      raceSame,
	"APinKeepsOneRevisionWhenTwoArePinned":  racePins,
	"ManyRowsAreTouchedInOppositeOrders":    raceOrder,
	"AReferrerAndItsReferenceComeAndGo":     raceChain,
	"ManyHandlesChangeTheSameRowsUnharmed":  raceManyHandles,
	"ASweepAndACollectionOfPathsGoTogether": raceSweeps,
}

// both runs two changes at once, each by a handle of its own.
func both(t testing.TB, a, b func() error) {
	t.Helper()
	var g errgroup.Group
	g.Go(a)
	g.Go(b)
	must(t, g.Wait())
}

// unless is nil for one error that a change may end with, and says which.
func unless(err, allowed error, hit *bool) error {
	if *hit = errors.Is(err, allowed); *hit {
		return nil
	}
	return err
}

func change(x index.Index, change func(tx index.Tx) error) error {
	return x.Update(context.Background(), change)
}

func raceReferrer(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addBlob(t, x, "b", "a")
	for i := range rounds {
		old, referrer := 2*i, 2*i+1
		putPath(t, x, path(c, b, old))
		var absent, removed []string
		both(t, func() error {
			return change(x, func(tx index.Tx) (err error) {
				removed, _, err = tx.RemoveUnused(c.ID, hash32s(old), future)
				return err
			})
		}, func() error {
			return change(y, func(tx index.Tx) (err error) {
				absent, err = tx.PutPath(path(c, b, referrer, old))
				return err
			})
		})
		there := holds(t, x, c, old)
		if there != (len(absent) == 0) || there != (len(removed) == 0) || !holds(t, x, c, referrer) {
			t.Fatalf("round %d: absent %v, removed %v, is there: %v", i, absent, removed, there)
		}
	}
}

func racePin(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addBlob(t, x, "b", "a")
	for i := range rounds {
		putPath(t, x, path(c, b, i))
		var refused bool
		both(t, func() error {
			return change(x, func(tx index.Tx) error {
				_, _, err := tx.RemoveUnused(c.ID, hash32s(i), future)
				return err
			})
		}, func() error {
			return unless(change(y, func(tx index.Tx) error {
				return tx.AddPin(index.Pin{CacheID: c.ID, Name: "main", Hash: hash32(i)}, rounds)
			}), index.ErrNotFound, &refused)
		})
		if there := holds(t, x, c, i); there == refused {
			t.Fatalf("round %d: the path is there: %v, its pin was refused: %v", i, there, refused)
		}
	}
}

func raceUse(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addBlob(t, x, "b", "a")
	for i := range rounds {
		putPath(t, x, path(c, b, i))
		both(t, func() error {
			return change(x, func(tx index.Tx) error {
				_, _, err := tx.RemoveUnused(c.ID, hash32s(i), future)
				return err
			})
		}, func() error {
			return change(y, func(tx index.Tx) error {
				_, err := tx.PutPath(path(c, b, i))
				return errors.Join(err, tx.TouchPaths(c.ID, hash32s(i)), tx.TouchNAR(c.ID, b.Hash))
			})
		})
		if holds(t, x, c, i) {
			if got, err := x.NAR(t.Context(), c.ID, b.Hash); got != b || err != nil {
				t.Fatalf("round %d: NAR = %+v, %v", i, got, err)
			}
		}
	}
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

func raceSame(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a", "bb", "ccc")
	c := addCache(t, x, "main")
	for i := range rounds {
		var ids, caches [2]int64
		var refused [2]bool
		add := func(x index.Index, n int) func() error {
			return func() error {
				err := change(x, func(tx index.Tx) error {
					b, err := tx.AddBlob(blob(fmt.Sprint(i)), chunks("a", "ccc", "bb", "a"), past)
					if err != nil {
						return err
					}
					ids[n] = b.ID
					_, err = tx.PutPath(path(c, b, i, i-1, i-2))
					return err
				})
				return errors.Join(err, unless(change(x, func(tx index.Tx) (err error) {
					caches[n], err = tx.AddCache(index.Cache{Name: fmt.Sprint("cache", i)})
					return err
				}), index.ErrExists, &refused[n]))
			}
		}
		both(t, add(x, 0), add(y, 1))
		b, err := x.Blob(t.Context(), blob(fmt.Sprint(i)).Digest)
		if err != nil || ids[0] != b.ID || ids[1] != b.ID {
			t.Fatalf("round %d: the blob has the numbers %d and %d, then %d, %v", i, ids[0], ids[1], b.ID, err)
		}
		wantWhole(t, x, b, 4)
		if refused[0] == refused[1] {
			t.Fatalf("round %d: the cache was refused: %v", i, refused)
		}
	}
	u, err := x.Usage(t.Context())
	must(t, err)
	if u.Paths != rounds || u.Blobs != rounds {
		t.Errorf("%d paths over %d blobs, want %d", u.Paths, u.Blobs, rounds)
	}
	got, err := x.Referrers(t.Context(), c.ID, hash32(rounds-2))
	must(t, err)
	if len(got) != 1 {
		t.Errorf("it is referred to by %v", got)
	}
}

func racePins(t *testing.T, x index.Index, reopen func() index.Index) {
	c := pinned(t, x, 2)
	y := reopen()
	for i := range rounds {
		add := func(x index.Index, n int) func() error {
			return func() error {
				return change(x, func(tx index.Tx) error {
					return tx.AddPin(index.Pin{CacheID: c.ID, Name: fmt.Sprint("pin", i), Hash: hash32(n)}, 1)
				})
			}
		}
		both(t, add(x, 0), add(y, 1))
		if got, err := x.Pins(t.Context(), c.ID); len(got) != i+1 || err != nil {
			t.Fatalf("round %d: %d pins, %v, want one a name", i, len(got), err)
		}
	}
}

func raceOrder(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	const n = 12
	names := numbered("c", n)
	addPack(t, x, "p1", names...)
	c := addCache(t, x, "main")
	var list []int
	var bs []index.Blob
	for i := range n {
		bs = append(bs, addBlob(t, x, fmt.Sprint(i), names[i]))
		list = append(list, i)
	}
	work := func(x index.Index, backwards bool) func() error {
		order, named := slices.Clone(list), slices.Clone(names)
		if backwards {
			slices.Reverse(order)
			slices.Reverse(named)
		}
		return func() error {
			for range rounds / 4 {
				if err := change(x, func(tx index.Tx) error {
					for _, i := range order {
						if _, err := tx.PutPath(path(c, bs[i], i, (i+1)%n, (i+2)%n)); err != nil {
							return err
						}
					}
					for _, i := range order {
						if err := errors.Join(tx.TouchPaths(c.ID, hash32s(order...)), tx.TouchNAR(c.ID, bs[i].Hash)); err != nil {
							return err
						}
					}
					return tx.TouchChunks(hashes(named...))
				}); err != nil {
					return err
				}
				if err := change(x, func(tx index.Tx) error {
					_, err := tx.RemovePaths(c.ID, hash32s(order...))
					return err
				}); err != nil {
					return err
				}
			}
			return nil
		}
	}
	both(t, work(x, false), work(y, true))
}

// A path is put with the one it refers to, while both may be collected: never
// is the one that refers there without the other.
func raceChain(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addBlob(t, x, "b", "a")
	both(t, func() error {
		for range rounds {
			if err := change(x, func(tx index.Tx) error {
				_, err := tx.PutPath(path(c, b, 1))
				if err != nil {
					return err
				}
				absent, err := tx.PutPath(path(c, b, 2, 1))
				if len(absent) != 0 {
					return fmt.Errorf("absent: %v, %w", absent, err)
				}
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	}, func() error {
		for range rounds {
			if err := change(y, func(tx index.Tx) error {
				_, _, err := tx.RemoveUnused(c.ID, hash32s(1, 2), future)
				return err
			}); err != nil {
				return err
			}
			missing, _, err := y.MissingPaths(context.Background(), c.ID, hash32s(1, 2), past)
			if err != nil {
				return err
			}
			if len(missing) == 1 && missing[0] == hash32(1) {
				return fmt.Errorf("missing is %v, which the other refers to", missing)
			}
		}
		return nil
	})
}

func raceManyHandles(t *testing.T, x index.Index, reopen func() index.Index) {
	addPack(t, x, "p0", "shared")
	c := addCache(t, x, "main")
	var g errgroup.Group
	const handles, each = 4, 15
	for h := range handles {
		x := reopen()
		g.Go(func() error {
			for i := range each {
				own := fmt.Sprintf("own-%d-%d", h, i)
				if err := change(x, func(tx index.Tx) error {
					if err := tx.AddPack(fmt.Sprintf("p%dx%d", h, i), 100, entries("shared", own)); err != nil {
						return err
					}
					b, err := tx.AddBlob(blob(own), chunks("shared", own), past)
					if err != nil {
						return err
					}
					if _, err := tx.PutPath(path(c, b, h*each+i)); err != nil {
						return err
					}
					_, err = tx.PutPath(path(c, b, handles*each, h*each+i)) // all put this one
					return err
				}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, g.Wait())
	u, err := x.Usage(t.Context())
	must(t, err)
	if u.Paths != handles*each+1 || u.Blobs != handles*each || u.Chunks != handles*each+1 {
		t.Errorf("%+v", u)
	}
	if want := int64(handles * each * len("shared")); u.DeadBytes != want {
		t.Errorf("%d bytes are dead, want %d", u.DeadBytes, want)
	}
	p, err := x.Path(t.Context(), c.ID, hash32(handles*each))
	must(t, err)
	for n := range handles * each {
		got, err := x.Referrers(t.Context(), c.ID, hash32(n))
		must(t, err)
		if want := p.References[0] == hash32(n)+"-name"; (len(got) == 1) != want {
			t.Errorf("path %d is referred to by %v; the referrer has %v", n, got, p.References)
		}
	}
}

func raceSweeps(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	c := addCache(t, x, "main")
	const n = 30
	for i := range n {
		name := fmt.Sprintf("c%03d", i)
		addPack(t, x, name, name)
		putPath(t, x, path(c, addBlob(t, x, name, name), i, i+1))
	}
	both(t, func() error {
		for i := range n {
			if err := change(x, func(tx index.Tx) error {
				removed, _, err := tx.RemoveUnused(c.ID, hash32s(i), future)
				if len(removed) != 1 {
					return fmt.Errorf("path %d: removed %v, %w", i, removed, err)
				}
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	}, func() error {
		for range n {
			if err := change(y, func(tx index.Tx) error {
				_, err := tx.SweepBlobs(0, 1000, future)
				return err
			}); err != nil {
				return err
			}
			if err := change(y, func(tx index.Tx) error {
				_, err := tx.SweepChunks(0, 1000, future)
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
	sweepBlobsOnce(t, y, future)
	sweepChunksOnce(t, y, future)
	u, err := x.Usage(t.Context())
	must(t, err)
	wantEqual(t, "what is left", u, index.Usage{Packs: n, PackBytes: 100 * n, DeadBytes: 4 * n})
}
