// Package indextest holds what every index.Index must do, as one suite that
// each engine's tests run.
package indextest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// Open gives an empty index and a way to get another handle on it, as a
// restart or a second process would have. The test closes neither.
type Open func(t *testing.T) (x index.Index, reopen func() index.Index)

type suite map[string]func(t *testing.T, x index.Index, reopen func() index.Index)

// Run tests the indexes that open returns.
func Run(t *testing.T, open Open) {
	t.Helper()
	for _, s := range []suite{changes, blobs, paths, pins, removal, caches, names, held, epochs, races, storageRaces, nameRaces, locks, models} {
		for name, test := range s {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				x, reopen := open(t)
				test(t, x, reopen)
			})
		}
	}
}

// past and future are before and after all that a test does, whole seconds.
var (
	past   = time.Unix(1_000_000_000, 0)
	future = time.Unix(4_000_000_000, 0)
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func wantEqual[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Errorf("%s:\ngot  %s\nwant %s", what, g, w)
	}
}

// update makes a change that must succeed.
func update(t testing.TB, x index.Index, change func(index.Tx) error) {
	t.Helper()
	must(t, x.Update(context.Background(), change))
}

// chunk makes a chunk whose frame is as long as its name.
func chunk(name string) digest.Chunk {
	return digest.Chunk{Hash: digest.Of([]byte(name)), Size: uint32(2 * len(name))}
}

func chunks(names ...string) []digest.Chunk {
	out := make([]digest.Chunk, len(names))
	for i, n := range names {
		out[i] = chunk(n)
	}
	return out
}

func hashes(names ...string) []digest.Hash {
	out := make([]digest.Hash, len(names))
	for i, n := range names {
		out[i] = chunk(n).Hash
	}
	return out
}

// entries lays out the frames of the chunks one behind the other from 8 on.
func entries(names ...string) []pack.Entry {
	var out []pack.Entry
	at := int64(8)
	for _, n := range names {
		out = append(out, pack.Entry{Kind: pack.KindChunk, Chunk: chunk(n), Offset: at, Length: uint32(len(n))})
		at += int64(len(n))
	}
	return out
}

func addPack(t testing.TB, x index.Index, name string, names ...string) {
	t.Helper()
	update(t, x, func(tx index.Tx) error { return tx.AddPack(name, 100, entries(names...)) })
}

func blob(name string) index.Blob {
	return index.Blob{
		Digest:   digest.Digest{Hash: digest.Of([]byte("blob " + name)), Size: 42},
		FileHash: digest.Of([]byte("file " + name)), FileSize: 17,
	}
}

// addBlob adds a blob that has long expired.
func addBlob(t testing.TB, x index.Index, name string, names ...string) index.Blob {
	t.Helper()
	var b index.Blob
	update(t, x, func(tx index.Tx) (err error) {
		b, err = tx.AddBlob(blob(name), chunks(names...), past)
		return err
	})
	return b
}

func addCache(t testing.TB, x index.Index, name string) index.Cache {
	t.Helper()
	c := index.Cache{
		Name: name, StoreDir: "/nix/store", Priority: 41, SecretKeys: []string{name + "-2:c2VjcmV0", name + "-1:c2VjcmV0"},
		Retention: 36 * time.Hour, Public: name != "two", UpstreamKeys: []string{"cache.nixos.org-1"},
	}
	update(t, x, func(tx index.Tx) (err error) {
		c.ID, err = tx.AddCache(c)
		return err
	})
	return c
}

// hash32 makes the 32 characters of a store path out of a number.
func hash32(n int) string { return fmt.Sprintf("%032d", n) }

func hash32s(numbers ...int) []string {
	out := make([]string, len(numbers))
	for i, n := range numbers {
		out[i] = hash32(n)
	}
	return out
}

// path is a path of that number that refers to those of others.
func path(c index.Cache, b index.Blob, n int, refs ...int) index.Path {
	p := index.Path{CacheID: c.ID, Hash: hash32(n), Name: "name", NAR: b}
	for _, ref := range refs {
		p.References = append(p.References, hash32(ref)+"-name")
	}
	return p
}

func putPath(t testing.TB, x index.Index, p index.Path) (absent []string) {
	t.Helper()
	update(t, x, func(tx index.Tx) (err error) {
		absent, err = tx.PutPath(p)
		return err
	})
	return absent
}

func holds(t testing.TB, x index.Index, c index.Cache, n int) bool {
	t.Helper()
	_, err := x.Path(context.Background(), c.ID, hash32(n))
	if err != nil && !errors.Is(err, index.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}
