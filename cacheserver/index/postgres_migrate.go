package index

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
)

// Each file brings the tables from the version before it to that of its number.
//
//go:embed postgres/*.sql
var pgSchemas embed.FS

// pgMigrationLock is the advisory lock under which one process at a time looks
// at the version and changes it.
const pgMigrationLock = "cacheserver index schema"

func (x *Postgres) migrate(ctx context.Context) error {
	schemas, err := readPGSchemas(pgSchemas)
	if err != nil {
		return err
	}
	conn, err := x.connect(ctx)
	if err != nil {
		return err
	}
	defer x.disconnect(conn)
	for {
		done, err := migratePostgres(ctx, conn, schemas)
		if done || err != nil {
			return err
		}
	}
}

// readPGSchemas returns the files in the order of their numbers, which begin at
// 1 and leave none out.
func readPGSchemas(files fs.FS) ([]string, error) {
	names, err := fs.Glob(files, "postgres/*.sql") // sorted by name
	if err != nil {
		return nil, fmt.Errorf("listing the schemas: %w", err)
	}
	schemas := make([]string, len(names))
	for i, name := range names {
		var number int
		if _, err := fmt.Sscanf(name, "postgres/%04d_", &number); err != nil || number != i+1 {
			return nil, fmt.Errorf("schema %s: want number %04d", name, i+1)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("reading schema %s: %w", name, err)
		}
		schemas[i] = string(text)
	}
	return schemas, nil
}

// migratePostgres goes one version further, in one transaction, or is done.
func migratePostgres(ctx context.Context, conn *pgx.Conn, schemas []string) (done bool, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", pgMigrationLock); err != nil {
			return fmt.Errorf("waiting for the lock on the schema: %w", err)
		}
		version, err := pgSchemaVersion(ctx, tx)
		switch {
		case err != nil:
			return fmt.Errorf("reading the schema's version: %w", err)
		case version > len(schemas):
			return fmt.Errorf("it was written by a newer version of this program (schema %d, this one knows %d)", version, len(schemas))
		case version == len(schemas):
			done = true
			return nil
		}
		if _, err := tx.Exec(ctx, schemas[version]); err != nil {
			return fmt.Errorf("bringing the tables to version %d: %w", version+1, err)
		}
		if version+1 == len(schemas) {
			// One that has no cache yet was made a moment ago, one version a transaction.
			_, err := tx.Exec(ctx, "INSERT INTO began (at) SELECT $1 WHERE NOT EXISTS (SELECT FROM caches) AND NOT EXISTS (SELECT FROM began)",
				time.Now().UnixNano())
			if err != nil {
				return fmt.Errorf("recording when it was made: %w", err)
			}
		}
		if _, err := tx.Exec(ctx, "UPDATE index_version SET version = $1", version+1); err != nil {
			return fmt.Errorf("recording the schema's version: %w", err)
		}
		return nil
	})
	return done, err
}

// pgSchemaVersion returns 0 for a database without tables. A role that may not
// create any can still use those that are there.
func pgSchemaVersion(ctx context.Context, tx pgx.Tx) (version int, err error) {
	var there bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass('index_version') IS NOT NULL").Scan(&there); err != nil {
		return 0, err
	}
	if !there {
		_, err := tx.Exec(ctx, `CREATE TABLE index_version (version integer NOT NULL);
			INSERT INTO index_version (version) VALUES (0)`)
		return 0, err
	}
	err = tx.QueryRow(ctx, "SELECT version FROM index_version").Scan(&version)
	return version, err
}
