package nixtest

import (
	"crypto/sha256"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite" // the driver
)

// schema is of Nix's schema.sql (version 10) what registering a path touches.
const schema = `
PRAGMA journal_mode = wal;
CREATE TABLE ValidPaths (
    id               integer primary key autoincrement not null,
    path             text unique not null,
    hash             text not null,
    registrationTime integer not null,
    deriver          text,
    narSize          integer,
    ultimate         integer, -- null implies "false"
    sigs             text, -- space-separated
    ca               text
);
CREATE TABLE Refs (
    referrer  integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);
`

// Database is a database with Nix's schema that the test writes, as Nix would.
type Database struct {
	State string // directory with db/db.sqlite
	db    *sql.DB
}

// NewDatabase makes an empty one, which goes with the test.
func NewDatabase(t testing.TB) *Database {
	t.Helper()
	d := &Database{State: t.TempDir()}
	if err := os.Mkdir(filepath.Join(d.State, "db"), 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	d.db, err = sql.Open("sqlite", "file:"+filepath.Join(d.State, "db", "db.sqlite")+"?_pragma=busy_timeout(120000)&_pragma=synchronous(normal)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.db.Close() })
	d.Exec(t, schema)
	return d
}

// Exec runs a statement.
func (d *Database) Exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	if _, err := d.db.Exec(statement, args...); err != nil {
		t.Fatal(err)
	}
}

// Path is the store path that Register makes of a name.
func Path(name string) string {
	const alphabet = "0123456789abcdfghijklmnpqrsvwxyz"
	sum := sha256.Sum256([]byte(name))
	hash := make([]byte, 32)
	for i := range hash {
		hash[i] = alphabet[sum[i]%32]
	}
	return "/nix/store/" + string(hash) + "-" + name
}

// Register makes a path valid that refers to others, which are valid or its
// own, as if it was built here, all in one transaction.
func (d *Database) Register(t testing.TB, name string, references ...string) {
	t.Helper()
	tx, err := d.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // of no effect once it is committed
	_, err = tx.Exec(`INSERT INTO ValidPaths (path, hash, registrationTime, deriver, narSize, ultimate)
		VALUES (?, ?, 1, ?, 120, 1)`, Path(name), fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(name))), Path(name+".drv"))
	for _, r := range references {
		if err == nil {
			_, err = tx.Exec(`INSERT INTO Refs SELECT a.id, b.id FROM ValidPaths a, ValidPaths b
				WHERE a.path = ? AND b.path = ?`, Path(name), Path(r))
		}
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		t.Fatal(err)
	}
}
