package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
)

// subject is an index with made-up rows.
type subject struct {
	kind   string
	rows   rows
	config cacheserver.Config
	asked  int // unique paths that were asked for so far

	server *cacheserver.Server // while it serves
	cache  int64

	database, schema string // of one in PostgreSQL
	file             string // of one in SQLite
}

func (s *subject) String() string {
	return fmt.Sprintf("%s with %s paths", s.kind, count(int64(s.rows.paths)))
}

// newSubject makes an empty index: a file, or a schema in the database that where
// names.
func newSubject(ctx context.Context, dir, where string, r rows) (_ *subject, err error) {
	data, err := os.MkdirTemp(dir, "data-")
	if err != nil {
		return nil, err
	}
	s := &subject{rows: r, config: cacheserver.Config{Data: data}}
	if strings.Contains(where, "://") {
		s.kind, s.database, s.schema = "PostgreSQL", where, fmt.Sprintf("cachebench_%d_%d", os.Getpid(), r.paths)
		u, err := url.Parse(where)
		if err != nil {
			return nil, usageError{fmt.Errorf("--index: %w", err)}
		}
		query := u.Query()
		query.Set("search_path", s.schema)
		u.RawQuery = query.Encode()
		s.config.Index = u.String()
		if err := s.inDatabase(ctx, "CREATE SCHEMA "+s.schema); err != nil {
			return nil, err
		}
	} else {
		s.kind, s.file = "SQLite", filepath.Join(data, "index.sqlite")
		if where != "" {
			s.file = fmt.Sprintf("%s.%d", where, r.paths)
		}
		if _, err := os.Stat(s.file); err == nil {
			return nil, usageError{fmt.Errorf("--index: %s is there already, and is not overwritten", s.file)}
		}
		s.config.Index = s.file
	}
	return s, nil
}

// serve runs work with the index behind a server that begins anew, with nothing in
// this process's memory.
func (s *subject) serve(ctx context.Context, work func(url string) error) error {
	return withServer(ctx, s.config, func(server *cacheserver.Server, url string) error {
		there, err := server.Index.Cache(ctx, cacheserver.DefaultCache)
		if err != nil {
			return err
		}
		s.server, s.cache = server, there.ID
		defer func() { s.server = nil }()
		return work(url)
	})
}

// drop removes all that the subject has written outside of the temporary
// directory.
func (s *subject) drop() (err error) {
	if s.schema != "" {
		return s.inDatabase(context.Background(), "DROP SCHEMA "+s.schema+" CASCADE")
	}
	for _, suffix := range []string{"", "-wal", "-shm", "-lock-" + collect.LockName} {
		if gone := os.Remove(s.file + suffix); gone != nil && !errors.Is(gone, os.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return err
}

func (s *subject) inDatabase(ctx context.Context, statement string) (err error) {
	conn, err := pgx.Connect(ctx, s.database)
	if err != nil {
		return fmt.Errorf("--index: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, statement)
	return err
}

// indexSize is what the index takes on disk while nothing has it open.
func (s *subject) indexSize(ctx context.Context) (size int64, err error) {
	if s.schema == "" {
		info, err := os.Stat(s.file)
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	}
	conn, err := pgx.Connect(ctx, s.database)
	if err != nil {
		return 0, fmt.Errorf("--index: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	err = conn.QueryRow(ctx, `SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'r'`, s.schema).Scan(&size)
	return size, err
}

// unique is the next path that was not asked for yet, in no order that an index
// could profit from; after the last of them it begins anew.
func (s *subject) unique() int {
	const stride = 982_451_653 // a prime, so that it visits all
	s.asked++
	return int(int64(s.asked) * stride % int64(s.rows.paths))
}
