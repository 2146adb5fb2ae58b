package index

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// rawSQLite runs statements on a file as another program would.
func rawSQLite(t *testing.T, file string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func openFile(t *testing.T, file string) *SQLite {
	t.Helper()
	x, err := OpenSQLite(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testHash(n int) digest.Hash { return digest.Of(fmt.Append(nil, n)) }

func testPath(n int) string { return fmt.Sprintf("%032d", n) }

// version1 makes a file as version 1 left it: chunks 1 to 3 in a pack that has a
// dead frame of 7 bytes, too; blob 1 of chunks 1, 2, 1 and blob 2, without a name,
// of chunk 3; paths over blob 1 in two caches.
func version1(t *testing.T, file string) {
	t.Helper()
	statements := []string{
		schema1,
		fmt.Sprintf("INSERT INTO packs VALUES (1, 'p1', %d, 1700000000)", 60+10+20+30+7+4*41),
		"INSERT INTO packs VALUES (2, 'p2', 60, 1700000000)",
		"INSERT INTO caches VALUES (1, 'main', '/nix/store', 41, 'main-1:x', 1700000000), (2, 'other', '/nix/store', 41, 'other-1:x', 1700000000)",
		fmt.Sprintf("INSERT INTO blobs VALUES (1, x'%s', 40, x'%s', 40, 1700000000), (2, x'%s', 30, x'%s', 30, 1700000000)",
			testHash(11), testHash(21), testHash(12), testHash(22)),
		"PRAGMA user_version = 1",
	}
	for i := 1; i <= 3; i++ {
		statements = append(statements,
			fmt.Sprintf("INSERT INTO chunks VALUES (%d, x'%s', %d, 1, %d, %d)", i, testHash(i), 100*i, 1000*i, 10*i))
	}
	statements = append(statements, "INSERT INTO blob_chunks VALUES (1, 0, 1), (1, 1, 2), (1, 2, 1), (2, 0, 3)")
	for _, p := range []struct {
		cache, n int
		refs     []int
	}{{1, 1, nil}, {1, 2, []int{1, 2}}, {1, 3, []int{1, 2, 9}}, {2, 1, []int{1}}} {
		var refs []string
		for _, ref := range p.refs {
			refs = append(refs, testPath(ref)+"-name")
		}
		statements = append(statements, fmt.Sprintf("INSERT INTO paths VALUES (%d, '%s', 'name', 1, '%s', '', 'a:b c:d', '', 1700000000)",
			p.cache, testPath(p.n), strings.Join(refs, " ")))
	}
	rawSQLite(t, file, statements...)
}

func TestAnIndexOfVersion1IsMigrated(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "index.sqlite")
	version1(t, file)
	start := time.Now().Truncate(time.Second)
	for range 2 { // the second time there is nothing to migrate
		checkMigrated(t, openFile(t, file), start)
	}
	x := openFile(t, file)
	// A blob without a name may be in the middle of a push.
	for _, sweep := range []struct {
		now  time.Time
		want int64
	}{{start.Add(23 * time.Hour), 0}, {start.Add(25 * time.Hour), 1}} {
		noError(t, x.Update(t.Context(), func(tx Tx) error {
			s, err := tx.SweepBlobs(0, 100, sweep.now)
			if s.Removed != sweep.want {
				t.Errorf("%d blobs swept, want %d", s.Removed, sweep.want)
			}
			return err
		}))
	}
	noError(t, x.Update(t.Context(), func(tx Tx) error {
		b, err := tx.AddBlob(Blob{Digest: digest.Digest{Hash: testHash(13), Size: 1}}, nil, start)
		if b.ID <= 2 {
			t.Errorf("a new blob has the number %d, which one of version 1 had", b.ID)
		}
		return err
	}))
	noError(t, x.Update(t.Context(), func(tx Tx) error {
		removed, references, err := tx.RemoveUnused(1, []string{testPath(1), testPath(2), testPath(3)}, time.Now().Add(time.Hour))
		if fmt.Sprint(removed, references) != fmt.Sprint([]string{testPath(3)}, []string{testPath(1), testPath(2)}) {
			t.Errorf("removed %v, references %v", removed, references)
		}
		return err
	}))
}

func checkMigrated(t *testing.T, x *SQLite, start time.Time) {
	t.Helper()
	ctx := t.Context()
	p, err := x.Path(ctx, 1, testPath(3))
	noError(t, err)
	if p.Used.Before(start) || p.Created.Unix() != 1700000000 || len(p.References) != 3 || len(p.Signatures) != 2 || p.NAR.ID != 1 {
		t.Errorf("path %+v", p)
	}
	for n, want := range map[int]string{
		1: fmt.Sprint([]string{testPath(2) + "-name", testPath(3) + "-name"}),
		2: fmt.Sprint([]string{testPath(3) + "-name"}),
		3: "[]",
		9: fmt.Sprint([]string{testPath(3) + "-name"}),
	} {
		got, err := x.Referrers(ctx, 1, testPath(n))
		noError(t, err)
		if fmt.Sprint(got) != want {
			t.Errorf("referrers of %d: %v, want %s", n, got, want)
		}
	}
	if got, err := x.Referrers(ctx, 2, testPath(1)); len(got) != 0 || err != nil {
		t.Errorf("it refers to itself only: %v, %v", got, err)
	}
	found, err := x.Chunks(ctx, 1, 0, 10)
	noError(t, err)
	if len(found) != 3 || found[0].Hash != testHash(1) || found[1].Hash != testHash(2) || found[0].Touched.Before(start) {
		t.Errorf("chunks %+v", found)
	}
	packs, err := x.Packs(ctx, "", 10)
	noError(t, err)
	if len(packs) != 2 || packs[0].Dead != 7+41 || packs[1].Dead != 0 {
		t.Errorf("packs %+v", packs)
	}
	caches, err := x.Caches(ctx)
	noError(t, err)
	if len(caches) != 2 || caches[0].Retention != GlobalRetention {
		t.Errorf("caches %+v", caches)
	}
}

func TestManyThatOpenAVersion1IndexAtOnceMigrateItOnce(t *testing.T) {
	t.Parallel()
	for _, prepare := range []func(*testing.T, string){version1, func(*testing.T, string) {}} {
		file := filepath.Join(t.TempDir(), "index.sqlite")
		prepare(t, file)
		errs := make(chan error)
		const n = 8
		for range n {
			go func() {
				x, err := OpenSQLite(t.Context(), file)
				if err == nil {
					_, err = x.Usage(t.Context())
					err = errors.Join(err, x.Close())
				}
				errs <- err
			}()
		}
		for range n {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	}
}

func TestAVersion1IndexWithAHoleIsLeftAlone(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "index.sqlite")
	version1(t, file)
	rawSQLite(t, file, "DELETE FROM blobs WHERE id = 1")
	for range 2 {
		if _, err := OpenSQLite(t.Context(), file); err == nil || !strings.Contains(err.Error(), "refers to one that is not there") {
			t.Errorf("got %v, want an error that names the hole", err)
		}
	}
	rawSQLite(t, file, "SELECT file_hash FROM blobs", "INSERT INTO packs (name, size, created) VALUES ('p3', 1, 1)")
}

func TestAnIndexOfANewerVersionIsLeftAlone(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "index.sqlite")
	rawSQLite(t, file, "PRAGMA user_version = 99")
	if _, err := OpenSQLite(t.Context(), file); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("got %v, want an error that says it is newer", err)
	}
}
