package fsck_test

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/fsck"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

func TestASoundStore(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		a, b := newPath("a", words(3000, "1"), words(2000, "2")), newPath("b", words(3000, "1"), words(9000, "3"))
		r.push(t, a, b)
		must(t, r.store.PutFrames(t.Context(), newPath("in-flight", words(100, "4")).frames))
		var seen []fsck.Progress
		checker := fsck.Checker{Packs: r.packs, Index: r.index, Store: r.store, Progress: func(p fsck.Progress) {
			seen = append(seen, p)
			// Pushes go on meanwhile.
			r.push(t, newPath(fmt.Sprint("meanwhile", len(seen)), words(500, fmt.Sprint(len(seen)))))
		}}
		before := r.usage(t)
		got, err := checker.Run(t.Context())
		must(t, err)
		if !got.Good() || got.Packs != 3 || got.Chunks != before.Chunks || got.Bytes <= 1000 || got.Bytes >= before.PackBytes || len(got.Unknown)+len(got.Paths) > 0 {
			t.Errorf("%s", text(got))
		}
		want := []fsck.Progress{{Packs: 1, Total: 3}, {Packs: 2, Total: 3}, {Packs: 3, Total: 3}}
		if !slices.Equal(seen, want) {
			t.Errorf("progress %v, want %v", seen, want)
		}
		r.wantServed(t, a, b)
	})
}

// Whichever byte of a pack is damaged: it is found, as damage of the chunk that
// lies there or of the pack's description of itself, and a repair loses no more
// than that chunk. Pushed again, all is well.
func TestADamagedByteIsFoundAndMended(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		a, b := newPath("a", words(3000, "1")), newPath("b", words(3001, "2"), words(400, "3"))
		other := newPath("other", words(3002, "elsewhere"))
		all := &path{frames: append(slices.Clone(a.frames), b.frames...)}
		must(t, r.store.PutFrames(t.Context(), all.frames))
		r.push(t, a, b, other)
		name := r.locate(t, a.frames[0].Hash).Pack
		good, err := os.ReadFile(r.file(t, name))
		must(t, err)
		chunks, err := r.index.ChunksIn(t.Context(), name)
		must(t, err)
		usage := r.usage(t)
		inFrame, inTable := 0, 0
		for at := int64(0); at < int64(len(good)); at += 7 {
			r.flip(t, name, at)
			got := r.check(t, false)
			i := slices.IndexFunc(chunks, func(l index.Location) bool { return at >= l.Offset && at < l.Offset+int64(l.Length) })
			switch {
			case i < 0 && !slices.Equal(got.Tables, []string{name}):
				t.Errorf("byte %d outside of frames: %s", at, text(got))
			case i < 0:
				inTable++
				wantChunks(t, got)
				wantPaths(t, got)
				r.wantServed(t, a, b, other)
			case len(got.Damaged) == 1:
				inFrame++
				wantChunks(t, got, chunks[i].Hash)
				hit := slices.DeleteFunc([]*path{a, b}, func(p *path) bool { return !slices.Contains(p.hashes(), chunks[i].Hash) })
				wantPaths(t, got, hit...)
				if len(got.Tables) > 0 {
					t.Errorf("byte %d in a frame: %s", at, text(got))
				}
			default:
				// A bit that does not matter: it still unpacks to its chunk.
				if !got.Good() {
					t.Errorf("byte %d in a frame: %s", at, text(got))
				}
			}
			if u := r.usage(t); u != usage {
				t.Fatalf("a check has changed %+v to %+v", usage, u)
			}
			must(t, os.WriteFile(r.file(t, name), good, 0o600))
		}
		if inFrame < 50 || inTable < 20 {
			t.Errorf("only %d damaged frames and %d damaged tables", inFrame, inTable)
		}

		r.spoil(t, b.frames[1].Hash)
		r.flip(t, name, int64(len(good))-20)
		got := r.check(t, true)
		if got.Dropped != 1 || got.Restored != 0 || got.Rewritten != 1 || got.Good() {
			t.Errorf("%s", text(got))
		}
		wantPaths(t, got, b)
		r.wantServed(t, a, other)
		if slices.Contains(r.names(t), name) {
			t.Error("the pack that did not describe itself is still there")
		}
		if sent := r.push(t, b); sent != 1 {
			t.Errorf("%d chunks were sent, one was lost", sent)
		}
		r.wantServed(t, a, b, other)
		r.wantGood(t)
	})
}

func TestLostPacks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(file string, size int64) error
		lost  func(frames int) int
	}{
		"deleted":                              {func(f string, _ int64) error { return os.Remove(f) }, func(n int) int { return n }},
		"emptied":                              {func(f string, _ int64) error { return os.Truncate(f, 0) }, func(n int) int { return n }},
		"only its head is left":                {func(f string, _ int64) error { return os.Truncate(f, 16) }, func(n int) int { return n }},
		"cut off in its last frame":            {func(f string, size int64) error { return os.Truncate(f, size-60-41*4-2) }, func(int) int { return 1 }},
		"cut off behind its frames":            {func(f string, size int64) error { return os.Truncate(f, size-60-41*4) }, func(int) int { return 0 }},
		"cut off in its footer":                {func(f string, size int64) error { return os.Truncate(f, size-1) }, func(int) int { return 0 }},
		"longer than it was":                   {func(f string, size int64) error { return os.Truncate(f, size+4096) }, func(int) int { return 0 }},
		"full of zeros, as after a power loss": {func(f string, size int64) error { return os.WriteFile(f, make([]byte, size), 0o600) }, func(n int) int { return n }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, r *rig) {
				p, other := newPath("a", words(3000, "1"), words(2000, "2")), newPath("b", words(9001, "3"))
				r.push(t, p, other)
				must(t, r.index.Update(t.Context(), func(tx index.Tx) error {
					return tx.AddPin(index.Pin{CacheID: r.main.ID, Name: "pin", Hash: p.hash}, 1)
				}))
				l := r.locate(t, p.frames[0].Hash)
				size, err := r.packs.Size(t.Context(), l.Pack)
				must(t, err)
				must(t, c.spoil(r.file(t, l.Pack), size))

				got := r.check(t, false)
				lost := c.lost(len(p.frames))
				if len(got.Damaged) != lost || got.Good() {
					t.Errorf("want %d damaged chunks: %s", lost, text(got))
				}
				var hit []*path
				if lost > 0 {
					hit = append(hit, p)
				}
				wantPaths(t, got, hit...)

				got = r.check(t, true)
				if got.Dropped != int64(lost) {
					t.Errorf("want %d dropped: %s", lost, text(got))
				}
				wantPaths(t, got, hit...)
				r.wantServed(t, other)
				if lost == 0 {
					r.wantServed(t, p)
				}
				if sent := r.push(t, p); sent != lost {
					t.Errorf("%d chunks were sent, want %d", sent, lost)
				}
				r.wantServed(t, p, other)
				r.wantGood(t)
				// Nothing is left behind of what was lost.
				time.Sleep(cas.DefaultGrace + time.Second)
				report, err := collect.New(r.store, r.packs, r.index, collect.Policy{}, slog.New(slog.DiscardHandler)).Run(t.Context())
				must(t, err)
				r.wantServed(t, p, other)
				known, err := r.index.Packs(t.Context(), "", 100)
				must(t, err)
				if names := r.names(t); len(names) != len(known) || len(report.Damaged) > 0 {
					t.Errorf("packs %v, the index knows %v", names, known)
				}
			})
		})
	}
}

// Bad sectors are damage of what lies there, which ends no check and is left by a
// collection; the next push writes elsewhere.
func TestBadSectors(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, r *rig) {
		p, other := newPath("a", words(3000, "1"), words(2000, "2")), newPath("b", words(9001, "3"))
		r.push(t, p, other)
		r.packs.bad = r.locate(t, p.frames[0].Hash).Pack
		got := r.check(t, false)
		wantChunks(t, got, p.hashes()...)
		wantPaths(t, got, p)
		r.wantServed(t, other)
		if r.served(p) == nil {
			t.Error("what cannot be read is served")
		}
		_, err := r.store.Compact(t.Context(), []string{r.packs.bad})
		wantErr(t, err, cas.ErrDamaged)
		got = r.check(t, true)
		wantPaths(t, got, p)
		if sent := r.push(t, p); sent != len(p.frames) {
			t.Errorf("%d chunks were sent, want %d", sent, len(p.frames))
		}
		r.wantServed(t, p, other)
	})
}

// A storage or an index that cannot be reached is no damage, and nothing is
// dropped for it.
func TestWhatCannotBeReachedIsNotDamaged(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		call  string
		fault error
	}{
		{"Open", packstore.ErrUnavailable},
		{"Size", packstore.ErrUnavailable},
		{"List", packstore.ErrUnavailable},
		{"ChunksIn", index.ErrUnavailable},
		{"Update", index.ErrUnavailable},
	} {
		for skip := range 12 {
			t.Run(fmt.Sprintf("%s after %d", c.call, skip), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T, r *rig) {
					p, q := newPath("a", words(3000, "1")), newPath("b", words(3000, "2"))
					r.push(t, p, q)
					r.put(t, packNameAt(time.Now()), newPath("unknown", words(300, "4")).frames...)
					time.Sleep(time.Hour)
					r.putCopy(t, packNameAt(time.Now()), p.frames...)
					r.spoil(t, p.frames[1].Hash)
					before := r.usage(t)
					calls, failed := 0, false
					fail := func(call string) error {
						if call != c.call {
							return nil
						}
						if calls++; calls <= skip {
							return nil
						}
						failed = true
						return fmt.Errorf("asking the storage: %w", c.fault)
					}
					r.packs.fault.Store(&fail)
					r.index.fault.Store(&fail)
					checker := fsck.Checker{Packs: r.packs, Index: r.index, Store: r.store, Repair: true}
					got, err := checker.Run(t.Context())
					r.packs.fault.Store(nil)
					r.index.fault.Store(nil)
					if !failed {
						if err != nil || got.Restored != 1 {
							t.Errorf("it was not even asked: %s, %v", text(got), err)
						}
						return
					}
					wantErr(t, err, c.fault)
					if u := r.usage(t); u.Paths != before.Paths || u.Blobs != before.Blobs || got.Dropped > 0 {
						t.Errorf("%+v was %+v: %s", u, before, text(got))
					}
					r.wantServed(t, q)
					if got := r.check(t, true); got.Dropped > 0 {
						t.Errorf("the next: %s", text(got))
					}
					r.wantServed(t, p, q)
					r.wantGood(t)
				})
			})
		}
	}
}

func TestCheckAndCollectionExcludeEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, b := openAt(t, dir), openAt(t, dir)
		a.push(t, newPath("a", words(100, "1")))
		checked := false
		checker := fsck.Checker{Packs: a.packs, Index: a.index, Store: a.store, Progress: func(fsck.Progress) {
			checked = true
			_, err := collect.New(b.store, b.packs, b.index, collect.Policy{}, slog.New(slog.DiscardHandler)).Run(t.Context())
			wantErr(t, err, index.ErrLocked)
			other := fsck.Checker{Packs: b.packs, Index: b.index, Store: b.store}
			_, err = other.Run(t.Context())
			wantErr(t, err, index.ErrLocked)
		}}
		if _, err := checker.Run(t.Context()); err != nil || !checked {
			t.Error(checked, err)
		}
		b.wantGood(t)
	})
}

func packNameAt(at time.Time) string {
	return fmt.Sprintf("%012x%s", at.UnixMilli(), strings.Repeat("0", 24))
}

func hashesOf(frames ...pack.Frame) []digest.Hash { return (&path{frames: frames}).hashes() }
