package fsck_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/fsck"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

func TestADamagedChunkIsRestoredFromAnotherCopy(t *testing.T) {
	t.Parallel()
	p := newPath("a", words(3000, "1"), words(2000, "2"), words(1000, "3"))
	for name, copies := range map[string]func(t *testing.T, r *rig){
		"in one pack": func(t *testing.T, r *rig) {
			r.putCopy(t, packNameAt(time.Now()), p.frames...)
		},
		"in several": func(t *testing.T, r *rig) {
			for i, f := range p.frames {
				r.putCopy(t, packNameAt(time.Now().Add(time.Duration(i)*time.Second)), f)
			}
		},
		"in a pack that the index does not know": func(t *testing.T, r *rig) {
			r.put(t, packNameAt(time.Now()), p.frames...)
		},
		"in a pack of another name": func(t *testing.T, r *rig) {
			r.put(t, "backup", p.frames...)
		},
		"of which the first is damaged, too": func(t *testing.T, r *rig) {
			e := r.put(t, "copy1", p.frames...)
			for _, entry := range e.Entries {
				r.flip(t, "copy1", entry.Offset+int64(entry.Length)/2)
			}
			r.put(t, "copy2", p.frames...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, r *rig) {
				r.push(t, p)
				copies(t, r)
				time.Sleep(time.Hour)
				r.spoil(t, p.frames[1].Hash)
				r.spoil(t, p.frames[3].Hash)
				wantPaths(t, r.check(t, false), p)
				if err := r.served(p); err == nil {
					t.Error("damaged bytes are served")
				}
				got := r.check(t, true)
				if got.Restored != 2 || got.Dropped != 0 {
					t.Errorf("%s", text(got))
				}
				wantPaths(t, got)
				r.wantServed(t, p)
				if got := r.check(t, false); !got.Good() {
					t.Errorf("again: %s", text(got))
				}
			})
		})
	}
}

// Two servers over one store that take the same chunk at the same moment both
// store it: one of the copies is dead, and is what the other is mended with.
func TestWhatRacingServersStoredTwiceIsACopy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, b := openAt(t, dir), openAt(t, dir)
		p := newPath("a", words(3000, "1"), words(2000, "2"))
		raced := false
		// b stores what a has seen to be missing and is about to record.
		race := func(call string) error {
			if call == "Update" && !raced {
				raced = true
				return b.store.PutFrames(t.Context(), p.frames)
			}
			return nil
		}
		a.index.fault.Store(&race)
		a.push(t, p)
		a.index.fault.Store(nil)
		if n := len(a.names(t)); n != 2 {
			t.Fatalf("%d packs, want one of each", n)
		}
		a.spoil(t, p.frames[1].Hash)
		if got := b.check(t, true); got.Restored != 1 || got.Dropped != 0 {
			t.Errorf("%s", text(got))
		}
		a.wantServed(t, p)
		a.wantGood(t)
	})
}

// A frame of another make unpacks to the same chunk, but would make another file
// of the NAR than its narinfo tells of.
func TestACopyOfAnotherMakeIsNone(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		plain := words(3000, "1")
		p := newPath("a", plain, words(2000, "2"))
		r.push(t, p)
		e, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(true))
		must(t, err)
		other := pack.Frame{Chunk: p.frames[1].Chunk, Data: e.EncodeAll(plain, nil)}
		must(t, e.Close())
		r.put(t, "copy", other)
		r.spoil(t, other.Hash)
		if got := r.check(t, true); got.Restored != 0 || got.Dropped != 1 {
			t.Errorf("%s", text(got))
		}
		r.push(t, p)
		r.wantServed(t, p)
		r.wantGood(t)
	})
}

// Rows of the index that are wrong lead to other bytes.
func TestWrongRowsOfTheIndex(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"another offset":       "UPDATE chunks SET offset = offset + 1 WHERE hash = ?",
		"a negative offset":    "UPDATE chunks SET offset = -offset WHERE hash = ?",
		"far behind the end":   "UPDATE chunks SET offset = 1 << 60 WHERE hash = ?",
		"a shorter frame":      "UPDATE chunks SET length = length - 1 WHERE hash = ?",
		"a longer frame":       "UPDATE chunks SET length = length + 1 WHERE hash = ?",
		"a frame of no bytes":  "UPDATE chunks SET length = 0 WHERE hash = ?",
		"a huge frame":         "UPDATE chunks SET length = 4294967295 WHERE hash = ?",
		"another size":         "UPDATE chunks SET size = size + 1 WHERE hash = ?",
		"another pack":         "UPDATE chunks SET pack = (SELECT max(id) FROM packs) WHERE hash = ?",
		"another chunk's hash": "UPDATE chunks SET hash = zeroblob(32) WHERE hash = ?",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, r *rig) {
				p, q := newPath("a", words(3000, "1"), words(2000, "2")), newPath("b", words(1234, "3"))
				r.push(t, p, q)
				// A chunk that is really damaged, with a copy, is mended all the same.
				r.putCopy(t, packNameAt(time.Now()), q.frames...)
				r.spoil(t, q.frames[1].Hash)
				db, err := sql.Open("sqlite", filepath.Join(r.dir, "index.sqlite"))
				must(t, err)
				_, err = db.Exec(change, p.frames[1].Hash[:])
				must(t, errors.Join(err, db.Close()))

				if got := r.check(t, false); len(got.Damaged) != 2 {
					t.Errorf("%s", text(got))
				}
				got := r.check(t, true)
				if name == "another pack" {
					// The frame is found where it lies, as a copy would be.
					if got.Restored != 2 || got.Dropped != 0 {
						t.Errorf("%s", text(got))
					}
				} else {
					if got.Restored != 1 || got.Dropped != 1 {
						t.Errorf("%s", text(got))
					}
					wantPaths(t, got, p)
				}
				r.wantServed(t, q)
				r.push(t, p)
				r.wantServed(t, p, q)
				r.wantGood(t)
			})
		})
	}
}

// Without its index, a store is a heap of packs. A new server makes a new index,
// a repair reads the packs, and pushes bring the names back, and no chunks.
func TestALostIndex(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		paths := []*path{newPath("a", words(3000, "1"), words(2000, "2")), newPath("b", words(3000, "1"), words(500, "3")), newPath("c", words(700, "4"))}
		before := openAt(t, dir)
		before.push(t, paths...)
		chunks := before.usage(t).Chunks
		before.put(t, "junk0", newPath("x", words(300, "5")).frames...)
		before.flip(t, "junk0", 3)
		spoiled := newPath("y", words(301, "6"), words(301, "7"))
		e := before.put(t, "halfgood", spoiled.frames...)
		before.flip(t, "halfgood", e.Entries[1].Offset+9)
		e = before.put(t, "allbad", spoiled.frames[1:3]...)
		for _, entry := range e.Entries {
			before.flip(t, "allbad", entry.Offset+9)
		}
		loseIndex(t, dir)
		time.Sleep(time.Second)

		r := openAt(t, dir)
		for _, p := range paths {
			if err := r.served(p); err == nil {
				t.Errorf("%s is known", p)
			}
		}
		if got := r.check(t, false); len(got.Unknown) != 3 { // those of other names; the others are young
			t.Errorf("at once: %s", text(got))
		}
		time.Sleep(time.Second)
		orphan := packNameAt(time.Now())
		r.put(t, orphan, newPath("orphan", words(300, "8")).frames...)
		time.Sleep(16 * time.Minute)
		got := r.check(t, false)
		if len(got.Unknown) != 7 || got.Foreign != 6 || !got.Good() || got.Packs != 0 {
			t.Errorf("%s", text(got))
		}
		must(t, r.packs.Delete(t.Context(), orphan))
		if u := r.usage(t); u != (index.Usage{}) {
			t.Errorf("a check has recorded %+v", u)
		}
		got = r.check(t, true)
		slices.Sort(got.BadPacks)
		if got.Adopted != 4 || !slices.Equal(got.BadPacks, []string{"allbad", "junk0"}) || !got.Good() {
			t.Errorf("%s", text(got))
		}
		if u := r.usage(t); u.Chunks != chunks+3 {
			t.Errorf("%d chunks are known again, want %d and the good ones of a half good pack", u.Chunks, chunks)
		}
		if sent := r.push(t, paths...); sent != 0 {
			t.Errorf("%d chunks were sent again", sent)
		}
		r.wantServed(t, paths...)
		if got := r.check(t, true); !got.Good() || got.Adopted != 0 {
			t.Errorf("again: %s", text(got))
		}
		if sent := r.push(t, spoiled); sent != 1 {
			t.Errorf("%d chunks were sent of which one was damaged", sent)
		}
		r.wantServed(t, spoiled)
	})
}

// What looks like a loss of everything is a wrong directory, or a disk that is not
// mounted.
func TestNotEverythingIsDroppedUnasked(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		p := newPath("a", words(3000, "1"))
		r.push(t, p)
		file := r.file(t, r.names(t)[0])
		must(t, os.Rename(file, file+".away"))
		checker := fsck.Checker{Packs: r.packs, Index: r.index, Store: r.store, Repair: true}
		before := r.usage(t)
		_, err := checker.Run(t.Context())
		wantErr(t, err, fsck.ErrAllLost)
		if u := r.usage(t); u != before {
			t.Errorf("%+v became %+v", before, u)
		}
		must(t, os.Rename(file+".away", file))
		r.wantServed(t, p)
		r.wantGood(t)

		must(t, os.Remove(file))
		checker.AllLost = true
		got, err := checker.Run(t.Context())
		must(t, err)
		wantPaths(t, got, p)
		r.push(t, p)
		r.wantServed(t, p)
	})
}

// A repair that ends early has dropped nothing that it could have saved, and the
// next one finishes.
func TestARepairThatIsStoppedIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	for at := range 8 {
		t.Run(fmt.Sprint("at change ", at), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, r *rig) {
				saved, lost, cut := newPath("a", words(3000, "1"), words(2000, "2")), newPath("b", words(3001, "3")), newPath("c", words(3002, "4"))
				r.push(t, saved, lost, cut)
				r.put(t, "copy1", saved.frames[1])
				r.put(t, "copy2", saved.frames[2])
				for _, h := range hashesOf(saved.frames[1], saved.frames[2], lost.frames[1]) {
					r.spoil(t, h)
				}
				r.flip(t, r.locate(t, cut.frames[1].Hash).Pack, 3)
				fault := errors.New("it failed here")
				changes := 0
				fail := func(call string) error {
					if call == "Update" {
						if changes++; changes > at {
							return fault
						}
					}
					return nil
				}
				r.index.fault.Store(&fail)
				checker := fsck.Checker{Packs: r.packs, Index: r.index, Store: r.store, Repair: true}
				_, err := checker.Run(t.Context())
				r.index.fault.Store(nil)
				if changes > at {
					wantErr(t, err, fault)
				}
				r.check(t, true)
				r.wantServed(t, saved, cut)
				if sent := r.push(t, saved, lost, cut); sent != 1 {
					t.Errorf("%d chunks were sent, one was lost", sent)
				}
				r.wantServed(t, saved, lost, cut)
				r.wantGood(t)
			})
		})
	}
}
