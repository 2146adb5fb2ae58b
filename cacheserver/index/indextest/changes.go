package indextest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

var changes = suite{
	"AFailedChangeLeavesNothing":      failedChange,
	"ManyChangesAtOnce":               manyChanges,
	"ACancelledChangeIsNotMade":       cancelledChange,
	"ACancelledQuestionIsNotAnswered": cancelledQuestion,
	"WhatIsUnknownIsErrNotFound":      unknown,
	"ASecondHandleSeesTheChanges":     secondHandle,
	"ItBeganOnce":                     beganOnce,
	"AChangeSeesItsOwnWrites":         ownWrites,
}

func failedChange(t *testing.T, x index.Index, _ func() index.Index) {
	c := addCache(t, x, "main")
	addPack(t, x, "p0", "kept")
	b := addBlob(t, x, "kept", "kept")
	putPath(t, x, path(c, b, 1))
	wrong := errors.New("changed my mind")
	err := x.Update(t.Context(), func(tx index.Tx) error {
		if err := tx.AddPack("p1", 1, entries("a")); err != nil {
			return err
		}
		if _, err := tx.AddBlob(blob("b"), chunks("a"), past); err != nil {
			return err
		}
		if _, err := tx.DropChunks(hashes("kept")); err != nil {
			return err
		}
		return wrong
	})
	wantErr(t, err, wrong)
	found, err := x.Locate(t.Context(), hashes("a", "kept"))
	must(t, err)
	if len(found) != 1 || found[0].Chunk != chunk("kept") {
		t.Errorf("stored after the failed change: %v", found)
	}
	if !holds(t, x, c, 1) {
		t.Error("a path that the failed change removed is gone")
	}
	if _, dead, err := x.Stored(t.Context()); dead != 0 || err != nil {
		t.Errorf("%d bytes are dead, %v", dead, err)
	}
	addPack(t, x, "p1", "a") // its name is free
}

func manyChanges(t *testing.T, x index.Index, _ func() index.Index) {
	c := addCache(t, x, "main")
	wrong := errors.New("every seventh fails")
	var g errgroup.Group
	for i := range 100 {
		g.Go(func() error {
			own := fmt.Sprint("own", i)
			err := x.Update(t.Context(), func(tx index.Tx) error {
				if err := tx.AddPack(fmt.Sprintf("p%d", i), 1, entries("shared", own)); err != nil {
					return err
				}
				b, err := tx.AddBlob(blob(own), chunks("shared", own), past)
				if err != nil {
					return err
				}
				if i%7 == 0 {
					return wrong
				}
				_, err = tx.PutPath(path(c, b, i))
				return err
			})
			if i%7 == 0 && errors.Is(err, wrong) {
				return nil
			}
			return err
		})
	}
	must(t, g.Wait())
	for i := range 100 {
		if got, want := holds(t, x, c, i), i%7 != 0; got != want {
			t.Errorf("path %d is there: %v, want %v", i, got, want)
		}
	}
}

func cancelledChange(t *testing.T, x index.Index, _ func() index.Index) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := x.Update(ctx, func(tx index.Tx) error { return tx.AddPack("p1", 1, entries("a")) })
	wantErr(t, err, context.Canceled)
	addPack(t, x, "p1", "a")
}

// questions asks everything that an index can be asked.
func questions(ctx context.Context, x index.Index) map[string]error {
	said := map[string]error{}
	_, said["Locate"] = x.Locate(ctx, hashes("a"))
	_, said["Blob"] = x.Blob(ctx, blob("b").Digest)
	_, said["Chunks"] = x.Chunks(ctx, 1, 0, 10)
	_, said["Extents"] = x.Extents(ctx, 1)
	_, said["Cache"] = x.Cache(ctx, "none")
	_, said["Caches"] = x.Caches(ctx)
	_, said["Path"] = x.Path(ctx, 1, strings.Repeat("0", 32))
	_, said["NAR"] = x.NAR(ctx, 1, digest.Of(nil))
	_, _, said["MissingPaths"] = x.MissingPaths(ctx, 1, hash32s(1), future)
	_, said["Referrers"] = x.Referrers(ctx, 1, hash32(1))
	_, said["Pins"] = x.Pins(ctx, 1)
	_, said["PathsByUse"] = x.PathsByUse(ctx, 1, future, index.UsedPath{}, 10)
	_, said["Packs"] = x.Packs(ctx, "", 10)
	_, said["ChunksIn"] = x.ChunksIn(ctx, "p1")
	_, said["PathsWith"] = x.PathsWith(ctx, hashes("a"))
	_, said["Usage"] = x.Usage(ctx)
	_, _, said["Stored"] = x.Stored(ctx)
	_, said["Began"] = x.Began(ctx)
	return said
}

func cancelledQuestion(t *testing.T, x index.Index, _ func() index.Index) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for what, err := range questions(ctx, x) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got error %v, want %v", what, err, context.Canceled)
		}
	}
}

// What an empty index is asked is answered with nothing or, where one thing was
// asked for, with ErrNotFound.
func unknown(t *testing.T, x index.Index, _ func() index.Index) {
	asksForOne := map[string]bool{"Blob": true, "Chunks": true, "Extents": true, "Cache": true, "Path": true, "NAR": true}
	for what, err := range questions(t.Context(), x) {
		switch {
		case asksForOne[what] && !errors.Is(err, index.ErrNotFound):
			t.Errorf("%s: got error %v, want %v", what, err, index.ErrNotFound)
		case !asksForOne[what] && err != nil:
			t.Errorf("%s: %v", what, err)
		}
	}
	c := addCache(t, x, "main")
	update(t, x, func(tx index.Tx) error {
		return errors.Join(
			tx.TouchChunks(hashes("a")), tx.TouchChunks(nil),
			tx.TouchPaths(c.ID, hash32s(1)), tx.TouchPaths(c.ID, nil),
			tx.TouchNAR(c.ID, digest.Of(nil)))
	})
	update(t, x, func(tx index.Tx) error {
		removed, references, err := tx.RemoveUnused(c.ID, hash32s(1, 2), future)
		if len(removed)+len(references) != 0 {
			t.Errorf("RemoveUnused: %v, %v", removed, references)
		}
		pins, err2 := tx.RemovePins(c.ID, "none", "")
		paths, err3 := tx.RemovePaths(c.ID, hash32s(1, 2))
		if pins+paths != 0 {
			t.Errorf("%d pins and %d paths of none removed", pins, paths)
		}
		packs, err4 := tx.DropPacks([]string{"p1"})
		over, err5 := tx.DropChunks(hashes("a"))
		if len(packs)+len(over) != 0 {
			t.Errorf("DropPacks: %v, DropChunks: %v", packs, over)
		}
		return errors.Join(err, err2, err3, err4, err5)
	})
}

func secondHandle(t *testing.T, x index.Index, reopen func() index.Index) {
	second := reopen()
	c := addCache(t, x, "main")
	addPack(t, second, "p1", "a")
	b := addBlob(t, x, "b", "a")
	putPath(t, second, path(c, b, 1))
	if !holds(t, x, c, 1) {
		t.Error("a path that the other handle wrote is not there")
	}
	update(t, x, func(tx index.Tx) error {
		_, _, err := tx.RemoveUnused(c.ID, hash32s(1), future)
		return err
	})
	if holds(t, second, c, 1) {
		t.Error("a path that the other handle removed is there")
	}
}

func beganOnce(t *testing.T, x index.Index, reopen func() index.Index) {
	want, err := x.Began(t.Context())
	if age := time.Since(want); err != nil || age < 0 || age > time.Hour {
		t.Errorf("it began %v, %v", want, err)
	}
	addCache(t, x, "main")
	if got, err := reopen().Began(t.Context()); err != nil || !got.Equal(want) {
		t.Errorf("opened again, it began %v, %v; want %v", got, err, want)
	}
}

func ownWrites(t *testing.T, x index.Index, _ func() index.Index) {
	update(t, x, func(tx index.Tx) error {
		id, err := tx.AddCache(index.Cache{Name: "main"})
		if err != nil {
			return err
		}
		c := index.Cache{ID: id}
		if err := tx.AddPack("p1", 100, entries("a")); err != nil {
			return err
		}
		b, err := tx.AddBlob(blob("b"), chunks("a"), past)
		if err != nil {
			return err
		}
		again, err := tx.AddBlob(blob("b"), chunks("a"), past)
		if err != nil || again != b {
			return fmt.Errorf("added again, it is %v, %w", again, err)
		}
		if s, err := tx.SweepChunks(0, 10, future); s.Removed != 0 || err != nil {
			return fmt.Errorf("swept a blob's chunk: %v, %w", s, err)
		}
		if _, err := tx.PutPath(path(c, b, 1)); err != nil {
			return err
		}
		if s, err := tx.SweepBlobs(0, 10, future); s.Removed != 0 || err != nil {
			return fmt.Errorf("swept a path's blob: %v, %w", s, err)
		}
		if absent, err := tx.PutPath(path(c, b, 2, 1)); len(absent) != 0 || err != nil {
			return fmt.Errorf("absent: %v, %w", absent, err)
		}
		if removed, _, err := tx.RemoveUnused(id, hash32s(1), future); len(removed) != 0 || err != nil {
			return fmt.Errorf("removed a path that one refers to: %v, %w", removed, err)
		}
		if err := tx.AddPin(index.Pin{CacheID: id, Name: "pin", Hash: hash32(2)}, 1); err != nil {
			return err
		}
		if removed, _, err := tx.RemoveUnused(id, hash32s(2), future); len(removed) != 0 || err != nil {
			return fmt.Errorf("removed a pinned path: %v, %w", removed, err)
		}
		if n, err := tx.RemovePaths(id, hash32s(1, 2)); n != 2 || err != nil {
			return fmt.Errorf("removed %d paths, %w", n, err)
		}
		if s, err := tx.SweepBlobs(0, 10, future); s.Removed != 1 || err != nil {
			return fmt.Errorf("swept blobs: %v, %w", s, err)
		}
		if s, err := tx.SweepChunks(0, 10, future); s.Removed != 1 || err != nil {
			return fmt.Errorf("swept chunks: %v, %w", s, err)
		}
		if dropped, err := tx.DropPacks([]string{"p1"}); len(dropped) != 1 || err != nil {
			return fmt.Errorf("dropped packs: %v, %w", dropped, err)
		}
		return nil
	})
	u, err := x.Usage(t.Context())
	must(t, err)
	wantEqual(t, "what is left", u, index.Usage{})
}
