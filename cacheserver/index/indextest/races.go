package indextest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// rounds is how often each race is run.
const rounds = 40

var races = suite{
	"APathIsRemovedWhileAReferrerComes":     raceReferrer,
	"APathIsRemovedWhileItIsPinned":         racePin,
	"APathIsRemovedWhileItIsUsed":           raceUse,
	"TheSameBlobPathAndCacheComeTwice":      raceSame,
	"APinKeepsOneRevisionWhenTwoArePinned":  racePins,
	"ManyRowsAreTouchedInOppositeOrders":    raceOrder,
	"AReferrerAndItsReferenceComeAndGo":     raceChain,
	"ManyHandlesChangeTheSameRowsUnharmed":  raceManyHandles,
	"ASweepAndACollectionOfPathsGoTogether": raceSweeps,
	"BlobsAreRecordedTogether":              raceBlobsTogether,
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

// raceBlobsTogether has servers record lists that share most of their blobs, each in
// an order of its own.
func raceBlobsTogether(t *testing.T, x index.Index, reopen func() index.Index) {
	const handles, turns, each = 4, 8, 30
	addPack(t, x, "p", "a", "bb", "ccc")
	lists := [][]digest.Chunk{chunks("a"), chunks("bb", "a"), chunks("ccc", "a", "bb")}
	var g errgroup.Group
	for h := range handles {
		x, random := reopen(), rand.New(rand.NewPCG(uint64(h), 1))
		g.Go(func() error {
			for turn := range turns {
				list := []index.NewBlob{{Blob: blob(fmt.Sprintf("own-%d-%d", h, turn)), Chunks: lists[0]}}
				for i := range each {
					list = append(list, index.NewBlob{Blob: blob(fmt.Sprintf("blob-%d-%d", turn, i)), Chunks: lists[i%len(lists)]})
				}
				random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
				if err := change(x, func(tx index.Tx) error {
					added, err := tx.AddBlobs(list, future)
					for i, b := range added {
						if b.ID == 0 || b.Digest != list[i].Digest {
							return fmt.Errorf("%s was recorded as %+v", list[i].Digest, b)
						}
					}
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
	if u.Blobs != handles*turns+turns*each {
		t.Errorf("%+v", u)
	}
	for i := range each {
		b, err := x.Blob(t.Context(), blob(fmt.Sprintf("blob-0-%d", i)).Digest)
		must(t, err)
		got, err := x.Chunks(t.Context(), b.ID, 0, 10)
		must(t, err)
		if !slices.EqualFunc(got, lists[i%len(lists)], func(l index.Location, c digest.Chunk) bool { return l.Chunk == c }) {
			t.Errorf("blob %d has %v", i, got)
		}
	}
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
