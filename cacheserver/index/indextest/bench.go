package indextest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// benchPaths is how many paths Bench puts into the index; INDEXBENCH_PATHS in
// the environment says another number.
const benchPaths = 10_000

// chunksAPath is how many chunks each of those has to itself.
const chunksAPath = 10

// Bench measures an empty index that open returns, once it has filled it.
func Bench(b *testing.B, open func(b *testing.B) index.Index) {
	n := benchPaths
	if s := os.Getenv("INDEXBENCH_PATHS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			b.Fatalf("INDEXBENCH_PATHS: %v", err)
		}
	}
	x := open(b)
	c := fillPaths(b, x, n)
	stored := make([]digest.Hash, 0, 65_536)
	for i := range cap(stored) {
		stored = append(stored, chunk(fmt.Sprintf("c%09d", i*7919%(n*chunksAPath))).Hash)
	}
	b.Run("MissingPaths/100000", func(b *testing.B) {
		ask := make([]string, 100_000)
		for i := range ask {
			ask[i] = hash32(i * 7919 % max(2*n, len(ask))) // at most half of them are there
		}
		for b.Loop() {
			if _, _, err := x.MissingPaths(b.Context(), c.ID, ask, past); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Path", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := x.Path(b.Context(), c.ID, hash32(i*7919%n)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Locate/65536", func(b *testing.B) {
		for b.Loop() {
			if _, err := x.Locate(b.Context(), stored); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("TouchChunks/65536", func(b *testing.B) {
		for b.Loop() {
			update(b, x, func(tx index.Tx) error { return tx.TouchChunks(stored) })
		}
	})
	b.Run("AddPack/65536", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			list := entries(numbered(fmt.Sprint("new", b.N, "-", i), 65_536)...)
			update(b, x, func(tx index.Tx) error { return tx.AddPack(fmt.Sprintf("new%dx%d", b.N, i), 100, list) })
		}
	})
	b.Run("AddBlob/10000", func(b *testing.B) {
		var list []digest.Chunk
		for i := range 10_000 {
			list = append(list, chunk(fmt.Sprintf("c%09d", i*7919%(n*chunksAPath))))
		}
		for i := 0; b.Loop(); i++ {
			update(b, x, func(tx index.Tx) error {
				_, err := tx.AddBlob(blob(fmt.Sprint("bench", b.N, "-", i)), list, past)
				return err
			})
		}
	})
}

// fillPaths makes a cache of n paths, each over a blob of its own that has
// chunks of its own and refers to the ten paths before it.
func fillPaths(b *testing.B, x index.Index, n int) index.Cache {
	b.Helper()
	var names []string
	for i := range n * chunksAPath {
		names = append(names, fmt.Sprintf("c%09d", i))
	}
	for i := 0; len(names) > 0; i++ {
		batch := names[:min(len(names), 50_000)]
		names = names[len(batch):]
		addPack(b, x, fmt.Sprintf("fill%d", i), batch...)
	}
	for from := 0; from < n; from += 1000 {
		update(b, x, func(tx index.Tx) error {
			for i := from; i < min(n, from+1000); i++ {
				var own []string
				for j := range chunksAPath {
					own = append(own, fmt.Sprintf("c%09d", i*chunksAPath+j))
				}
				if _, err := tx.AddBlob(blob(fmt.Sprint(i)), chunks(own...), future); err != nil {
					return err
				}
			}
			return nil
		})
	}
	c := addCache(b, x, "bench")
	fillCache(b, x, c, n)
	return c
}

func fillCache(b *testing.B, x index.Index, c index.Cache, n int) {
	b.Helper()
	for from := 0; from < n; from += 1000 {
		var over []index.Blob
		for i := from; i < min(n, from+1000); i++ {
			found, err := x.Blob(context.Background(), blob(fmt.Sprint(i)).Digest)
			must(b, err)
			over = append(over, found)
		}
		update(b, x, func(tx index.Tx) error {
			for i, found := range slices.All(over) {
				at := from + i
				var refs []int
				for ref := max(0, at-10); ref < at; ref++ {
					refs = append(refs, ref)
				}
				if _, err := tx.PutPath(path(c, found, at, refs...)); err != nil {
					return err
				}
			}
			return nil
		})
	}
}
