package packstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// spoil changes the files of blocks in one way after the other, as a power cut or
// a hand may.
var spoil = map[string]func(path string) error{
	"cut off": func(path string) error { return os.Truncate(path, block/2) },
	"empty":   func(path string) error { return os.Truncate(path, 0) },
	"zeros": func(path string) error {
		info, err := os.Stat(path)
		if err == nil {
			err = os.WriteFile(path, make([]byte, info.Size()), 0o600)
		}
		return err
	},
	"zeros at the end": func(path string) error {
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, append(b[:len(b)-100_000], make([]byte, 100_000)...), 0o600)
		}
		return err
	},
	"longer": func(path string) error {
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, append(b, 0), 0o600)
		}
		return err
	},
	"gone": os.Remove,
}

func TestABlockThatACrashSpoiltIsNotServed(t *testing.T) {
	t.Parallel()
	for what, spoil := range spoil {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			next := newFar(t)
			dir := t.TempDir()
			c := openCached(t, dir, 16*block, next)
			body := putFar(t, c, "a", 2*block-7)
			want(t, c, "a", body, 0, len(body))
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			files := blockFiles(t, dir)
			if len(files) != 2 {
				t.Fatalf("%v, want 2 blocks", files)
			}
			for path := range files {
				if err := spoil(path); err != nil {
					t.Fatal(err)
				}
			}
			// What a process that was killed leaves.
			half := filepath.Join(dir, "incoming", "half")
			if err := os.WriteFile(half, body[:100], 0o600); err != nil {
				t.Fatal(err)
			}
			c = openCached(t, dir, 16*block, next)
			want(t, c, "a", body, 0, len(body))
			if n := next.opens.Load(); n != 4 {
				t.Errorf("%d requests, want 2 and another 2", n)
			}
			var sum int64
			for _, size := range blockFiles(t, dir) {
				sum += size
			}
			if used := c.Stats().Used; used != sum {
				t.Errorf("it counts %d bytes, and has %d", used, sum)
			}
		})
	}
}

func TestABlockThatVanishesOrShrinksIsFetchedAgain(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"cut off", "empty", "longer", "gone"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			next := newFar(t)
			dir := t.TempDir()
			c := openCached(t, dir, 16*block, next)
			body := putFar(t, c, "a", 2*block)
			want(t, c, "a", body, 0, len(body))
			for path := range blockFiles(t, dir) {
				if err := spoil[what](path); err != nil {
					t.Fatal(err)
				}
			}
			want(t, c, "a", body, 0, len(body))
			want(t, c, "a", body, 0, len(body))
			if n := next.opens.Load(); n != 4 {
				t.Errorf("%d requests, want 2 and another 2", n)
			}
		})
	}
}

func TestAFileCutOffWhileItIsReadIsReadFromWhereItCame(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"Read", "CopyTo"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			next := newFar(t)
			dir := t.TempDir()
			c := openCached(t, dir, 16*block, next)
			body := putFar(t, c, "a", 2*block)
			want(t, c, "a", body, 0, len(body))
			r, err := c.Open(t.Context(), "a", 0, int64(len(body)))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for path := range blockFiles(t, dir) {
				if err := os.Truncate(path, 1000); err != nil {
					t.Fatal(err)
				}
			}
			var got bytes.Buffer
			if how == "Read" {
				_, err = got.ReadFrom(r)
			} else {
				_, err = packstore.CopyN(&got, r, int64(len(body)))
			}
			if err != nil || !bytes.Equal(got.Bytes(), body) {
				t.Errorf("%d bytes of %d, the right ones: %v; error %v", got.Len(), len(body), bytes.Equal(got.Bytes(), body), err)
			}
			want(t, c, "a", body, 0, len(body))
		})
	}
}

func TestTwoCachesInOneDirectoryAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	next := newFar(t)
	c := openCached(t, dir, packstore.MinCached, next)
	if second, err := packstore.OpenCached(dir, packstore.MinCached, next); err == nil {
		_ = second.Close()
		t.Error("a second cache in a directory: no error")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	openCached(t, dir, packstore.MinCached, next)
	if _, err := packstore.OpenCached(t.TempDir(), packstore.MinCached-1, next); err == nil {
		t.Error("a limit that is too small: no error")
	}
}

func TestCloseEndsWhatIsBeingFetched(t *testing.T) {
	t.Parallel()
	next := newFar(t)
	dir := t.TempDir()
	c := openCached(t, dir, 16*block, next)
	body := putFar(t, c, "a", 2*block)
	defer next.shut()()
	var g errgroup.Group
	g.Go(func() error {
		_, err := c.Open(t.Context(), "a", 0, int64(len(body)))
		if !errors.Is(err, packstore.ErrClosed) {
			return fmt.Errorf("a reader while the cache is closed: %w", err)
		}
		return nil
	})
	await(func() bool { return next.opens.Load() > 0 })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := c.Open(t.Context(), "a", 0, 1); !errors.Is(err, packstore.ErrClosed) {
		t.Errorf("Open after Close: %v", err)
	}
	if files := blockFiles(t, dir); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
}

func TestDeleteDropsWhatIsBeingFetched(t *testing.T) {
	t.Parallel()
	next := newFar(t)
	dir := t.TempDir()
	c := openCached(t, dir, 16*block, next)
	putFar(t, c, "a", block)
	kept, err := next.Store.Open(t.Context(), "a", 0, block)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	open := next.shut()
	defer open()
	next.Store = openLate{next.Store, kept}
	var g errgroup.Group
	g.Go(func() error {
		_, err := c.Open(t.Context(), "a", 0, 1)
		if !errors.Is(err, packstore.ErrNotFound) {
			return fmt.Errorf("a reader of what is deleted: %w", err)
		}
		return nil
	})
	await(func() bool { return next.opens.Load() > 0 })
	if err := c.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	open()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if files := blockFiles(t, dir); len(files) != 0 || c.Stats().Used != 0 {
		t.Errorf("of a pack that was deleted while it was fetched, %v stays, counted as %d bytes", files, c.Stats().Used)
	}
}

// openLate gives a reader that was opened before its pack was deleted.
type openLate struct {
	packstore.Store
	r io.ReadCloser
}

func (o openLate) Open(context.Context, string, int64, int64) (io.ReadCloser, error) {
	return o.r, nil
}
