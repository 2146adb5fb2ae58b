package index

import (
	"context"
	"time"
)

// OpenImpatientPostgres opens an index that waits no longer than patience for
// anything.
func OpenImpatientPostgres(ctx context.Context, url string, patience time.Duration) (*Postgres, error) {
	return openPostgres(ctx, url, pgLimits{
		connect: patience, read: patience, write: patience, count: patience, beat: patience,
	})
}

// ExplainPostgres names an error that PostgreSQL gave.
var ExplainPostgres = explainPostgres
