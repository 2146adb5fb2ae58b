package index_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index/indextest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/pgtest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

func openPostgres(t *testing.T, url string) *index.Postgres {
	t.Helper()
	x, err := index.OpenPostgres(t.Context(), url)
	must(t, err)
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// sql runs statements beside the index.
func sql(t *testing.T, url, statements string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	must(t, err)
	_, err = conn.Exec(t.Context(), statements)
	must(t, errors.Join(err, conn.Close(t.Context())))
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

// The bytes of the frame of a chunk are as many as its name has.
func entriesOf(chunks ...string) []pack.Entry {
	var entries []pack.Entry
	offset := int64(8)
	for _, c := range chunks {
		entries = append(entries, pack.Entry{Kind: pack.KindChunk, Chunk: chunkOf(c), Offset: offset, Length: uint32(len(c))})
		offset += int64(len(c))
	}
	return entries
}

func chunkOf(name string) digest.Chunk {
	return digest.Chunk{Hash: digest.Of([]byte(name)), Size: 2 * uint32(len(name))}
}

func chunksOf(names ...string) []digest.Chunk {
	var chunks []digest.Chunk
	for _, n := range names {
		chunks = append(chunks, chunkOf(n))
	}
	return chunks
}

func blobOf(name string) index.Blob {
	return index.Blob{
		Digest:   digest.Digest{Hash: digest.Of([]byte("blob " + name)), Size: 42},
		FileHash: digest.Of([]byte("file " + name)), FileSize: 17,
	}
}

func hashOf(n int) string { return fmt.Sprintf("%032d", n) }

func addPack(name string, chunks ...string) func(index.Tx) error {
	return func(tx index.Tx) error { return tx.AddPack(name, 1000, entriesOf(chunks...)) }
}

func TestPostgresConformance(t *testing.T) {
	t.Parallel()
	indextest.Run(t, func(t *testing.T) (index.Index, func() index.Index) {
		url := pgtest.Database(t)
		return openPostgres(t, url), func() index.Index { return openPostgres(t, url) }
	})
}

func TestReplicasThatStartAtOnceMakeTheTablesOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	var g errgroup.Group
	for i := range 8 {
		g.Go(func() error {
			x, err := index.OpenPostgres(t.Context(), url)
			if err != nil {
				return err
			}
			return errors.Join(x.Update(t.Context(), addPack(fmt.Sprint(i), "a")), x.Close())
		})
	}
	must(t, g.Wait())
}

func TestAPostgresIndexOfANewerVersionIsLeftAlone(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	must(t, openPostgres(t, url).Update(t.Context(), addPack("p", "a")))
	sql(t, url, "UPDATE index_version SET version = 99")
	_, err := index.OpenPostgres(t.Context(), url)
	if err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("got %v, want an error that says it is newer", err)
	}
}

// A collation for people sorts and compares otherwise than bytes do; pages and
// limits go by bytes.
func TestNamesAreSortedByTheirBytesWhateverTheCollation(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	x := openPostgres(t, url)
	for _, name := range []string{"b", "B", "a-b", "aa", "A"} {
		must(t, x.Update(t.Context(), func(tx index.Tx) error {
			_, err := tx.AddCache(index.Cache{Name: name})
			return err
		}))
	}
	caches, err := x.Caches(t.Context())
	must(t, err)
	var names []string
	for _, c := range caches {
		names = append(names, c.Name)
	}
	if got := strings.Join(names, " "); got != "A B a-b aa b" {
		t.Errorf("sorted %s", got)
	}
}

// A role that an administrator gave the tables to may not be allowed to create
// any.
func TestARoleThatMayNotCreateTablesUsesThoseThatAreThere(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	openPostgres(t, url)
	sql(t, url, `REVOKE CREATE ON SCHEMA public FROM PUBLIC;
		DROP ROLE IF EXISTS guest; -- roles are the server's, which tests share
		CREATE ROLE guest LOGIN;
		GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest`)
	x := openPostgres(t, strings.Replace(url, "user=test", "user=guest", 1))
	must(t, x.Update(t.Context(), addPack("p", "a")))
	if _, err := x.Usage(t.Context()); err != nil {
		t.Error(err)
	}
}

// The server plans each statement when the tables are empty, and no plan may be
// one for empty tables.
func TestStatementsLookUpRatherThanReadThrough(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	x, err := index.OpenPostgres(t.Context(), url)
	must(t, err)
	var cache int64
	must(t, x.Update(t.Context(), func(tx index.Tx) (err error) {
		cache, err = tx.AddCache(index.Cache{Name: "main"})
		return err
	}))
	const paths, chunks = 400, 10
	var hashes []string
	var list []digest.Hash
	for n := range paths {
		hashes = append(hashes, hashOf(n))
		for i := range chunks {
			list = append(list, chunkOf(fmt.Sprint(n, " ", i)).Hash)
		}
		must(t, x.Update(t.Context(), func(tx index.Tx) error { return storeOne(tx, cache, n, chunks) }))
		_, err := x.NAR(t.Context(), cache, blobOf(fmt.Sprint(n)).Hash)
		must(t, err)
		_, err = x.Path(t.Context(), cache, hashOf(n))
		must(t, err)
	}
	found, err := x.Locate(t.Context(), list)
	if len(found) != len(list) || err != nil {
		t.Errorf("%d chunks of %d, %v", len(found), len(list), err)
	}
	missing, stale, err := x.MissingPaths(t.Context(), cache, hashes, future)
	if len(missing) != 0 || len(stale) != paths || err != nil {
		t.Errorf("missing %d, stale %d, %v", len(missing), len(stale), err)
	}
	must(t, x.Update(t.Context(), func(tx index.Tx) error {
		_, _, err := tx.RemoveUnused(cache, hashes, future)
		_, err2 := tx.SweepBlobs(0, paths, future)
		_, err3 := tx.SweepChunks(0, paths, future)
		return errors.Join(err, err2, err3, tx.TouchChunks(list), tx.TouchPaths(cache, hashes))
	}))
	must(t, x.Close()) // each session tells what it read when it ends
	conn, err := pgx.Connect(t.Context(), url)
	must(t, err)
	defer func() { must(t, conn.Close(context.WithoutCancel(t.Context()))) }()
	one := func(sql string, args ...any) (n int) {
		must(t, conn.QueryRow(t.Context(), sql, args...).Scan(&n))
		return n
	}
	soon(t, "the end of the sessions", func() error {
		if n := one("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"); n > 1 {
			return fmt.Errorf("%d are left", n-1)
		}
		return nil
	})
	for table, rows := range map[string]int{"paths": paths, "blobs": paths, "packs": paths, "chunks": paths * chunks, "blob_chunks": paths * chunks, "referrers": 3 * paths} {
		soon(t, "the statistics", func() error {
			if one("SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = $1", table) < rows/2 {
				return errors.New("they are not complete")
			}
			return nil
		})
		n := one("SELECT coalesce(idx_tup_fetch, 0) + seq_tup_read FROM pg_stat_user_tables WHERE relname = $1", table)
		if most := 30 * rows; n > most {
			t.Errorf("%d rows of %s were read, which has %d; want at most %d", n, table, rows, most)
		}
	}
}

// storeOne stores a path with a blob and a pack of its own, and a blob that all
// share.
func storeOne(tx index.Tx, cache int64, n, chunks int) error {
	var names []string
	for i := range chunks {
		names = append(names, fmt.Sprint(n, " ", i))
	}
	if err := tx.AddPack(fmt.Sprint("p", n), 1000, entriesOf(append(names, "shared")...)); err != nil {
		return err
	}
	if _, err := tx.AddBlob(blobOf("shared"), chunksOf("shared"), future); err != nil {
		return err
	}
	nar, err := tx.AddBlob(blobOf(fmt.Sprint(n)), chunksOf(names...), past)
	if err != nil {
		return err
	}
	p := index.Path{CacheID: cache, Hash: hashOf(n), Name: "name", NAR: nar}
	for _, r := range []int{n / 2, n / 3, n + 1} {
		p.References = append(p.References, hashOf(r)+"-name")
	}
	if _, err := tx.PutPath(p); err != nil {
		return err
	}
	if err := tx.AddPin(index.Pin{CacheID: cache, Name: fmt.Sprint("pin", n), Hash: p.Hash}, 1); err != nil {
		return err
	}
	_, err = tx.RemovePins(cache, fmt.Sprint("pin", n), p.Hash)
	return errors.Join(err, tx.TouchNAR(cache, nar.Hash))
}
