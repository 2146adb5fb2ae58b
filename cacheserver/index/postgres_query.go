package index

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// A list is asked for as = ANY of an array, on the first column of an index: with
// the other plans switched off (see pgSession), each element is looked up there,
// in order. A list is not joined with a table, as the planner could begin with
// the table; where two tables are joined, one of them has no other condition; and
// what may be turned into a join is not EXISTS, but a subquery for one value.

// pgHash reads a hash in place.
type pgHash digest.Hash

// ScanBytes implements pgtype.BytesScanner.
func (h *pgHash) ScanBytes(b []byte) error {
	if len(b) != len(h) {
		return fmt.Errorf("a hash of %d bytes", len(b))
	}
	copy(h[:], b)
	return nil
}

// pgHashes returns each hash once, in the order of the server's index on them.
func pgHashes(hashes []digest.Hash) [][]byte {
	out := make([][]byte, len(hashes))
	for i := range hashes {
		out[i] = hashes[i][:]
	}
	slices.SortFunc(out, bytes.Compare)
	return slices.CompactFunc(out, bytes.Equal)
}

// pgTexts returns each text once, in the order of the server's index on them.
func pgTexts(texts []string) []string {
	out := append([]string{}, texts...) // never nil, which would be NULL
	slices.Sort(out)
	return slices.Compact(out)
}

// pgQuerier is a pool or a connection.
type pgQuerier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// pgEach calls row for every row, whose columns are in into then.
func pgEach(ctx context.Context, q pgQuerier, sql string, args, into []any, row func()) (rows int, err error) {
	found, err := q.Query(ctx, sql, args...)
	if err != nil {
		return 0, err
	}
	_, err = pgx.ForEachRow(found, into, func() error {
		rows++
		row()
		return nil
	})
	return rows, err
}

// each answers a reader's question.
func (x *Postgres) each(ctx context.Context, sql string, args, into []any, row func()) error {
	limited, cancel := context.WithTimeout(ctx, x.limits.read)
	defer cancel()
	_, err := pgEach(limited, x.read, sql, args, into, row)
	return explainPostgres(ctx, err)
}

// one reads a single row, or returns ErrNotFound.
func (x *Postgres) one(ctx context.Context, sql string, args, into []any) error {
	found := false
	err := x.each(ctx, sql, args, into, func() { found = true })
	if err == nil && !found {
		return ErrNotFound
	}
	return err
}

func pgTime(seconds int64) time.Time { return time.Unix(seconds, 0) }
