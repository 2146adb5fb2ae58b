package index

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

func openNew(t *testing.T) *SQLite {
	t.Helper()
	return openFile(t, filepath.Join(t.TempDir(), "index.sqlite"))
}

// fill records a pack of n chunks that no other name has.
func fill(x Index, name string, n int) error {
	list := make([]pack.Entry, n)
	for i := range list {
		list[i] = pack.Entry{
			Kind: pack.KindChunk, Chunk: digest.Chunk{Hash: digest.Of(fmt.Append(nil, name, i)), Size: 1},
			Offset: int64(i), Length: 1,
		}
	}
	return x.Update(context.Background(), func(tx Tx) error { return tx.AddPack(name, 100, list) })
}

func TestAClosedIndexTakesNoChange(t *testing.T) {
	t.Parallel()
	x, err := OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "index.sqlite"))
	noError(t, err)
	noError(t, fill(x, "p1", 1))
	noError(t, x.Close())
	if err := fill(x, "p2", 1); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want %v", err, ErrClosed)
	}
}

// The clocks of two processes differ.
func TestALastUseNeverMovesBack(t *testing.T) {
	t.Parallel()
	x := openNew(t)
	noError(t, fill(x, "p1", 1))
	const later = 4_000_000_000
	cache := int64(0)
	nar := Blob{Digest: digest.Digest{Hash: testHash(1), Size: 1}}
	p := Path{Hash: testPath(1), Name: "name"}
	put := func(tx Tx) (err error) {
		if cache == 0 {
			if cache, err = tx.AddCache(Cache{Name: "main"}); err != nil {
				return err
			}
			if nar, err = tx.AddBlob(nar, nil, time.Time{}); err != nil {
				return err
			}
		}
		p.CacheID, p.NAR = cache, nar
		_, err = tx.PutPath(p)
		return err
	}
	noError(t, x.Update(t.Context(), put))
	for _, table := range []string{"paths SET used", "chunks SET touched"} {
		_, err := x.write.Exec(fmt.Sprintf("UPDATE %s = %d", table, later))
		noError(t, err)
	}
	chunk := []digest.Hash{digest.Of(fmt.Append(nil, "p1", 0))}
	noError(t, x.Update(t.Context(), func(tx Tx) error {
		return errors.Join(put(tx), tx.TouchPaths(cache, []string{p.Hash}), tx.TouchNAR(cache, nar.Hash), tx.TouchChunks(chunk))
	}))
	got, err := x.Path(t.Context(), cache, p.Hash)
	noError(t, err)
	found, err := x.Locate(t.Context(), chunk)
	noError(t, err)
	if got.Used.Unix() != later || found[0].Touched.Unix() != later {
		t.Errorf("used at %v, touched at %v, want %v", got.Used, found[0].Touched, time.Unix(later, 0))
	}
}

func TestAFullDiskLeavesTheIndexAsItWas(t *testing.T) {
	t.Parallel()
	x := openNew(t)
	noError(t, fill(x, "p1", 1))
	var pages int
	noError(t, x.write.QueryRow("PRAGMA page_count").Scan(&pages))
	_, err := x.write.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages+10))
	noError(t, err)
	for range 3 {
		if err := fill(x, "p2", 1000); !errors.Is(err, ErrNoSpace) {
			t.Fatalf("got %v, want %v", err, ErrNoSpace)
		}
	}
	// Changes that wait together with one that fills the disk are told the same,
	// or are made.
	var g errgroup.Group
	for i := range 10 {
		g.Go(func() error {
			if err := fill(x, fmt.Sprintf("big%d", i), 1000); !errors.Is(err, ErrNoSpace) {
				return fmt.Errorf("got %w, want %w", err, ErrNoSpace)
			}
			return nil
		})
		g.Go(func() error {
			name := fmt.Sprintf("small%d", i)
			err := fill(x, name, 0)
			if err != nil && !errors.Is(err, ErrNoSpace) {
				return err
			}
			if packs, err2 := x.Packs(t.Context(), name[:len(name)-1], 100); err2 != nil || contains(packs, name) != (err == nil) {
				return fmt.Errorf("pack %s was answered with %w, there are %v, %w", name, err, packs, err2)
			}
			return nil
		})
	}
	noError(t, g.Wait())
	u, err := x.Usage(t.Context())
	noError(t, err)
	if u.Chunks != 1 {
		t.Errorf("%d chunks are stored, want 1", u.Chunks)
	}
	_, err = x.write.Exec("PRAGMA max_page_count = 1000000")
	noError(t, err)
	noError(t, fill(x, "p2", 1000))
}

func contains(packs []Pack, name string) bool {
	for _, p := range packs {
		if p.Name == name {
			return true
		}
	}
	return false
}

// Readers that overlap leave the log no moment to begin anew by itself.
func TestTheLogIsBoundedWhileThereAreAlwaysReaders(t *testing.T) {
	t.Parallel()
	x := openNew(t)
	const bound = 1 << 20
	x.maxLog, x.nextBound = bound, bound
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	for range 3 {
		g.Go(func() error {
			for ctx.Err() == nil {
				tx, err := x.read.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
				if err != nil {
					return err
				}
				var n int
				err = tx.QueryRow("SELECT count(*) FROM chunks").Scan(&n)
				time.Sleep(10 * time.Millisecond)
				if err := errors.Join(err, tx.Rollback()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	var most int64
	for i := range 15 {
		noError(t, fill(x, fmt.Sprintf("p%d", i), 1000))
		log, err := os.Stat(x.file + "-wal")
		noError(t, err)
		most = max(most, log.Size())
	}
	stop()
	noError(t, g.Wait())
	// The change that crosses the bound is made before the log is emptied.
	if most > 4*bound {
		t.Errorf("the log grew to %d bytes, its bound is %d", most, bound)
	}
}

func TestErrorsSayWhatIsWrongWithTheFile(t *testing.T) {
	t.Parallel()
	t.Run("another process writes for too long", func(t *testing.T) {
		t.Parallel()
		x := openNew(t)
		y := openFile(t, x.file)
		_, err := x.write.Exec("PRAGMA busy_timeout = 1")
		noError(t, err)
		err = y.Update(t.Context(), func(Tx) error { return fill(x, "p1", 1) })
		if err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("got %v", err)
		}
		noError(t, fill(x, "p1", 1))
	})
	t.Run("it is no database", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "index.sqlite")
		noError(t, os.WriteFile(file, []byte(strings.Repeat("no database ", 1000)), 0o600))
		_, err := OpenSQLite(t.Context(), file)
		if err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("its directory is missing", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "none", "index.sqlite")
		if _, err := OpenSQLite(t.Context(), file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("got %v", err)
		}
	})
}

func TestALockHasAPlainName(t *testing.T) {
	t.Parallel()
	x := openNew(t)
	for _, name := range []string{"", "../x", "a/b", "A", "a b", "a\n", "ä"} {
		if _, _, err := x.Lock(t.Context(), name); err == nil || errors.Is(err, ErrLocked) {
			t.Errorf("lock %q: %v", name, err)
		}
	}
}

func TestTwoNamesOfOneFileShareItsLocks(t *testing.T) {
	t.Parallel()
	x := openNew(t)
	other := filepath.Join(t.TempDir(), "other")
	noError(t, os.Symlink(x.file, other))
	_, unlock, err := x.Lock(t.Context(), "collection")
	noError(t, err)
	defer unlock()
	if _, _, err := openFile(t, other).Lock(t.Context(), "collection"); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want %v", err, ErrLocked)
	}
}

// lockedFile, set in the environment, makes this test's binary a process that
// locks that file's index and waits to be killed.
const lockedFile = "INDEX_TEST_LOCKED_FILE"

func TestALockEndsWithItsHolder(t *testing.T) {
	t.Parallel()
	if file := os.Getenv(lockedFile); file != "" {
		x, err := OpenSQLite(context.Background(), file)
		noError(t, err)
		_, _, err = x.Lock(context.Background(), "collection")
		fmt.Println("locked:", err)
		time.Sleep(time.Hour)
	}
	x, err := OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "index.sqlite"))
	noError(t, err)
	self, err := os.Executable()
	noError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestALockEndsWithItsHolder$")
	cmd.Env = append(os.Environ(), lockedFile+"="+x.file)
	stdout, err := cmd.StdoutPipe()
	noError(t, err)
	noError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "locked: <nil>\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	if _, _, err := x.Lock(t.Context(), "collection"); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want %v", err, ErrLocked)
	}
	noError(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	_, _, err = x.Lock(t.Context(), "collection")
	noError(t, err)
	noError(t, x.Close())
	_, unlock, err := openFile(t, x.file).Lock(t.Context(), "collection")
	noError(t, err)
	unlock()
}
