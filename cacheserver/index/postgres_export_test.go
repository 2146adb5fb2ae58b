package index

import (
	"context"
	"time"
)

// OpenImpatientPostgres opens an index that waits no longer than patience for any
// answer.
func OpenImpatientPostgres(ctx context.Context, url string, patience time.Duration) (*Postgres, error) {
	limits := defaultPGLimits
	limits.read, limits.write, limits.count = patience, patience, patience
	return openPostgres(ctx, url, limits)
}

// ExplainPostgres names an error that PostgreSQL gave.
var ExplainPostgres = explainPostgres
