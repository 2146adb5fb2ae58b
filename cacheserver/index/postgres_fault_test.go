package index_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/pgtest"
)

// terminate breaks all connections to the database but its own.
const terminate = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
	WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`

// soon waits for what is not to be had at once.
func soon(t *testing.T, what string, try func() error) {
	t.Helper()
	var err error
	for began := time.Now(); time.Since(began) < 2*time.Minute; time.Sleep(10 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func locate(ctx context.Context, x index.Index, name string) (int, error) {
	found, err := x.Locate(ctx, []digest.Hash{chunkOf(name).Hash})
	return len(found), err
}

func TestADatabaseThatWentAwayAndCameBackIsUsedAgain(t *testing.T) {
	t.Parallel()
	s := pgtest.New(t, "fsync=on", "synchronous_commit=off") // an administrator's idea
	x := openPostgres(t, s.Database(t))
	lost, unlock, err := x.Lock(t.Context(), "collector")
	must(t, err)
	defer unlock()
	stored := 0
	for name, end := range map[string]func(testing.TB){"stopped": s.Stop, "crashed": s.Crash} {
		// Changes are under way when it goes.
		ended := make(chan error)
		go func() {
			for {
				n := stored
				if err := x.Update(t.Context(), addPack(fmt.Sprint("p", n), fmt.Sprint(n))); err != nil {
					ended <- err
					return
				}
				stored++
			}
		}()
		time.Sleep(20 * time.Millisecond)
		end(t)
		wantErr(t, <-ended, index.ErrUnavailable)
		_, err := x.Caches(t.Context())
		wantErr(t, err, index.ErrUnavailable)
		wantErr(t, x.Update(t.Context(), addPack("p", "b")), index.ErrUnavailable)
		_, _, err = x.Lock(t.Context(), "another")
		wantErr(t, err, index.ErrUnavailable)
		<-lost
		s.Start(t)
		soon(t, "reading after it was "+name, func() error {
			_, err := x.Caches(t.Context())
			return err
		})
		for n := range stored {
			if found, err := locate(t.Context(), x, fmt.Sprint(n)); found != 1 || err != nil {
				t.Fatalf("chunk %d of %d was acknowledged before it was %s: %d found, %v", n, stored, name, found, err)
			}
		}
		// What was not acknowledged may have been done nevertheless.
		stored++
		soon(t, "writing after it was "+name, func() error {
			return x.Update(t.Context(), addPack(fmt.Sprint("after ", name), fmt.Sprint(stored-1)))
		})
	}
	_, again, err := x.Lock(t.Context(), "collector")
	must(t, err)
	again()
}

func TestAConnectionBreaksInTheMiddleOfAChange(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	x := openPostgres(t, url)
	must(t, x.Update(t.Context(), addPack("before", "a")))
	for name, swallow := range map[string]bool{"it says so": false, "it passes over the error": true} {
		runs := 0
		wantErr(t, x.Update(t.Context(), func(tx index.Tx) error {
			runs++
			if err := tx.AddPack("during", 1000, entriesOf("b")); err != nil {
				return err
			}
			sql(t, url, terminate)
			err := tx.AddPack("during2", 1000, entriesOf("c"))
			wantErr(t, err, index.ErrUnavailable)
			if swallow {
				return nil
			}
			return err
		}), index.ErrUnavailable)
		if runs != 1 {
			t.Errorf("%s: it was run %d times", name, runs)
		}
		soon(t, "reading", func() error {
			if n, err := locate(t.Context(), x, "b"); n != 0 || err != nil {
				return fmt.Errorf("%d chunks of the change, %w", n, err)
			}
			return nil
		})
	}
	must(t, x.Update(t.Context(), addPack("during", "b")))
}

// Nobody can know then whether the change was made.
func TestAConnectionBreaksDuringTheCommit(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	x := openPostgres(t, url)
	sql(t, url, `CREATE FUNCTION break() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER break AFTER INSERT ON packs DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION break()`)
	wantErr(t, x.Update(t.Context(), addPack("p", "a")), index.ErrUnavailable)
	sql(t, url, "DROP TRIGGER break ON packs")
	must(t, x.Update(t.Context(), addPack("p", "a")))
}

// The server answers ROLLBACK to the COMMIT of a transaction in which a statement
// failed: that is no success.
func TestOnlyTheFailedChangeOfAGroupIsUndone(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	x := openPostgres(t, url)
	sql(t, url, "ALTER TABLE packs ADD CHECK (size < 5000)")
	hold, began := make(chan struct{}), make(chan struct{})
	results := make(chan error, 3)
	go func() {
		results <- x.Update(t.Context(), func(index.Tx) error {
			close(began)
			<-hold
			return nil
		})
	}()
	<-began
	for _, size := range []int64{1000, 9000, 2000} {
		go func() {
			err := x.Update(t.Context(), func(tx index.Tx) error {
				_ = tx.AddPack(fmt.Sprint(size), size, entriesOf(fmt.Sprint(size)))
				return nil
			})
			if (err != nil) != (size == 9000) {
				t.Errorf("pack of %d bytes: %v", size, err)
			}
			results <- nil
		}()
	}
	close(hold)
	for range 4 {
		must(t, <-results)
	}
	total, _, err := x.Stored(t.Context())
	if total != 3000 || err != nil {
		t.Errorf("%d bytes of packs, %v", total, err)
	}
}

func TestALockIsOneReplicas(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	one, two := openPostgres(t, url), openPostgres(t, url)
	lost, unlock, err := one.Lock(t.Context(), "collector")
	must(t, err)
	for _, x := range []index.Index{one, two} {
		_, _, err = x.Lock(t.Context(), "collector")
		wantErr(t, err, index.ErrLocked)
	}
	_, other, err := two.Lock(t.Context(), "another")
	must(t, err)
	other()
	unlock()
	unlock() // twice is once
	select {
	case <-lost:
		t.Error("it was given back, not lost")
	default:
	}
	lost, unlock, err = two.Lock(t.Context(), "collector")
	must(t, err)
	sql(t, url, terminate)
	<-lost
	var again func()
	soon(t, "locking after the holder was cut off", func() (err error) { // it says goodbye before it lets go
		_, again, err = one.Lock(t.Context(), "collector")
		return err
	})
	unlock() // of what is no longer ours: the other keeps it
	_, _, err = two.Lock(t.Context(), "collector")
	wantErr(t, err, index.ErrLocked)
	again()
}

func TestALockEndsWithTheIndex(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	x, err := index.OpenPostgres(t.Context(), url)
	must(t, err)
	lost, _, err := x.Lock(t.Context(), "collector")
	must(t, err)
	must(t, x.Close())
	<-lost
	_, unlock, err := openPostgres(t, url).Lock(t.Context(), "collector")
	must(t, err)
	unlock()
}

func TestNothingWaitsForEver(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	x, err := index.OpenImpatientPostgres(t.Context(), url, 200*time.Millisecond)
	must(t, err)
	t.Cleanup(func() { must(t, x.Close()) })
	conn, err := pgx.Connect(t.Context(), url)
	must(t, err)
	defer func() { must(t, conn.Close(context.WithoutCancel(t.Context()))) }()
	_, err = conn.Exec(t.Context(), "BEGIN; LOCK TABLE chunks, packs, caches")
	must(t, err)
	_, err = locate(t.Context(), x, "a")
	wantErr(t, err, index.ErrUnavailable)
	_, err = x.Usage(t.Context())
	wantErr(t, err, index.ErrUnavailable)
	wantErr(t, x.Update(t.Context(), addPack("p", "a")), index.ErrUnavailable)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = locate(ctx, x, "a")
	wantErr(t, err, context.DeadlineExceeded)
	if errors.Is(err, index.ErrUnavailable) {
		t.Errorf("who asked had no more time, but got %v", err)
	}
	_, err = conn.Exec(t.Context(), "ROLLBACK")
	must(t, err)
	soon(t, "reading", func() error {
		_, err := locate(t.Context(), x, "a")
		return err
	})
}

func TestAServerThatCannotBeUsedIsUnavailable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	silent := "postgres://test@" + l.Addr().String() + "/test?sslmode=disable&connect_timeout=1"
	_, err = index.OpenPostgres(t.Context(), silent)
	wantErr(t, err, index.ErrUnavailable)
	must(t, l.Close())
	_, err = index.OpenPostgres(t.Context(), strings.Replace(silent, l.Addr().String(), "127.0.0.1:1", 1)) // where nobody listens
	wantErr(t, err, index.ErrUnavailable)
	url := pgtest.Database(t)
	for name, wrong := range map[string]string{"no URL": "postgres://%", "no such role": strings.Replace(url, "user=test", "user=stranger", 1)} {
		if _, err := index.OpenPostgres(t.Context(), wrong); err == nil || errors.Is(err, index.ErrUnavailable) {
			t.Errorf("%s: got %v, want an error that waiting does not mend", name, err)
		}
	}
	config, err := pgx.ParseConfig(url)
	must(t, err)
	sql(t, url, "ALTER DATABASE "+config.Database+" SET default_transaction_read_only = on") // as a standby is
	_, err = index.OpenPostgres(t.Context(), url)
	wantErr(t, err, index.ErrUnavailable)
}

func TestWhatPostgresSaysIsTold(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	server := func(code string) error { return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code}) }
	for _, c := range []struct {
		ctx       context.Context
		err, want error
	}{
		{t.Context(), nil, nil},
		{t.Context(), server("53100"), index.ErrNoSpace},
		{t.Context(), server("53300"), index.ErrUnavailable}, // too_many_connections
		{t.Context(), server("57P01"), index.ErrUnavailable}, // admin_shutdown
		{t.Context(), server("57P03"), index.ErrUnavailable}, // cannot_connect_now
		{t.Context(), server("08006"), index.ErrUnavailable}, // connection_failure
		{t.Context(), server("25006"), index.ErrUnavailable}, // read_only_sql_transaction
		{t.Context(), io.ErrUnexpectedEOF, index.ErrUnavailable},
		{t.Context(), &net.OpError{Op: "read", Err: errors.New("reset")}, index.ErrUnavailable},
		{t.Context(), context.DeadlineExceeded, index.ErrUnavailable},
		{ended, io.ErrUnexpectedEOF, context.Canceled},
	} {
		if got := index.ExplainPostgres(c.ctx, c.err); !errors.Is(got, c.want) {
			t.Errorf("%v: got %v, want %v", c.err, got, c.want)
		}
	}
	for _, code := range []string{"42P01", "23502", "28P01", "3D000"} { // mistakes that waiting does not mend
		got := index.ExplainPostgres(t.Context(), server(code))
		if errors.Is(got, index.ErrUnavailable) || errors.Is(got, index.ErrNoSpace) {
			t.Errorf("code %s: got %v", code, got)
		}
	}
}
