package index_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

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

func TestAListIsNotReadOncePerRow(t *testing.T) {
	t.Parallel()
	x := openPostgres(t, pgtest.Database(t))
	const many = 30_000
	names := make([]string, many)
	hashes := make([]digest.Hash, many)
	for i := range names {
		names[i] = fmt.Sprint("chunk ", i)
		hashes[i] = chunkOf(names[i]).Hash
	}
	// What the server learns from an empty table is wrong soon.
	for range 10 {
		_, err := x.Locate(t.Context(), hashes[:1])
		must(t, err)
	}
	must(t, x.Update(t.Context(), func(tx index.Tx) error {
		if err := tx.AddPack("p", 1000, entriesOf(names...)); err != nil {
			return err
		}
		if err := tx.TouchChunks(hashes); err != nil {
			return err
		}
		_, err := tx.AddBlob(blobOf("b"), chunksOf(names...), time.Now())
		return err
	}))
	found, err := x.Locate(t.Context(), hashes)
	must(t, err)
	if len(found) != many {
		t.Errorf("%d chunks of %d", len(found), many)
	}
}
