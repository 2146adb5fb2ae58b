package index

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/pgtest"
)

// beforeNames are rows of SQLite's version 2 and of PostgreSQL's version 1, to be
// filled in with how the engine writes a hash and a list: a blob with a path that
// is pinned, in the first of three caches, and a blob without a name.
func beforeNames(hash func(n int) string, list func(string) string, frameStart string) []string {
	return []string{
		"INSERT INTO packs (name, size, created, dead) VALUES ('p1', 200, 1700000000, 7)",
		fmt.Sprintf("INSERT INTO chunks (hash, size, pack, %s, length, touched) VALUES (%s, 100, 1, 8, 50, 1700000001)", frameStart, hash(1)),
		fmt.Sprintf(`INSERT INTO blobs (hash, size, file_hash, file_size, created, expires)
			VALUES (%s, 100, %s, 50, 1700000000, 1700000002), (%s, 100, %s, 50, 1700000000, 4000000000)`, hash(11), hash(21), hash(12), hash(22)),
		"INSERT INTO blob_chunks (blob, seq, chunk) VALUES (1, 0, 1), (2, 0, 1)",
		`INSERT INTO caches (name, store_dir, priority, secret_key, created, retention) VALUES
			('main', '/nix/store', 41, 'main-1:x', 1700000000, 7776000), ('ever', '/nix/store', 41, 'ever-1:x', 1700000000, 0),
			('own', '/gnu/store', 30, 'own-1:x', 1700000000, 3600)`,
		fmt.Sprintf(`INSERT INTO paths (cache, hash, name, nar, refs, deriver, signatures, ca, created, used)
			VALUES (1, '%s', 'name', 1, %s, 'd.drv', %s, 'ca', 1700000003, 1700000004)`, testPath(1), list(testPath(2)+"-b"), list("a:b")),
		fmt.Sprintf("INSERT INTO referrers (cache, hash, path) VALUES (1, '%s', 1)", testPath(2)),
		"INSERT INTO pins (cache, name, path, created, expires) VALUES (1, 'pin', 1, 1700000005, 0)",
	}
}

// checkNamed checks that beforeNames came through.
func checkNamed(t *testing.T, x Index) {
	t.Helper()
	ctx := t.Context()
	p, err := x.Path(ctx, 1, testPath(1))
	noError(t, err)
	want := Path{
		CacheID: 1, Hash: testPath(1), Name: "name", References: []string{testPath(2) + "-b"}, Deriver: "d.drv",
		Signatures: []string{"a:b"}, CA: "ca", Created: unixTime(1700000003), Used: unixTime(1700000004),
		NAR: Blob{
			ID: 1, Digest: digest.Digest{Hash: testHash(11), Size: 100}, FileHash: testHash(21), FileSize: 50,
			Expires: unixTime(1700000002),
		},
	}
	if fmt.Sprintf("%+v", p) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
	caches, err := x.Caches(ctx)
	noError(t, err)
	upstream := []string{"cache.nixos.org-1"}
	wantCaches := []Cache{
		{ID: 2, Name: "ever", StoreDir: "/nix/store", Priority: 41, SecretKeys: []string{"ever-1:x"}, Public: true, UpstreamKeys: upstream},
		{ID: 1, Name: "main", StoreDir: "/nix/store", Priority: 41, SecretKeys: []string{"main-1:x"}, Retention: GlobalRetention, Public: true, UpstreamKeys: upstream},
		{ID: 3, Name: "own", StoreDir: "/gnu/store", Priority: 30, SecretKeys: []string{"own-1:x"}, Retention: time.Hour, Public: true, UpstreamKeys: upstream},
	}
	if fmt.Sprintf("%+v", caches) != fmt.Sprintf("%+v", wantCaches) {
		t.Errorf("got  %+v\nwant %+v", caches, wantCaches)
	}
	found, err := x.Chunks(ctx, 2, 0, 10)
	noError(t, err)
	if len(found) != 1 || found[0].Hash != testHash(1) || found[0].Pack != "p1" || found[0].Touched.Unix() != 1700000001 {
		t.Errorf("chunks %+v", found)
	}
	pins, err := x.Pins(ctx, 1)
	noError(t, err)
	referrers, err := x.Referrers(ctx, 1, testPath(2))
	noError(t, err)
	if len(pins) != 1 || pins[0].Hash != testPath(1) || len(referrers) != 1 {
		t.Errorf("pins %+v, referrers %+v", pins, referrers)
	}
	held, err := x.HeldBlobs(ctx, time.Unix(1700000000, 0), HeldBlob{}, 10)
	noError(t, err)
	if len(held) != 1 || held[0].ID != 2 || held[0].Expires.Unix() != 4000000000 {
		t.Errorf("held %+v", held)
	}
	latest, err := x.Latest(ctx, 1, 10)
	noError(t, err)
	named, err := x.Search(ctx, 1, "nam", PathName{}, 10)
	noError(t, err)
	if len(latest) != 1 || len(named) != 1 {
		t.Errorf("latest %+v, named %+v", latest, named)
	}
	noError(t, x.Update(ctx, func(tx Tx) error {
		id, err := tx.AddCache(Cache{Name: "new"})
		if id != 4 {
			t.Errorf("a new cache has the number %d", id)
		}
		return errors.Join(err, tx.RemoveCache(id))
	}))
	noError(t, x.Update(ctx, func(tx Tx) error {
		_, err := tx.PurgeCaches(10)
		_, err2 := tx.PutPath(Path{CacheID: 2, Hash: testPath(9), Name: "name", NAR: p.NAR})
		return errors.Join(err, err2, tx.PutObject(Object{CacheID: 2, Name: "log/a", Blob: p.NAR}))
	}))
	noError(t, x.Update(ctx, func(tx Tx) error {
		n, err := tx.RemovePaths(2, []string{testPath(9)})
		if n != 1 {
			t.Errorf("%d paths removed", n)
		}
		_, err2 := tx.SweepObjects(0, 10, time.Unix(4_000_000_000, 0), time.Hour)
		return errors.Join(err, err2)
	}))
}

func TestAnSQLiteIndexOfVersion2IsMigrated(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "index.sqlite")
	rawSQLite(t, file, schema1, schema2, "PRAGMA user_version = 2")
	rawSQLite(t, file, beforeNames(
		func(n int) string { return fmt.Sprintf("x'%s'", testHash(n)) },
		func(s string) string { return "'" + s + "'" }, "offset")...)
	checkNamed(t, openFile(t, file))
	if _, err := openFile(t, file).Path(t.Context(), 1, testPath(1)); err != nil { // there is nothing to migrate
		t.Error(err)
	}
}

func TestAPostgresIndexOfVersion1IsMigrated(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	schemas, err := readPGSchemas(pgSchemas)
	noError(t, err)
	conn, err := pgx.Connect(t.Context(), url)
	noError(t, err)
	defer func() { noError(t, conn.Close(context.WithoutCancel(t.Context()))) }()
	_, err = conn.Exec(t.Context(), "CREATE TABLE index_version (version integer NOT NULL); INSERT INTO index_version VALUES (1);"+schemas[0])
	noError(t, err)
	_, err = conn.Exec(t.Context(), strings.Join(beforeNames(
		func(n int) string { return fmt.Sprintf(`'\x%s'::bytea`, testHash(n)) },
		func(s string) string { return "ARRAY['" + s + "']" }, "start"), ";"))
	noError(t, err)
	for i := range 2 { // the second time there is nothing to migrate
		x, err := OpenPostgres(t.Context(), url)
		noError(t, err)
		if i == 0 {
			checkNamed(t, x)
		}
		noError(t, x.Close())
	}
}
