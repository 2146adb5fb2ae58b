package index

import (
	"bytes"
	"context"
	"database/sql"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/filelock"
)

var (
	//go:embed schema.sql
	schema1 string
	//go:embed schema2.sql
	schema2 string
	//go:embed schema3.sql
	schema3 string
	//go:embed schema4.sql
	schema4 string
	//go:embed schema5.sql
	schema5 string
)

// schemas lead from each version to the next; how many of them a database has
// gone through is kept in its user_version.
var schemas = []string{schema1, schema2, schema3, schema4, schema5}

const (
	busyTimeout = 30 * time.Second
	busyPause   = 5 * time.Millisecond
	// Each connection keeps pages of its own. A writer whose changed pages do not
	// fit writes them to the log more than once: 16,384 pages are room for a pack
	// of 5,000 chunks, each of which changes up to three once the tables are large.
	// A reader needs no more than the upper pages of the trees; the kernel's cache
	// is behind it. With at most 16 readers that is 192 MiB.
	writerCache = 64 << 20
	readerCache = 8 << 20
	maxReaders  = 16
	// The log is brought into the database each time it has grown by so many
	// pages, which is 16 MiB.
	checkpointPages = 4096
	// maxLog is how long the log may be and stay so. Only a moment in which
	// nobody reads from it lets it begin anew; past this length the writer waits
	// for one.
	maxLog = 64 << 20
	// logPatience is how long the writer then waits, with all that want to write.
	logPatience = time.Second
)

// SQLite is an index in one file. Several processes may have it open.
type SQLite struct {
	file  string
	read  *prepared
	write *prepared // one connection: SQLite has one writer at a time

	*group

	mu    sync.Mutex
	locks map[*os.File]bool // those that are held

	maxLog    int64 // bytes
	nextBound int64 // the length of the log at which the writer next empties it
}

// OpenSQLite opens the file, which it creates when it is missing.
func OpenSQLite(ctx context.Context, file string) (_ *SQLite, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("opening the index %s: %w", file, explain(ctx, err))
		}
	}()
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	if err := patiently(ctx, func() error { return migrate(ctx, abs) }); err != nil {
		return nil, err
	}
	x := &SQLite{locks: map[*os.File]bool{}, maxLog: maxLog, nextBound: maxLog}
	// Two names of one file share its locks.
	if x.file, err = filepath.EvalSymlinks(abs); err != nil {
		return nil, err
	}
	write, err := connect(abs, "foreign_keys(ON)", cacheSize(writerCache))
	if err != nil {
		return nil, err
	}
	x.write = newPrepared(write)
	x.write.SetMaxOpenConns(1)
	read, err := connect(abs, "query_only(ON)", cacheSize(readerCache))
	if err != nil {
		_ = x.write.Close()
		return nil, err
	}
	x.read = newPrepared(read)
	readers := min(max(4, runtime.NumCPU()), maxReaders)
	x.read.SetMaxOpenConns(readers)
	x.read.SetMaxIdleConns(readers)
	// A connection that stays makes that nobody's is the last, which removes the log.
	for _, db := range []*prepared{x.write, x.read} {
		if err := patiently(ctx, func() error { return db.PingContext(ctx) }); err != nil {
			return nil, errors.Join(err, x.write.Close(), x.read.Close())
		}
	}
	x.group = newGroup(x.commit)
	return x, nil
}

// patiently does what SQLite does not wait for by itself while another has the
// database: to change it to a write-ahead log, and to come when the last one to have
// it open removes that log.
func patiently(ctx context.Context, try func() error) error {
	for began := time.Now(); ; {
		err := try()
		var e *sqlite.Error
		if !errors.As(err, &e) || e.Code()&0xff != sqlite3.SQLITE_BUSY || time.Since(began) > busyTimeout {
			return err
		}
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return err
		}
	}
}

func cacheSize(bytes int) string { return fmt.Sprintf("cache_size(-%d)", bytes>>10) }

func connect(file string, pragmas ...string) (*sql.DB, error) {
	return sql.Open("sqlite", (&url.URL{Scheme: "file", Path: file, RawQuery: url.Values{
		"_pragma": append([]string{
			fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
			"journal_mode(WAL)",
			// In WAL mode it makes a commit wait for the disk: a change is
			// acknowledged only when it is durable.
			"synchronous(FULL)",
			fmt.Sprintf("wal_autocheckpoint(%d)", checkpointPages),
			fmt.Sprintf("journal_size_limit(%d)", maxLog),
		}, pragmas...),
		"_txlock": {"immediate"},
	}.Encode()}).String())
}

// migrate creates the tables or brings them to this version, as one change.
func migrate(ctx context.Context, file string) error {
	// Foreign keys are not looked at while tables are replaced, which cannot be
	// said within a transaction, but checked at the end.
	db, err := connect(file, "foreign_keys(OFF)")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case version == len(schemas):
		return nil
	case version < 0, version > len(schemas):
		return fmt.Errorf("it was written by a newer version of this program (schema %d, this one knows %d)", version, len(schemas))
	}
	for i, schema := range schemas[version:] {
		if _, err := tx.ExecContext(ctx, schema); err != nil {
			return fmt.Errorf("bringing the tables to version %d: %w", version+i+1, err)
		}
	}
	if version == 0 {
		if _, err := tx.ExecContext(ctx, "INSERT INTO began (at) VALUES (?)", time.Now().UnixNano()); err != nil {
			return fmt.Errorf("recording when it was made: %w", err)
		}
	}
	var table string
	err = one(ctx, tx, []any{&table}, `SELECT "table" FROM pragma_foreign_key_check LIMIT 1`)
	if err == nil {
		return fmt.Errorf("a row of its table %s refers to one that is not there", table)
	}
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(schemas))); err != nil {
		return err
	}
	return tx.Commit()
}

// Close ends the writer after the changes that it has begun, then closes the
// file. It ends the locks that are still held.
func (x *SQLite) Close() error {
	x.close()
	x.mu.Lock()
	defer x.mu.Unlock()
	for f := range x.locks {
		_ = filelock.Release(f)
	}
	clear(x.locks)
	return errors.Join(x.read.Close(), x.write.Close())
}

// explain names SQLite's errors that callers decide on, and says of others what
// they mean for the operator.
func explain(ctx context.Context, err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch code := e.Code(); {
	case code&0xff == sqlite3.SQLITE_FULL, code == sqlite3.SQLITE_IOERR_WRITE, code == sqlite3.SQLITE_IOERR_SHMSIZE:
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case code&0xff == sqlite3.SQLITE_INTERRUPT && ctx.Err() != nil:
		return ctx.Err()
	case code&0xff == sqlite3.SQLITE_BUSY:
		return fmt.Errorf("another process has kept the index to itself for more than %s: %w", busyTimeout, err)
	case code&0xff == sqlite3.SQLITE_IOERR:
		return fmt.Errorf("the disk failed under the index: %w", err)
	case code&0xff == sqlite3.SQLITE_CORRUPT, code&0xff == sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("the index is damaged: %w", err)
	}
	return err
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// each calls row with the function that scans the row, for every row.
func each(ctx context.Context, q querier, row func(scan func(...any) error) error, query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return explain(ctx, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return explain(ctx, rows.Err())
}

// one scans the first row, or returns ErrNotFound.
func one(ctx context.Context, q querier, dest []any, query string, args ...any) error {
	found := false
	err := each(ctx, q, func(scan func(...any) error) error {
		if found {
			return nil
		}
		found = true
		return scan(dest...)
	}, query, args...)
	if err == nil && !found {
		return ErrNotFound
	}
	return err
}

// What is asked or said of many rows is one statement over a JSON array, as a
// statement's text must not depend on how many there are.

// textArray writes each of the values once, in the order of the tables that are
// searched for them.
func textArray(values []string) string {
	values = slices.Clone(values)
	slices.Sort(values)
	b, _ := json.Marshal(slices.Compact(values)) // strings never fail
	return string(b)
}

// hashArray does the same in hexadecimal digits: JSON has no bytes.
func hashArray(hashes []digest.Hash) string {
	hashes = slices.Clone(hashes)
	slices.SortFunc(hashes, func(a, b digest.Hash) int { return bytes.Compare(a[:], b[:]) })
	hashes = slices.Compact(hashes)
	return array(len(hashes), 2*digest.Size, func(b []byte, i int) []byte {
		return hex.AppendEncode(b, hashes[i][:])
	})
}

// array writes n strings, each at most width bytes long and in need of no
// escape, as a JSON array.
func array(n, width int, value func(b []byte, i int) []byte) string {
	b := make([]byte, 0, 2+n*(width+3))
	b = append(b, '[')
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = value(b, i)
		b = append(b, '"')
	}
	return string(append(b, ']'))
}

func unixTime(seconds int64) time.Time { return time.Unix(seconds, 0) }
