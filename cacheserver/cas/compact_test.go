package cas_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

func packNames(t testing.TB, r *rig) []string {
	t.Helper()
	var names []string
	for _, f := range packFiles(t, r) {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".pack"))
	}
	slices.Sort(names)
	return names
}

// Very many frames are moved a part at a time: pushes wait for each part.
func TestCompactMovesVeryManyFramesInParts(t *testing.T) {
	t.Parallel()
	r := open(t)
	frames := numbered("small", 1<<15+100)
	must(t, r.PutFrames(t.Context(), frames))
	names := packNames(t, r)
	var changes atomic.Int64
	count := func() error { changes.Add(1); return nil }
	r.index.beforeUpdate.Store(&count)
	done, err := r.Compact(t.Context(), names)
	must(t, err)
	if !slices.Equal(done.Dropped, names) || changes.Load() != 3 {
		t.Errorf("dropped %v of %v in %d changes, want 3", done.Dropped, names, changes.Load())
	}
	for _, name := range done.Dropped {
		must(t, r.packs.Delete(t.Context(), name))
	}
	if n := missing(t, r.Store, frames...); n != 0 {
		t.Errorf("%d are missing", n)
	}
	if n := entriesOnDisk(t, r); n != len(frames) {
		t.Errorf("%d chunks lie in the packs, want %d", n, len(frames))
	}
}

func TestCompactKeepsWhatLives(t *testing.T) {
	t.Parallel()
	r := open(t)
	frames, blob := r.scattered(t, 10)
	dead := numbered("dead", 5)
	must(t, r.PutFrames(t.Context(), dead))
	other := numbered("other", 3)
	must(t, r.PutFrames(t.Context(), other))
	names := packNames(t, r)
	must(t, r.index.Update(t.Context(), func(tx index.Tx) error {
		_, err := tx.DropChunks(hashesOf(dead))
		return err
	}))

	done, err := r.Compact(t.Context(), names[:3])
	must(t, err)
	slices.Sort(done.Dropped)
	if !slices.Equal(done.Dropped, names[:3]) {
		t.Errorf("dropped %v, want %v", done.Dropped, names[:3])
	}
	for _, name := range done.Dropped {
		must(t, r.packs.Delete(t.Context(), name))
	}
	files := packFiles(t, r)
	if len(files) != 2 {
		t.Fatalf("packs %v", files)
	}
	if n := entriesOnDisk(t, r); n != 10+3 {
		t.Errorf("%d chunks lie in the packs, want %d", n, 10+3)
	}
	written, err := r.packs.Size(t.Context(), slices.Max(packNames(t, r)))
	if err != nil || written != done.Written {
		t.Errorf("%d bytes were written, it says %d; %v", written, done.Written, err)
	}
	var got bytes.Buffer
	if _, err := r.WriteChecked(t.Context(), &got, blob, 0, blob.FileSize); err != nil || !bytes.Equal(got.Bytes(), fileOf(frames)) {
		t.Errorf("%v, %d bytes", err, got.Len())
	}
	extents, err := r.Extents(t.Context(), blob)
	must(t, err)
	if !bytes.Equal(serve(t, r, extents), fileOf(frames)) {
		t.Error("other bytes are served")
	}
	if n := missing(t, r.Store, dead...); n != len(dead) {
		t.Errorf("%d of the dead are missing, want all", n)
	}
}

func TestCompactOfDeadPacksWritesNone(t *testing.T) {
	t.Parallel()
	r := open(t)
	f := numbered("a", 3)
	must(t, r.PutFrames(t.Context(), f))
	must(t, r.index.Update(t.Context(), func(tx index.Tx) error {
		_, err := tx.DropChunks(hashesOf(f))
		return err
	}))
	names := packNames(t, r)
	for _, packs := range [][]string{nil, {"unknown"}, names} {
		done, err := r.Compact(t.Context(), packs)
		if err != nil || done.Written != 0 || (len(packs) > 0 && packs[0] != "unknown") != (len(done.Dropped) == 1) {
			t.Errorf("%v: %+v, %v", packs, done, err)
		}
	}
	if n := len(packFiles(t, r)); n != 1 {
		t.Errorf("%d files: to delete the one is the caller's", n)
	}
}

func TestACompactionThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	fault := errors.New("on fire")
	for name, c := range map[string]struct {
		spoil  func(t *testing.T, r *rig, f []pack.Frame)
		want   error
		orphan bool
	}{
		"a damaged frame": {func(t *testing.T, r *rig, f []pack.Frame) { r.spoil(t, f[3].Hash) }, cas.ErrDamaged, false},
		"a lost pack":     {func(t *testing.T, r *rig, _ []pack.Frame) { must(t, os.Remove(packFiles(t, r)[0])) }, cas.ErrDamaged, false},
		"storage that cannot be reached": {func(_ *testing.T, r *rig, _ []pack.Frame) {
			r.beforeOpen(func(string) error { return packstore.ErrUnavailable })
		}, packstore.ErrUnavailable, false},
		"a full disk": {func(_ *testing.T, r *rig, _ []pack.Frame) {
			full := func() error { return packstore.ErrNoSpace }
			r.packs.beforePut.Store(&full)
		}, packstore.ErrNoSpace, false},
		"an index that fails": {func(_ *testing.T, r *rig, _ []pack.Frame) {
			fails := func() error { return fault }
			r.index.beforeUpdate.Store(&fails)
		}, fault, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t)
			frames, _ := r.scattered(t, 8)
			names := packNames(t, r)
			before, err := r.index.Locate(t.Context(), hashesOf(frames))
			must(t, err)
			c.spoil(t, r, frames)
			left := len(packFiles(t, r))
			done, err := r.Compact(t.Context(), names)
			if wantErr(t, err, c.want); done.Written != 0 || done.Dropped != nil {
				t.Errorf("%+v", done)
			}
			var damage *cas.DamagedError
			if errors.Is(c.want, cas.ErrDamaged) && (!errors.As(err, &damage) || !slices.Contains(names, damage.Pack)) {
				t.Errorf("%v does not say which pack is damaged", err)
			}
			after, err := r.index.Locate(t.Context(), hashesOf(frames))
			if err != nil || !slices.Equal(after, before) {
				t.Errorf("the chunks lie elsewhere now, %v", err)
			}
			if c.orphan {
				left++
			}
			if n := len(packFiles(t, r)); n != left {
				t.Errorf("%d packs, want %d", n, left)
			}
		})
	}
}

// far is a pack store that is far away.
type far struct {
	packstore.Store
	asked []string
	size  func() error
	sign  error
}

func (f *far) Prefetch(_ context.Context, name string, offset, length int64) {
	f.asked = append(f.asked, fmt.Sprint(name, " ", offset, " ", length))
}

func (f *far) Presign(_ context.Context, name string, ttl time.Duration) (string, error) {
	return fmt.Sprintf("https://far.example/%s?ttl=%v", name, ttl), f.sign
}

func (f *far) Size(ctx context.Context, name string) (int64, error) {
	if f.size != nil {
		return 0, f.size()
	}
	return f.Store.Size(ctx, name)
}

func openFar(t *testing.T) (*rig, *cas.Store, *far) {
	t.Helper()
	r := open(t)
	f := &far{Store: r.packs}
	s := cas.New(f, r.index, cas.DefaultGrace)
	t.Cleanup(s.Close)
	return r, s, f
}

func TestPrefetchAsksForNoMoreThanItsShare(t *testing.T) {
	t.Parallel()
	r, s, f := openFar(t)
	s.Prefetch(t.Context(), []index.Extent{{Pack: "a", Offset: 5, Length: 10 << 20}, {Pack: "b", Offset: 1, Length: 10 << 20}, {Pack: "c", Offset: 0, Length: 1}})
	if want := []string{"a 5 10485760", "b 1 6291456"}; !slices.Equal(f.asked, want) {
		t.Errorf("asked for %v, want %v", f.asked, want)
	}
	r.Prefetch(t.Context(), []index.Extent{{Pack: "a", Length: 1}}) // packs at hand
	s.Prefetch(t.Context(), nil)
}

// Only a blob that is all that its pack holds may be had from the storage itself.
func TestWholePackURL(t *testing.T) {
	t.Parallel()
	r, s, f := openFar(t)
	whole, shared, twice := numbered("whole", 5), numbered("shared", 4), numbered("twice", 2)
	for _, frames := range [][]pack.Frame{whole, shared, twice} {
		must(t, r.PutFrames(t.Context(), frames))
	}
	reversed := slices.Clone(whole)
	slices.Reverse(reversed)
	single := numbered("single", 1)
	must(t, r.PutFrames(t.Context(), single))
	for name, c := range map[string]struct {
		frames []pack.Frame
		ok     bool
	}{
		"all of a pack":           {whole, true},
		"of one chunk":            {single, true},
		"in another order":        {reversed, false},
		"the beginning of a pack": {shared[:3], false},
		"the end of a pack":       {shared[1:], false},
		"one in the middle":       {shared[1:2], false},
		"a chunk twice":           {append(slices.Clone(twice), twice...), false},
		"of two packs":            {append(slices.Clone(whole), shared...), false},
	} {
		blob := r.record(t, c.frames...)
		extents, err := s.Extents(t.Context(), blob)
		must(t, err)
		url, ok, err := s.WholePackURL(t.Context(), blob, extents, time.Minute)
		want := ""
		if c.ok {
			want = "https://far.example/" + extents[0].Pack + "?ttl=1m0s"
		}
		if err != nil || ok != c.ok || url != want {
			t.Errorf("%s: %q, %v, %v; want %q", name, url, ok, err, want)
		}
		if _, ok, err := r.WholePackURL(t.Context(), blob, extents, time.Minute); ok || err != nil {
			t.Errorf("%s: a storage that gives no URLs gave one, %v", name, err)
		}
	}
	blob := r.record(t, whole...)
	extents, err := s.Extents(t.Context(), blob)
	must(t, err)
	f.sign = errors.New("no key")
	_, ok, err := s.WholePackURL(t.Context(), blob, extents, time.Minute)
	if wantErr(t, err, f.sign); ok {
		t.Error("a URL that could not be signed")
	}
	f.size = func() error { return packstore.ErrUnavailable }
	_, ok, err = s.WholePackURL(t.Context(), blob, extents, time.Minute)
	if wantErr(t, err, packstore.ErrUnavailable); ok {
		t.Error("a URL of a pack that was not looked at")
	}
}
