package collect_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

func hashesOf(p *path) []digest.Hash {
	hashes := make([]digest.Hash, len(p.frames))
	for i, f := range p.frames {
		hashes[i] = f.Hash
	}
	return hashes
}

func TestUploadsInFlightAreLeftAlone(t *testing.T) {
	t.Parallel()
	t.Run("chunks that no blob has yet", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, r *rig) {
			p := newPath("a", nil, noise(3000, "a"))
			must(t, r.upload("main", p))
			time.Sleep(grace)
			if got := r.collect(t, 0); got.Chunks != 0 {
				t.Errorf("within the grace: %+v", got)
			}
			must(t, r.commit("main", p))
			r.wantServed(t, "main", p)
		})
	})
	t.Run("chunks that no blob gets", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, r *rig) {
			must(t, r.upload("main", newPath("a", nil, noise(3000, "a"))))
			time.Sleep(grace + time.Second)
			if got := r.collect(t, 0); got.Chunks != 3 || got.PacksDeleted != 1 {
				t.Errorf("after the grace: %+v", got)
			}
			r.wantNothing(t)
		})
	})
	t.Run("a blob that has no name yet", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, r *rig) {
			p := newPath("a", nil, noise(3000, "a"))
			must(t, r.upload("main", p))
			want := digest.Digest{Hash: p.info.NarHash, Size: p.info.NarSize}
			blob, err := r.store.Verify(t.Context(), want, p.chunks(), drain)
			must(t, err)
			r.update(t, func(tx index.Tx) error {
				_, err := tx.AddBlob(blob, p.chunks(), r.store.Expiry())
				return err
			})
			time.Sleep(grace)
			if got := r.collect(t, 0); got.Blobs != 0 || got.Chunks != 0 {
				t.Errorf("within the grace: %+v", got)
			}
			time.Sleep(time.Second)
			if got := r.collect(t, 0); got.Blobs != 1 || got.BlobBytes != want.Size || got.Chunks != 3 {
				t.Errorf("after the grace: %+v", got)
			}
			r.wantNothing(t)
		})
	})
	t.Run("a pack that is not in the index yet", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, r *rig) {
			p := newPath("a", nil, noise(3000, "a"))
			r.hook(func(call string, work func() error) error {
				if call == "Update" {
					r.unhook()
					if got := r.collect(t, 0); got.Orphans != 0 {
						t.Errorf("%+v", got)
					}
				}
				return work()
			})
			r.push(t, "main", p)
			r.wantServed(t, "main", p)
		})
	})
}

// A lost index is replaced by an empty one, to which all packs are unknown until
// they are read back.
func TestPacksOfALostIndexAreLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		before := openAt(t, dir)
		saved := newPath("saved", nil, noise(3000, "saved"))
		before.push(t, "main", saved)
		time.Sleep(day)
		lost := filepath.Join(dir, "lost")
		must(t, os.Mkdir(lost, 0o700))
		must(t, os.Rename(filepath.Join(dir, "packs"), filepath.Join(lost, "packs")))
		sqlite, err := index.OpenSQLite(t.Context(), filepath.Join(lost, "index.sqlite"))
		must(t, err)
		_, err = nixcache.EnsureCache(t.Context(), sqlite, "main", "/nix/store")
		must(t, errors.Join(err, sqlite.Close()))

		r := openAt(t, lost)
		e := pack.Encode(newPath("orphan", nil, noise(100, "orphan")).frames)
		must(t, r.packs.Put(t.Context(), packNameAt(time.Now()), e.Size, e.Reader()))
		time.Sleep(grace + time.Second)
		if got := r.collect(t, 0); got.Foreign != 1 || got.Orphans != 1 {
			t.Errorf("%+v", got)
		}
		if files := r.files(t); len(files) != 1 {
			t.Errorf("left are %v", files)
		}
	})
}

// A client that was told that a chunk is there does not send it.
func TestAChunkThatIsAskedForLivesOn(t *testing.T) {
	t.Parallel()
	p := newPath("a", nil, noise(3000, "a"))
	for name, ask := range map[string]func(t *testing.T, r *rig) error{
		"by a query": func(t *testing.T, r *rig) error {
			missing, err := r.store.Missing(t.Context(), hashesOf(p))
			if len(missing) > 0 {
				t.Errorf("%d are missing", len(missing))
			}
			return err
		},
		"by an upload":        func(t *testing.T, r *rig) error { return r.store.PutFrames(t.Context(), p.frames) },
		"by both at the door": func(_ *testing.T, r *rig) error { return r.upload("main", p) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, r *rig) {
				must(t, r.upload("main", p))
				for range 5 {
					time.Sleep(grace/2 + time.Minute)
					must(t, ask(t, r))
					if got := r.collect(t, 0); got.Chunks != 0 {
						t.Fatalf("%+v", got)
					}
				}
				if n := len(r.files(t)); n != 1 {
					t.Errorf("%d packs, want the first alone", n)
				}
				time.Sleep(grace / 2)
				r.collect(t, 0)
				must(t, r.commit("main", p))
				r.wantServed(t, "main", p)
			})
		})
	}
}

// thin pushes two paths into one pack, and lets the first grow old: more than
// half of the pack is then dead.
func thin(t testing.TB, r *rig, name string) (living *path) {
	t.Helper()
	gone := newPath("gone-"+name, nil, noise(40_000, "gone"+name))
	living = newPath("living-"+name, nil, noise(9000, "1"+name), noise(9000, "2"+name), noise(9000, "3"+name))
	r.pushTogether(t, "main", gone, living)
	r.pin(t, "main", name, living, 0)
	return living
}

func TestHalfDeadPacksAreCompacted(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		a, b := thin(t, r, "a"), thin(t, r, "b")
		hot := r.newDoor()
		files := map[string][]byte{}
		for _, p := range []*path{a, b} {
			must(t, served(hot, "main", p))
			route := "/main/nar/" + p.info.NarHash.Nix32() + ".nar.zst"
			files[route] = ask(hot, http.MethodGet, route, nil).Body.Bytes()
		}
		before := r.files(t)
		time.Sleep(retention + time.Second)
		for _, p := range []*path{a, b} {
			must(t, served(hot, "main", p)) // it knows where they lay
		}
		got := r.collect(t, 0)
		if got.PacksCompacted != 2 || got.PacksDeleted != 0 || got.Freed < 80_000 || got.Stored > 65_000 {
			t.Errorf("%+v", got)
		}
		after := r.files(t)
		if len(after) != 1 {
			t.Errorf("%d packs, want 1", len(after))
		}
		for name := range after {
			if before[name] != "" {
				t.Errorf("pack %s is still there", name)
			}
		}
		for _, d := range []http.Handler{hot.Handler(), r.newDoor().Handler()} {
			for route, want := range files {
				w := get(d, route, "")
				if w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), want) {
					t.Errorf("%s: %d, the bytes are others", route, w.Code)
				}
			}
		}
		r.wantServed(t, "main", a, b)
		must(t, served(hot, "main", a))

		// Nothing is left to do, and the new pack describes itself.
		if got := r.collect(t, 0); got.PacksCompacted+got.PacksDeleted+got.Orphans != 0 || got.Freed != 0 {
			t.Errorf("again: %+v", got)
		}
		for _, file := range after {
			b, err := os.ReadFile(file)
			must(t, err)
			entries, err := pack.ReadTable(bytes.NewReader(b), int64(len(b)))
			if err != nil || len(entries) != 8 { // both NARs begin and end alike
				t.Errorf("%d entries, %v", len(entries), err)
			}
		}
	})
}

// A download goes on over a compaction, wherever that happens between its
// extents, and whether it is checked or sent by the kernel.
func TestDownloadsGoOnOverACompaction(t *testing.T) {
	t.Parallel()
	for _, checked := range []bool{false, true} {
		for opens := 1; opens <= 5; opens++ {
			t.Run(fmt.Sprintf("checked before %v, at open %d", checked, opens), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T, r *rig) {
					// Two packs, between which the NAR goes to and fro.
					a := newPath("a", nil, noise(40_000, "gone"), noise(5000, "1"), noise(5000, "3"), noise(5000, "5"))
					b := newPath("b", nil, noise(40_000, "too"), noise(5000, "2"), noise(5000, "4"))
					r.push(t, "main", a, b)
					p := newPath("p", nil, noise(5000, "1"), noise(5000, "2"), noise(5000, "3"), noise(5000, "4"), noise(5000, "5"))
					r.push(t, "main", p)
					r.pin(t, "main", "p", p, 0)
					time.Sleep(retention + time.Second)
					d := r.newDoor()
					if checked {
						must(t, served(d, "main", p))
					}
					var compacted collect.Report
					count := 0
					r.hook(func(call string, work func() error) error {
						if call == "Open" {
							if count++; count == opens {
								r.unhook()
								compacted = r.collect(t, 0)
							}
						}
						return work()
					})
					must(t, served(d, "main", p))
					if compacted.PacksCompacted < 2 {
						t.Errorf("no compaction came between: %+v", compacted)
					}
					must(t, served(d, "main", p))
				})
			})
		}
	}
}

func TestManySmallPacksAreJoined(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		var paths []*path
		for i := range 31 {
			paths = append(paths, newPath(fmt.Sprint("p", i), nil, noise(1000+i, fmt.Sprint(i))))
		}
		r.push(t, "main", paths...)
		time.Sleep(grace + time.Second)
		if got := r.collect(t, 0); got.PacksCompacted != 0 {
			t.Errorf("too few to bother: %+v", got)
		}
		more := newPath("p31", nil, noise(2000, "more"))
		r.push(t, "main", more)
		if got := r.collect(t, 0); got.PacksCompacted != 0 {
			t.Errorf("one of them is new: %+v", got)
		}
		time.Sleep(grace + time.Second)
		if got := r.collect(t, 0); got.PacksCompacted != 32 || len(r.files(t)) != 1 {
			t.Errorf("%+v, %d packs are left", got, len(r.files(t)))
		}
		r.wantServed(t, "main", append(paths, more)...)
		time.Sleep(grace + time.Second)
		if got := r.collect(t, 0); got.PacksCompacted != 0 {
			t.Errorf("one pack alone: %+v", got)
		}
	})
}

// spoil flips a bit of a chunk's frame where it lies.
func (r *rig) spoil(t testing.TB, chunk digest.Hash) (packName string) {
	t.Helper()
	at, err := r.index.Locate(t.Context(), []digest.Hash{chunk})
	must(t, err)
	f, err := os.OpenFile(r.files(t)[at[0].Pack], os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	middle := at[0].Offset + int64(at[0].Length)/2
	b := make([]byte, 1)
	_, err = f.ReadAt(b, middle)
	must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, middle)
	must(t, err)
	return at[0].Pack
}

func TestADamagedPackIsLeftAndTheOthersAreCompacted(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		a, b, c, d := thin(t, r, "a"), thin(t, r, "b"), thin(t, r, "c"), thin(t, r, "d")
		bad := []string{r.spoil(t, b.frames[2].Hash), r.spoil(t, d.frames[1].Hash)}
		slices.Sort(bad)
		time.Sleep(retention + time.Second)
		for range 2 {
			// The limit brings a second try in the same run.
			got := r.collect(t, 100_000)
			if !slices.Equal(slices.Sorted(slices.Values(got.Damaged)), bad) {
				t.Errorf("damaged: %v, want %v", got.Damaged, bad)
			}
		}
		for _, name := range bad {
			if !strings.Contains(r.log.String(), name) {
				t.Errorf("the log says nothing of %s:\n%s", name, r.log)
			}
		}
		files := r.files(t)
		if len(files) != 3 || files[bad[0]] == "" || files[bad[1]] == "" {
			t.Errorf("left are %v, want the damaged and one new pack", files)
		}
		r.wantServed(t, "main", a, c)
	})
}

// One damaged pack among many small ones must not bring it about that those are
// written anew at every turn.
func TestADamagedSmallPackDoesNotKeepTheOthersMoving(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		var paths []*path
		for i := range 40 {
			paths = append(paths, newPath(fmt.Sprint("p", i), nil, noise(1000+i, fmt.Sprint(i))))
		}
		r.push(t, "main", paths...)
		bad := r.spoil(t, paths[7].frames[1].Hash)
		time.Sleep(grace + time.Second)
		if got := r.collect(t, 0); got.PacksCompacted != 39 || !slices.Equal(got.Damaged, []string{bad}) || len(r.files(t)) != 2 {
			t.Errorf("%+v, %d packs", got, len(r.files(t)))
		}
		time.Sleep(grace + time.Second)
		if got := r.collect(t, 0); got.PacksCompacted != 0 {
			t.Errorf("again: %+v", got)
		}
	})
}

func TestOrphans(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		p := newPath("a", nil, noise(3000, "a"))
		r.push(t, "main", p)
		orphan := func(name string) string {
			e := pack.Encode(newPath(name, nil, noise(100, name)).frames)
			must(t, r.packs.Store.Put(t.Context(), name, e.Size, e.Reader()))
			return name
		}
		old := orphan(packNameAt(time.Now()))
		foreign := orphan("notours")
		time.Sleep(grace)
		young := orphan(packNameAt(time.Now()))
		if got := r.collect(t, 0); got.Orphans != 0 {
			t.Errorf("within the grace: %+v", got)
		}
		time.Sleep(time.Second)
		if got := r.collect(t, 0); got.Orphans != 1 || got.Freed == 0 {
			t.Errorf("%+v, want one", got)
		}
		files := r.files(t)
		if files[old] != "" || files[young] == "" || files[foreign] == "" || len(files) != 3 {
			t.Errorf("left are %v", files)
		}
		r.wantServed(t, "main", p)
	})
}

func packNameAt(at time.Time) string {
	return fmt.Sprintf("%012x%s", at.UnixMilli(), strings.Repeat("0", 24))
}

// The time in a pack's name is all that tells an orphan from an upload.
func TestPackNamesTellTheirTime(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		time.Sleep(1234 * time.Millisecond)
		must(t, r.upload("main", newPath("a", nil, noise(100, "a"))))
		for name := range r.files(t) {
			if made, ok := cas.PackTime(name); !ok || !made.Equal(time.Now()) {
				t.Errorf("%s: %v, %v; it is %v", name, made, ok, time.Now())
			}
		}
		for _, name := range []string{"", "notours", strings.Repeat("x", 36), strings.Repeat("0", 35), strings.Repeat("0", 37)} {
			if made, ok := cas.PackTime(name); ok {
				t.Errorf("%q: %v", name, made)
			}
		}
	})
}

// Reads and pushes go on while it collects.
func TestCollectionBesidePushesAndPulls(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		var pinned []*path
		for i := range 6 {
			pinned = append(pinned, thin(t, r, fmt.Sprint(i)))
		}
		time.Sleep(retention + time.Second)
		hot := r.newDoor()
		for _, p := range pinned {
			must(t, served(hot, "main", p))
		}
		done := make(chan error, 2)
		go func() {
			for range 5 {
				for _, p := range pinned {
					if err := served(hot, "main", p); err != nil {
						done <- err
						return
					}
				}
			}
			done <- nil
		}()
		fresh := make([]*path, 12)
		go func() {
			for i := range fresh {
				fresh[i] = newPath(fmt.Sprint("fresh", i), nil, noise(3000, fmt.Sprint("fresh", i)), noise(9000, fmt.Sprint("2", i%6)))
				if err := r.upload("main", fresh[i]); err != nil {
					done <- err
					return
				}
				if err := r.commit("main", fresh[i]); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		var compacted int64
		for range 6 {
			compacted += r.collect(t, 0).PacksCompacted
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if compacted < 6 {
			t.Errorf("%d packs were compacted, want 6", compacted)
		}
		r.wantServed(t, "main", append(pinned, fresh...)...)
	})
}

func TestACollectorOfAnotherProcessExcludes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, b := openAt(t, dir), openAt(t, dir)
		p := newPath("a", nil, noise(3000, "a"))
		a.push(t, "main", p)
		time.Sleep(retention + time.Second)
		var refused []error
		a.hook(func(call string, work func() error) error {
			_, err := b.collector(0).Run(t.Context())
			_, err2 := a.collector(0).Run(t.Context())
			refused = append(refused, err, err2)
			a.unhook()
			return work()
		})
		if got := a.collect(t, 0); got.Paths != 1 {
			t.Errorf("the first: %+v", got)
		}
		if len(refused) != 2 {
			t.Fatalf("%d others", len(refused))
		}
		for _, err := range refused {
			wantErr(t, err, index.ErrLocked)
		}
		b.collect(t, 0)
		if f, err := filepath.Glob(filepath.Join(dir, "packs", "*", "*.pack")); len(f) != 0 || err != nil {
			t.Error(f, err)
		}
	})
}
