package index

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

//go:embed schema.sql
var schema string

// schemaVersion is kept in the database's user_version.
const schemaVersion = 1

// SQLite is an index in one file. Several processes may have it open.
type SQLite struct {
	read  *sql.DB
	write *sql.DB // one connection: SQLite has one writer at a time

	updates chan *update
	closing chan struct{}
	closed  chan struct{}
}

// OpenSQLite opens the file, which it creates when it is missing.
func OpenSQLite(ctx context.Context, file string) (_ *SQLite, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("opening the index %s: %w", file, wrapFull(err))
		}
	}()
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	// synchronous=FULL makes a commit in WAL mode wait for the disk: a change
	// is acknowledged only when it is durable.
	dsn := (&url.URL{Scheme: "file", Path: abs, RawQuery: url.Values{
		"_pragma": {"busy_timeout(30000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)"},
		"_txlock": {"immediate"},
	}.Encode()}).String()
	x := &SQLite{
		updates: make(chan *update),
		closing: make(chan struct{}),
		closed:  make(chan struct{}),
	}
	if x.write, err = sql.Open("sqlite", dsn); err != nil {
		return nil, err
	}
	x.write.SetMaxOpenConns(1)
	if err := x.migrate(ctx); err != nil {
		_ = x.write.Close()
		return nil, err
	}
	if x.read, err = sql.Open("sqlite", dsn+"&_pragma=query_only(ON)"); err != nil {
		_ = x.write.Close()
		return nil, err
	}
	readers := max(4, runtime.NumCPU())
	x.read.SetMaxOpenConns(readers)
	x.read.SetMaxIdleConns(readers)
	go x.writer()
	return x, nil
}

func (x *SQLite) migrate(ctx context.Context) error {
	tx, err := x.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch version {
	case schemaVersion:
		return nil
	case 0:
	default:
		return fmt.Errorf("it was written by a newer version of this program (schema %d, this one knows %d)", version, schemaVersion)
	}
	if _, err := tx.ExecContext(ctx, schema); err != nil {
		return fmt.Errorf("creating the tables: %w", err)
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
		return err
	}
	return tx.Commit()
}

// Close ends the writer after the changes that it has begun, then closes the
// file.
func (x *SQLite) Close() error {
	close(x.closing)
	<-x.closed
	return errors.Join(x.read.Close(), x.write.Close())
}

// wrapFull names SQLite's errors that callers decide on.
func wrapFull(err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) {
		switch code := e.Code(); {
		case code&0xff == sqlite3.SQLITE_FULL, code == sqlite3.SQLITE_IOERR_WRITE, code == sqlite3.SQLITE_IOERR_SHMSIZE:
			return fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
	}
	return err
}

// batch is how many values one statement is given; SQLite takes 32,766.
const batch = 500

// placeholders returns "?,?,…" for n values.
func placeholders(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }

// Locate implements Index.
func (x *SQLite) Locate(ctx context.Context, chunks []digest.Hash) ([]Location, error) {
	var found []Location
	for len(chunks) > 0 {
		n := min(batch, len(chunks))
		args := make([]any, n)
		for i, h := range chunks[:n] {
			args[i] = h[:]
		}
		chunks = chunks[n:]
		rows, err := x.read.QueryContext(ctx, `SELECT c.hash, c.size, p.name, c.offset, c.length
			FROM chunks c JOIN packs p ON p.id = c.pack WHERE c.hash IN (`+placeholders(n)+`)`, args...)
		if err != nil {
			return nil, fmt.Errorf("locating chunks: %w", err)
		}
		err = each(rows, func() error {
			var l Location
			var hash []byte
			if err := rows.Scan(&hash, &l.Size, &l.Pack, &l.Offset, &l.Length); err != nil {
				return err
			}
			l.Hash = digest.Hash(hash)
			found = append(found, l)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("locating chunks: %w", err)
		}
	}
	return found, nil
}

// Blob implements Index.
func (x *SQLite) Blob(ctx context.Context, d digest.Digest) (Blob, error) {
	return scanBlob(d.String(), x.read.QueryRowContext(ctx,
		"SELECT id, hash, size, file_hash, file_size FROM blobs WHERE hash = ? AND size = ?", d.Hash[:], d.Size))
}

// NAR implements Index.
func (x *SQLite) NAR(ctx context.Context, cache int64, narHash digest.Hash) (Blob, error) {
	return scanBlob("NAR "+narHash.Nix(), x.read.QueryRowContext(ctx,
		`SELECT b.id, b.hash, b.size, b.file_hash, b.file_size FROM blobs b
		 WHERE b.hash = ? AND EXISTS (SELECT 1 FROM paths p WHERE p.nar = b.id AND p.cache = ?)`, narHash[:], cache))
}

func scanBlob(what string, row *sql.Row) (Blob, error) {
	var b Blob
	var hash, fileHash []byte
	switch err := row.Scan(&b.ID, &hash, &b.Size, &fileHash, &b.FileSize); {
	case errors.Is(err, sql.ErrNoRows):
		return Blob{}, fmt.Errorf("blob %s: %w", what, ErrNotFound)
	case err != nil:
		return Blob{}, fmt.Errorf("looking up blob %s: %w", what, err)
	}
	b.Hash, b.FileHash = digest.Hash(hash), digest.Hash(fileHash)
	return b, nil
}

// Extents implements Index.
func (x *SQLite) Extents(ctx context.Context, blob int64) ([]Extent, error) {
	rows, err := x.read.QueryContext(ctx, `SELECT p.name, c.offset, c.length
		FROM blob_chunks b JOIN chunks c ON c.id = b.chunk JOIN packs p ON p.id = c.pack
		WHERE b.blob = ? ORDER BY b.seq`, blob)
	if err != nil {
		return nil, fmt.Errorf("locating blob %d: %w", blob, err)
	}
	var extents []Extent
	err = each(rows, func() error {
		var e Extent
		if err := rows.Scan(&e.Pack, &e.Offset, &e.Length); err != nil {
			return err
		}
		if n := len(extents); n > 0 && extents[n-1].Pack == e.Pack && extents[n-1].Offset+extents[n-1].Length == e.Offset {
			extents[n-1].Length += e.Length
			return nil
		}
		extents = append(extents, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("locating blob %d: %w", blob, err)
	}
	return extents, nil
}

// Cache implements Index.
func (x *SQLite) Cache(ctx context.Context, name string) (Cache, error) {
	c := Cache{Name: name}
	err := x.read.QueryRowContext(ctx, "SELECT id, store_dir, priority, secret_key FROM caches WHERE name = ?", name).
		Scan(&c.ID, &c.StoreDir, &c.Priority, &c.SecretKey)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Cache{}, fmt.Errorf("cache %q: %w", name, ErrNotFound)
	case err != nil:
		return Cache{}, fmt.Errorf("looking up cache %q: %w", name, err)
	}
	return c, nil
}

// Path implements Index.
func (x *SQLite) Path(ctx context.Context, cache int64, hash string) (Path, error) {
	p := Path{CacheID: cache, Hash: hash}
	var narHash, fileHash []byte
	var refs, sigs string
	var created int64
	err := x.read.QueryRowContext(ctx, `SELECT p.name, p.refs, p.deriver, p.signatures, p.ca, p.created,
			b.id, b.hash, b.size, b.file_hash, b.file_size
		FROM paths p JOIN blobs b ON b.id = p.nar WHERE p.cache = ? AND p.hash = ?`, cache, hash).
		Scan(&p.Name, &refs, &p.Deriver, &sigs, &p.CA, &created,
			&p.NAR.ID, &narHash, &p.NAR.Size, &fileHash, &p.NAR.FileSize)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Path{}, fmt.Errorf("path %s: %w", hash, ErrNotFound)
	case err != nil:
		return Path{}, fmt.Errorf("looking up path %s: %w", hash, err)
	}
	p.NAR.Hash, p.NAR.FileHash = digest.Hash(narHash), digest.Hash(fileHash)
	p.References, p.Signatures = strings.Fields(refs), strings.Fields(sigs)
	p.Created = time.Unix(created, 0)
	return p, nil
}

// MissingPaths implements Index.
func (x *SQLite) MissingPaths(ctx context.Context, cache int64, hashes []string) ([]string, error) {
	held := make(map[string]bool, len(hashes))
	for rest := hashes; len(rest) > 0; {
		n := min(batch, len(rest))
		args := make([]any, 0, n+1)
		args = append(args, cache)
		for _, h := range rest[:n] {
			args = append(args, h)
		}
		rest = rest[n:]
		rows, err := x.read.QueryContext(ctx,
			"SELECT hash FROM paths WHERE cache = ? AND hash IN ("+placeholders(n)+")", args...)
		if err != nil {
			return nil, fmt.Errorf("looking for missing paths: %w", err)
		}
		err = each(rows, func() error {
			var h string
			if err := rows.Scan(&h); err != nil {
				return err
			}
			held[h] = true
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("looking for missing paths: %w", err)
		}
	}
	missing := []string{}
	for _, h := range hashes {
		if !held[h] {
			missing = append(missing, h)
			held[h] = true
		}
	}
	return missing, nil
}

// each calls scan for every row and closes rows.
func each(rows *sql.Rows, scan func() error) error {
	defer rows.Close()
	for rows.Next() {
		if err := scan(); err != nil {
			return err
		}
	}
	return rows.Err()
}
