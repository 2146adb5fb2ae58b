// Package indextest holds what every index.Index must do, as one suite that
// each engine's tests run.
package indextest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// Open gives an empty index and a way to get another handle on it, as a
// restart or a second process would have. The test closes neither.
type Open func(t *testing.T) (x index.Index, reopen func() index.Index)

// Run tests the indexes that open returns.
func Run(t *testing.T, open Open) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, index.Index, func() index.Index){
		"ChunksOfAPack":               chunksOfAPack,
		"BlobIsItsChunksInOrder":      blobInOrder,
		"BlobWithMissingChunks":       blobMissingChunks,
		"PathIsANameOverABlob":        pathOverBlob,
		"CachesAreApart":              cachesApart,
		"AFailedChangeLeavesNothing":  failedChange,
		"ManyChangesAtOnce":           manyChanges,
		"MissingPathsOfManyHashes":    missingPaths,
		"ACancelledChangeIsNotMade":   cancelledChange,
		"WhatIsUnknownIsErrNotFound":  unknown,
		"ASecondHandleSeesTheChanges": secondHandle,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, reopen := open(t)
			test(t, x, reopen)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

// chunk makes a chunk whose frame is as long as its name.
func chunk(name string) digest.Chunk {
	return digest.Chunk{Hash: digest.Of([]byte(name)), Size: uint32(2 * len(name))}
}

func entries(names ...string) []pack.Entry {
	var out []pack.Entry
	at := int64(8)
	for _, n := range names {
		out = append(out, pack.Entry{Kind: pack.KindChunk, Chunk: chunk(n), Offset: at, Length: uint32(len(n))})
		at += int64(len(n))
	}
	return out
}

func chunks(names ...string) []digest.Chunk {
	var out []digest.Chunk
	for _, n := range names {
		out = append(out, chunk(n))
	}
	return out
}

func addPack(t *testing.T, x index.Index, name string, names ...string) {
	t.Helper()
	must(t, x.Update(t.Context(), func(tx index.Tx) error { return tx.AddPack(name, 100, entries(names...)) }))
}

func blob(name string) index.Blob {
	return index.Blob{
		Digest:   digest.Digest{Hash: digest.Of([]byte("blob " + name)), Size: 42},
		FileHash: digest.Of([]byte("file " + name)), FileSize: 17,
	}
}

func addBlob(t *testing.T, x index.Index, name string, names ...string) index.Blob {
	t.Helper()
	var b index.Blob
	must(t, x.Update(t.Context(), func(tx index.Tx) (err error) {
		b, err = tx.AddBlob(blob(name), chunks(names...))
		return err
	}))
	return b
}

func addCache(t *testing.T, x index.Index, name string) index.Cache {
	t.Helper()
	c := index.Cache{Name: name, StoreDir: "/nix/store", Priority: 41, SecretKey: name + "-1:c2VjcmV0"}
	must(t, x.Update(t.Context(), func(tx index.Tx) (err error) {
		c.ID, err = tx.AddCache(c)
		return err
	}))
	return c
}

// hash32 makes the 32 characters of a store path out of a number.
func hash32(n int) string { return fmt.Sprintf("%032d", n) }

func putPath(t *testing.T, x index.Index, c index.Cache, n int, b index.Blob) index.Path {
	t.Helper()
	p := index.Path{
		CacheID: c.ID, Hash: hash32(n), Name: "name", NAR: b,
		References: []string{hash32(0) + "-dep", hash32(n) + "-name"},
		Deriver:    hash32(9) + "-name.drv", Signatures: []string{"a:b", "c:d"}, CA: "fixed:r:sha256:x",
	}
	must(t, x.Update(t.Context(), func(tx index.Tx) error { return tx.PutPath(p) }))
	return p
}

func chunksOfAPack(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "one", "three")
	addPack(t, x, "p2", "three", "fifteen")
	var ask []digest.Hash
	for _, c := range chunks("one", "three", "fifteen", "never stored") {
		ask = append(ask, c.Hash)
	}
	found, err := x.Locate(t.Context(), ask)
	must(t, err)
	got := map[digest.Hash]index.Location{}
	for _, l := range found {
		got[l.Hash] = l
	}
	want := map[string]index.Location{
		"one":     {Pack: "p1", Offset: 8, Length: 3},
		"three":   {Pack: "p1", Offset: 11, Length: 5}, // keeps its first place
		"fifteen": {Pack: "p2", Offset: 13, Length: 7},
	}
	if len(found) != len(want) {
		t.Errorf("%d chunks found, want %d", len(found), len(want))
	}
	for name, w := range want {
		w.Chunk = chunk(name)
		if got[w.Hash] != w {
			t.Errorf("chunk %q at %+v, want %+v", name, got[w.Hash], w)
		}
	}
}

func blobInOrder(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "bb", "ccc")
	addPack(t, x, "p2", "dddd")
	b := addBlob(t, x, "b", "dddd", "a", "bb", "a", "ccc")
	got, err := x.Extents(t.Context(), b.ID)
	must(t, err)
	want := []index.Extent{
		{Pack: "p2", Offset: 8, Length: 4},
		{Pack: "p1", Offset: 8, Length: 3},
		{Pack: "p1", Offset: 8, Length: 1},
		{Pack: "p1", Offset: 11, Length: 3},
	}
	if !slices.Equal(got, want) {
		t.Errorf("extents %v, want %v: neighbours joined, order kept", got, want)
	}
	again := addBlob(t, x, "b", "a")
	if again != b {
		t.Errorf("adding it again gave %+v, want %+v", again, b)
	}
	if there, err := x.Blob(t.Context(), b.Digest); there != b || err != nil {
		t.Errorf("Blob = %+v, %v", there, err)
	}
	empty := addBlob(t, x, "empty")
	if got, err := x.Extents(t.Context(), empty.ID); len(got) != 0 || err != nil {
		t.Errorf("extents of the empty blob: %v, %v", got, err)
	}
}

func blobMissingChunks(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	err := x.Update(t.Context(), func(tx index.Tx) error {
		_, err := tx.AddBlob(blob("b"), chunks("a", "never stored"))
		return err
	})
	wantErr(t, err, index.ErrMissingChunks)
	otherSize := chunk("a")
	otherSize.Size++
	err = x.Update(t.Context(), func(tx index.Tx) error {
		_, err := tx.AddBlob(blob("b"), []digest.Chunk{otherSize})
		return err
	})
	wantErr(t, err, index.ErrMissingChunks)
	_, err = x.Blob(t.Context(), blob("b").Digest)
	wantErr(t, err, index.ErrNotFound)
}

func pathOverBlob(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a", "b")
	c := addCache(t, x, "main")
	first, second := addBlob(t, x, "first", "a"), addBlob(t, x, "second", "b")
	want := putPath(t, x, c, 1, first)
	check := func(want index.Path) {
		t.Helper()
		got, err := x.Path(t.Context(), c.ID, want.Hash)
		must(t, err)
		if got.Created.IsZero() {
			t.Error("no time of creation")
		}
		want.Created = got.Created
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	check(want)
	want.NAR, want.References, want.Deriver, want.Signatures, want.CA = second, nil, "", nil, ""
	must(t, x.Update(t.Context(), func(tx index.Tx) error { return tx.PutPath(want) }))
	check(want)
}

func cachesApart(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	one, two := addCache(t, x, "one"), addCache(t, x, "two")
	b := addBlob(t, x, "b", "a")
	putPath(t, x, one, 1, b)
	_, err := x.Path(t.Context(), two.ID, hash32(1))
	wantErr(t, err, index.ErrNotFound)
	_, err = x.NAR(t.Context(), two.ID, b.Hash)
	wantErr(t, err, index.ErrNotFound)
	if got, err := x.NAR(t.Context(), one.ID, b.Hash); got != b || err != nil {
		t.Errorf("NAR = %+v, %v", got, err)
	}
	if got, err := x.Cache(t.Context(), "two"); got != two || err != nil {
		t.Errorf("Cache = %+v, %v; want %+v", got, err, two)
	}
	err = x.Update(t.Context(), func(tx index.Tx) error {
		_, err := tx.AddCache(index.Cache{Name: "one"})
		return err
	})
	wantErr(t, err, index.ErrExists)
}

func failedChange(t *testing.T, x index.Index, _ func() index.Index) {
	wrong := errors.New("changed my mind")
	err := x.Update(t.Context(), func(tx index.Tx) error {
		if err := tx.AddPack("p1", 1, entries("a")); err != nil {
			return err
		}
		if _, err := tx.AddBlob(blob("b"), chunks("a")); err != nil {
			return err
		}
		return wrong
	})
	wantErr(t, err, wrong)
	if found, err := x.Locate(t.Context(), []digest.Hash{chunk("a").Hash}); len(found) != 0 || err != nil {
		t.Errorf("a chunk of the failed change: %v, %v", found, err)
	}
	addPack(t, x, "p1", "a") // its name is free
}

func manyChanges(t *testing.T, x index.Index, _ func() index.Index) {
	c := addCache(t, x, "main")
	wrong := errors.New("every seventh fails")
	var g errgroup.Group
	for i := range 100 {
		g.Go(func() error {
			err := x.Update(t.Context(), func(tx index.Tx) error {
				if err := tx.AddPack(fmt.Sprintf("p%d", i), 1, entries("shared", fmt.Sprint("own", i))); err != nil {
					return err
				}
				b, err := tx.AddBlob(blob(fmt.Sprint(i)), chunks("shared", fmt.Sprint("own", i)))
				if err != nil {
					return err
				}
				if i%7 == 0 {
					return wrong
				}
				return tx.PutPath(index.Path{CacheID: c.ID, Hash: hash32(i), Name: "n", NAR: b})
			})
			if i%7 == 0 && errors.Is(err, wrong) {
				return nil
			}
			return err
		})
	}
	must(t, g.Wait())
	for i := range 100 {
		_, err := x.Path(t.Context(), c.ID, hash32(i))
		if i%7 == 0 {
			wantErr(t, err, index.ErrNotFound)
		} else {
			must(t, err)
		}
	}
}

func missingPaths(t *testing.T, x index.Index, _ func() index.Index) {
	addPack(t, x, "p1", "a")
	c := addCache(t, x, "main")
	b := addBlob(t, x, "b", "a")
	var ask, want []string
	for i := range 2500 {
		ask = append(ask, hash32(i))
		if i%1000 == 7 {
			putPath(t, x, c, i, b)
		} else {
			want = append(want, hash32(i))
		}
	}
	ask = append(ask, ask[:100]...)
	got, err := x.MissingPaths(t.Context(), c.ID, ask)
	must(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("%d missing, want %d, each once and in order", len(got), len(want))
	}
	if got, err := x.MissingPaths(t.Context(), c.ID, nil); len(got) != 0 || err != nil {
		t.Errorf("of none: %v, %v", got, err)
	}
}

func cancelledChange(t *testing.T, x index.Index, _ func() index.Index) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := x.Update(ctx, func(tx index.Tx) error { return tx.AddPack("p1", 1, entries("a")) })
	wantErr(t, err, context.Canceled)
	addPack(t, x, "p1", "a")
}

func unknown(t *testing.T, x index.Index, _ func() index.Index) {
	_, err := x.Blob(t.Context(), blob("b").Digest)
	wantErr(t, err, index.ErrNotFound)
	_, err = x.Cache(t.Context(), "none")
	wantErr(t, err, index.ErrNotFound)
	_, err = x.Path(t.Context(), 1, strings.Repeat("0", 32))
	wantErr(t, err, index.ErrNotFound)
	_, err = x.NAR(t.Context(), 1, digest.Of(nil))
	wantErr(t, err, index.ErrNotFound)
}

func secondHandle(t *testing.T, x index.Index, reopen func() index.Index) {
	second := reopen()
	c := addCache(t, x, "main")
	addPack(t, second, "p1", "a")
	b := addBlob(t, x, "b", "a")
	putPath(t, second, c, 1, b)
	if _, err := x.Path(t.Context(), c.ID, hash32(1)); err != nil {
		t.Errorf("what the other handle wrote: %v", err)
	}
}
