package nix

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	_ "modernc.org/sqlite" // the driver

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// PathInfo is what Nix knows of a valid store path.
type PathInfo struct {
	ID         int64 // grows with time; 0 where the database was not asked
	Path       string
	NarHash    digest.Hash
	NarSize    int64
	References []string // full paths
	Deriver    string   // full path, or empty
	Ultimate   bool     // it was built here
	Signatures []string
	CA         string
}

// Derivation says whether the path is a .drv file.
func (p PathInfo) Derivation() bool { return strings.HasSuffix(p.Path, ".drv") }

// Source says whether the path came in by evaluation: a file or a directory
// that an expression names, which every machine that evaluates it has itself.
func (p PathInfo) Source() bool {
	return p.CA != "" && p.Deriver == "" && !p.Ultimate && len(p.Signatures) == 0
}

// Substituted says whether the path came from a substituter.
func (p PathInfo) Substituted() bool {
	return !p.Ultimate && !p.Source() && !p.Derivation()
}

// Database is Nix's own record of valid paths, opened for reading.
//
// ValidPaths.id only grows, and SQLite lets one transaction write at a time:
// a reader that remembers the highest id it saw misses no path that becomes
// valid later.
type Database struct {
	file string

	mu sync.Mutex
	db *sql.DB
	// frozen: db is a file that is declared not to change, which does not see
	// what lies in SQLite's log.
	frozen bool
}

// OpenDatabase opens the database of a store. The database must exist.
func OpenDatabase(ctx context.Context, s Store) (*Database, error) {
	if s.State == "" {
		return nil, errors.New("the store's database is not on this machine")
	}
	d := &Database{file: s.Database()}
	if _, err := os.Stat(d.file); err != nil {
		return nil, fmt.Errorf("opening Nix's database: %w", err)
	}
	// Where the directory cannot be written and no other process has the
	// database open, SQLite cannot make its -shm file and only takes a file
	// that is declared not to change. Such a connection is never kept: what
	// others write meanwhile is seen by the next one, once it is in the file.
	db, err := d.open(ctx, "mode=ro")
	if err != nil && ctx.Err() == nil {
		d.frozen = true
		if db, err = d.open(ctx, "mode=ro&immutable=1"); err == nil {
			db.SetMaxIdleConns(-1)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("opening Nix's database: %w", err)
	}
	d.db = db
	return d, nil
}

func (d *Database) open(ctx context.Context, mode string) (*sql.DB, error) {
	dsn := (&url.URL{Scheme: "file", Path: filepath.ToSlash(d.file), RawQuery: mode + "&_pragma=busy_timeout(10000)"}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	var id int64
	if err := db.QueryRowContext(ctx, cursorQuery).Scan(&id); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// reader returns the connection. A frozen one is exchanged for one that sees the
// log as soon as another process, such as the daemon at a build, has made what
// that needs.
func (d *Database) reader(ctx context.Context) *sql.DB {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.frozen {
		return d.db
	}
	if _, err := os.Stat(d.file + "-shm"); err != nil {
		return d.db
	}
	if live, err := d.open(ctx, "mode=ro"); err == nil {
		_ = d.db.Close() // it was only read
		d.db, d.frozen = live, false
	}
	return d.db
}

// Close closes the database.
func (d *Database) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.db.Close()
}

// Dir is the directory in which files change when paths become valid.
func (d *Database) Dir() string { return filepath.Dir(d.file) }

// Cursor returns the highest id given out so far.
func (d *Database) Cursor(ctx context.Context) (int64, error) {
	var id int64
	if err := d.reader(ctx).QueryRowContext(ctx, cursorQuery).Scan(&id); err != nil {
		return 0, fmt.Errorf("reading Nix's database: %w", err)
	}
	return id, nil
}

const cursorQuery = "SELECT coalesce(max(id), 0) FROM ValidPaths"

const columns = "v.id, v.path, v.hash, coalesce(v.narSize, 0), coalesce(v.deriver, ''), coalesce(v.ultimate, 0), coalesce(v.sigs, ''), coalesce(v.ca, '')"

// Since returns the paths that became valid after the cursor, in order.
func (d *Database) Since(ctx context.Context, cursor int64) ([]PathInfo, error) {
	return d.query(ctx, "SELECT "+columns+" FROM ValidPaths v WHERE v.id > ? ORDER BY v.id", cursor)
}

// Closure returns paths and all that they refer to, references first.
func (d *Database) Closure(ctx context.Context, paths []string) ([]PathInfo, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	infos, err := d.query(ctx, `WITH RECURSIVE closure(id) AS (
			SELECT id FROM ValidPaths WHERE path IN (SELECT value FROM json_each(?))
			UNION SELECT r.reference FROM Refs r JOIN closure c ON r.referrer = c.id)
		SELECT `+columns+` FROM ValidPaths v JOIN closure c ON v.id = c.id ORDER BY v.id`, list(paths))
	if err != nil {
		return nil, err
	}
	return referencesFirst(infos), nil
}

// list is a list as one argument of a query, however long it is.
func list(paths []string) string {
	text, err := json.Marshal(paths)
	if err != nil {
		panic(err) // strings can be marshalled
	}
	return string(text)
}

// Paths returns those of the paths that are valid, references first.
func (d *Database) Paths(ctx context.Context, paths []string) ([]PathInfo, error) {
	infos, err := d.query(ctx, "SELECT "+columns+" FROM ValidPaths v WHERE v.path IN (SELECT value FROM json_each(?)) ORDER BY v.id", list(paths))
	if err != nil {
		return nil, err
	}
	return referencesFirst(infos), nil
}

// Made says whether all outputs of a derivation are valid. It is false where they
// are known only once it is built.
func (d *Database) Made(ctx context.Context, derivation string) (bool, error) {
	var outputs, valid int
	err := d.reader(ctx).QueryRowContext(ctx, `SELECT count(*), count(v.id) FROM DerivationOutputs o
		JOIN ValidPaths d ON d.id = o.drv LEFT JOIN ValidPaths v ON v.path = o.path WHERE d.path = ?`, derivation).Scan(&outputs, &valid)
	if err != nil {
		return false, fmt.Errorf("reading Nix's database: %w", err)
	}
	return outputs > 0 && valid == outputs, nil
}

// BuildClosure returns what building the paths needed, as far as it is valid
// here: their derivations, all that those refer to, the outputs of all of them,
// and what those refer to. References are first.
func (d *Database) BuildClosure(ctx context.Context, paths []string) ([]PathInfo, error) {
	infos, err := d.query(ctx, `WITH RECURSIVE needed(id) AS (
			SELECT d.id FROM ValidPaths p JOIN ValidPaths d ON d.path = p.deriver WHERE p.path IN (SELECT value FROM json_each(?))
			UNION SELECT r.reference FROM Refs r JOIN needed n ON r.referrer = n.id
			UNION SELECT v.id FROM DerivationOutputs o JOIN needed n ON o.drv = n.id JOIN ValidPaths v ON v.path = o.path)
		SELECT `+columns+` FROM ValidPaths v JOIN needed n ON v.id = n.id ORDER BY v.id`, list(paths))
	if err != nil {
		return nil, err
	}
	return referencesFirst(infos), nil
}

// Sequence returns the highest id ever given out, which collections leave as it
// is. One that is lower than a cursor means that this is another database.
func (d *Database) Sequence(ctx context.Context) (int64, error) {
	var id int64
	if err := d.reader(ctx).QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'ValidPaths'").Scan(&id); err != nil {
		return 0, fmt.Errorf("reading Nix's database: %w", err)
	}
	return id, nil
}

func (d *Database) query(ctx context.Context, query string, args ...any) (_ []PathInfo, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("reading Nix's database: %w", err)
		}
	}()
	tx, err := d.reader(ctx).BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	infos, err := scanPaths(ctx, tx, query, args)
	if err != nil {
		return nil, err
	}
	refs, err := tx.PrepareContext(ctx, "SELECT v.path FROM Refs r JOIN ValidPaths v ON v.id = r.reference WHERE r.referrer = ?")
	if err != nil {
		return nil, err
	}
	defer refs.Close()
	for i := range infos {
		if infos[i].References, err = scanReferences(ctx, refs, infos[i].ID); err != nil {
			return nil, err
		}
	}
	return infos, nil
}

func scanPaths(ctx context.Context, tx *sql.Tx, query string, args []any) ([]PathInfo, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var infos []PathInfo
	for rows.Next() {
		var p PathInfo
		var hash, sigs string
		if err := rows.Scan(&p.ID, &p.Path, &hash, &p.NarSize, &p.Deriver, &p.Ultimate, &sigs, &p.CA); err != nil {
			return nil, err
		}
		if p.NarHash, err = digest.Parse(hash); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Path, err)
		}
		p.Signatures = strings.Fields(sigs)
		infos = append(infos, p)
	}
	return infos, rows.Err()
}

func scanReferences(ctx context.Context, refs *sql.Stmt, id int64) ([]string, error) {
	rows, err := refs.QueryContext(ctx, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var paths []string
	for rows.Next() {
		var p string
		if err := rows.Scan(&p); err != nil {
			return nil, err
		}
		paths = append(paths, p)
	}
	return paths, rows.Err()
}

// referencesFirst orders paths so that none stands before one it refers to.
// Ids alone do not: a path that was registered again has a late reference.
func referencesFirst(infos []PathInfo) []PathInfo {
	at := make(map[string]int, len(infos))
	for i, p := range infos {
		at[p.Path] = i
	}
	done := make([]bool, len(infos))
	sorted := make([]PathInfo, 0, len(infos))
	var visit func(i int)
	visit = func(i int) {
		if done[i] {
			return
		}
		done[i] = true // before its references: one of them may be itself
		for _, r := range infos[i].References {
			if j, ok := at[r]; ok {
				visit(j)
			}
		}
		sorted = append(sorted, infos[i])
	}
	for i := range infos {
		visit(i)
	}
	return sorted
}
