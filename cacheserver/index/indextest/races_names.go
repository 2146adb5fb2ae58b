package indextest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

var nameRaces = suite{
	"ABlobIsSweptWhileAnObjectComes":          raceObject,
	"ABlobIsSweptWhileItIsHeld":               raceHold,
	"ABlobIsSweptWhileAnAliasComes":           raceAlias,
	"ACacheIsRemovedWhilePathsComeToIt":       raceRemoval,
	"ACachesKeysAreChangedByTwoAtOnce":        raceKeys,
	"ACacheIsPurgedWhileOthersTakePaths":      racePurge,
	"TheSameObjectAndActionComeTwice":         raceSameNames,
	"AnObjectIsSweptWhileItIsPutAgain":        raceSweepObject,
	"BlobsAreHeldInOppositeOrdersByTwoAtOnce": raceHoldOrder,
}

// raceKeys has two give a cache keys: a signature by a key that was forgotten is one
// that nobody trusts.
func raceKeys(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	c := addCache(t, x, "main")
	give := func(x index.Index, whose string) func() error {
		return func() error {
			for i := range rounds {
				if err := change(x, func(tx index.Tx) error {
					return tx.UpdateCache(c.ID, func(there *index.Cache) error {
						there.SecretKeys = append(there.SecretKeys, fmt.Sprint(whose, i))
						return nil
					})
				}); err != nil {
					return err
				}
			}
			return nil
		}
	}
	both(t, give(x, "x"), give(y, "y"))
	got, err := x.Cache(t.Context(), "main")
	must(t, err)
	if n := len(got.SecretKeys) - len(c.SecretKeys); n != 2*rounds {
		t.Errorf("of %d keys, %d are there", 2*rounds, n)
	}
}

func raceObject(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	for i := range rounds {
		b := addBlob(t, x, fmt.Sprint(i), "a")
		name := fmt.Sprint("log/", i)
		var refused bool
		both(t, func() error {
			return change(x, func(tx index.Tx) error {
				_, err := tx.SweepBlobs(0, 1000, future)
				return err
			})
		}, func() error {
			return unless(change(y, func(tx index.Tx) error {
				return tx.PutObject(index.Object{CacheID: c.ID, Name: name, Blob: b})
			}), index.ErrNotFound, &refused)
		})
		got, err := x.Object(t.Context(), c.ID, name)
		if there := err == nil && got.Blob == b; there == refused {
			t.Fatalf("round %d: Object = %+v, %v; it was refused: %v", i, got, err, refused)
		}
		if !refused {
			wantWhole(t, x, b, 1)
		}
	}
}

func raceHold(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a")
	for i := range rounds {
		b := addBlob(t, x, fmt.Sprint(i), "a")
		var n int
		both(t, func() error {
			return change(x, func(tx index.Tx) error {
				_, err := tx.SweepBlobs(0, 1000, time.Now())
				return err
			})
		}, func() error {
			return change(y, func(tx index.Tx) (err error) {
				n, err = tx.HoldBlobs([]int64{b.ID}, middle)
				return err
			})
		})
		_, err := x.Blob(t.Context(), b.Digest)
		if there := err == nil; there != (n == 1) {
			t.Fatalf("round %d: %d were held, and it is there: %v, %v", i, n, there, err)
		}
	}
}

func raceAlias(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a")
	for i := range rounds {
		b := addBlob(t, x, fmt.Sprint(i), "a")
		d := digest.Digest{Hash: digest.Of(fmt.Append(nil, i))}
		var refused bool
		both(t, func() error {
			return change(x, func(tx index.Tx) error {
				_, err := tx.SweepBlobs(0, 1000, future)
				return err
			})
		}, func() error {
			return unless(change(y, func(tx index.Tx) error { return tx.PutAlias("blake3", d, b.ID) }), index.ErrNotFound, &refused)
		})
		sweepBlobsOnce(t, x, future)
		if got, err := x.Aliases(t.Context(), "blake3", []digest.Digest{d}); len(got) != 0 || err != nil {
			t.Fatalf("round %d: of a blob that is gone: %v, %v", i, got, err)
		}
	}
}

func raceRemoval(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a")
	b := addBlob(t, x, "b", "a")
	for i := range rounds {
		c := addCache(t, x, "main")
		both(t, func() error {
			return change(x, func(tx index.Tx) error {
				err := tx.RemoveCache(c.ID)
				if err == nil {
					_, err = tx.PurgeCaches(100)
				}
				return err
			})
		}, func() error {
			var refused bool
			return unless(change(y, func(tx index.Tx) error {
				_, err := tx.PutPath(path(c, b, i, i+1))
				if err == nil {
					err = tx.PutObject(index.Object{CacheID: c.ID, Name: "log/a", Blob: b})
				}
				if err == nil {
					err = tx.AddPin(index.Pin{CacheID: c.ID, Name: "pin", Hash: hash32(i)}, 1)
				}
				return err
			}), index.ErrNotFound, &refused)
		})
		purgeAll(t, x, 100)
		u, err := x.Usage(t.Context())
		must(t, err)
		if u.Paths != 0 || holds(t, x, c, i) {
			t.Fatalf("round %d: %d paths are left", i, u.Paths)
		}
	}
}

func racePurge(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a")
	b := addBlob(t, x, "b", "a")
	kept := addCache(t, x, "kept")
	for i := range rounds {
		c := addCache(t, x, "main")
		update(t, x, func(tx index.Tx) error {
			for n := range 10 {
				if _, err := tx.PutPath(path(c, b, n, n+1)); err != nil {
					return err
				}
			}
			return tx.RemoveCache(c.ID)
		})
		both(t, func() error {
			return change(x, func(tx index.Tx) error {
				_, err := tx.PurgeCaches(100)
				return err
			})
		}, func() error {
			return change(y, func(tx index.Tx) error {
				// A server that does not know yet goes on noting uses.
				err := tx.TouchPaths(c.ID, hash32s(0, 1, 2, 3, 4))
				_, err2 := tx.PutPath(path(kept, b, i, i+1))
				return errors.Join(err, err2)
			})
		})
		if !holds(t, x, kept, i) || holds(t, x, c, 0) {
			t.Fatalf("round %d: not the removed cache's paths are gone", i)
		}
	}
}

func raceSameNames(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addBlob(t, x, "b", "a")
	for i := range rounds {
		put := func(x index.Index) func() error {
			return func() error {
				return change(x, func(tx index.Tx) error {
					return errors.Join(
						tx.PutObject(index.Object{CacheID: c.ID, Name: fmt.Sprint(i), Blob: b}),
						tx.PutAction(index.Action{Instance: "main", Digest: action(i), Result: []byte("result")}),
						tx.PutAlias("blake3", digest.Digest{Hash: action(i)}, b.ID),
						tx.AddSample("bytes", index.Sample{At: past.Add(time.Duration(i) * time.Second), Value: 1}, time.Time{}),
					)
				})
			}
		}
		both(t, put(x), put(y))
		_, err := x.Object(t.Context(), c.ID, fmt.Sprint(i))
		_, err2 := x.Action(t.Context(), "main", action(i))
		found, err3 := x.Aliases(t.Context(), "blake3", []digest.Digest{{Hash: action(i)}})
		must(t, errors.Join(err, err2, err3))
		if len(found) != 1 {
			t.Fatalf("round %d: the alias is not there", i)
		}
	}
}

func raceSweepObject(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addBlob(t, x, "b", "a")
	for i := range rounds {
		putObject(t, x, c, "log/a", b, past)
		both(t, func() error {
			return change(x, func(tx index.Tx) error {
				_, err := tx.SweepObjects(0, 100, time.Now(), 0)
				return err
			})
		}, func() error {
			return change(y, func(tx index.Tx) error {
				return tx.PutObject(index.Object{CacheID: c.ID, Name: "log/a", Blob: b})
			})
		})
		if _, err := x.Object(t.Context(), c.ID, "log/a"); err != nil {
			t.Fatalf("round %d: an object that lives on: %v", i, err)
		}
	}
}

func raceHoldOrder(t *testing.T, x index.Index, reopen func() index.Index) {
	y := reopen()
	addPack(t, x, "p1", "a")
	var ids, backwards []int64
	for i := range 50 {
		b := addBlob(t, x, fmt.Sprint(i), "a")
		ids = append(ids, b.ID)
		backwards = append([]int64{b.ID}, backwards...)
	}
	for i := range rounds {
		until := middle.Add(time.Duration(i) * time.Second)
		holdAll := func(x index.Index, ids []int64) func() error {
			return func() error {
				return change(x, func(tx index.Tx) error {
					for part := range 5 {
						if _, err := tx.HoldBlobs(ids[10*part:10*part+10], until); err != nil {
							return err
						}
					}
					return nil
				})
			}
		}
		both(t, holdAll(x, ids), holdAll(y, backwards))
	}
}
