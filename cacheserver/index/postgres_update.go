package index

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// pgAttempts is how often a change is run, each time into a collision with
	// another process's, before it is given up.
	pgAttempts = 10
	// pgFirstPause is the longest pause before the second attempt. It doubles
	// with each attempt, up to pgLongestPause.
	pgFirstPause   = 10 * time.Millisecond
	pgLongestPause = time.Second
)

func (x *Postgres) commit(group []*update) {
	results, err := x.transact(group)
	if collided(err) && len(group) > 1 {
		// Alone, a change locks its rows in order and waits in no circle.
		for i := range group {
			x.commit(group[i : i+1])
		}
		return
	}
	pause := pgFirstPause
	for n := 1; collided(err); n++ {
		if n == pgAttempts {
			err = fmt.Errorf("%w: it collided with changes of other processes %d times: %w", ErrUnavailable, n, err)
			break
		}
		time.Sleep(rand.N(pause))
		pause = min(2*pause, pgLongestPause)
		results, err = x.transact(group)
	}
	err = explainPostgres(context.Background(), err)
	for i, u := range group {
		if err != nil && results[i] == nil {
			results[i] = fmt.Errorf("writing to the index: %w", err)
		}
		u.done <- results[i]
	}
}

// collided says whether changes failed because of what another process did at
// the same time, and can be run again.
func collided(err error) bool {
	code := pgCode(err)
	return code == pgSerializationFailure || code == pgDeadlock || code == pgUniqueViolation
}

// transact returns the errors of the changes that were undone by themselves, and
// that of all others.
func (x *Postgres) transact(group []*update) (results []error, err error) {
	results = make([]error, len(group))
	// The transaction is everybody's, so nobody's context may end it.
	ctx := context.Background()
	limited, cancel := context.WithTimeout(ctx, x.limits.read)
	defer cancel()
	pooled, err := x.write.Acquire(limited)
	if err != nil {
		return results, err
	}
	conn := pooled.Conn()
	defer func() {
		// Locks are given back before the next attempt. Should that fail, too, the
		// connection is closed.
		if err != nil && !conn.IsClosed() {
			_ = x.control(ctx, conn, "ROLLBACK")
		}
		pooled.Release()
	}()
	begun, next := false, "BEGIN; SAVEPOINT change"
	for i, u := range group {
		if err := u.ctx.Err(); err != nil {
			results[i] = err
			continue
		}
		if err := x.control(ctx, conn, next); err != nil {
			return results, err
		}
		t := &pgTx{ctx: ctx, conn: conn, limit: x.limits.write, now: time.Now().Unix()}
		err := u.change(t)
		if t.failed != nil && (collided(t.failed) || conn.IsClosed()) {
			return results, t.failed
		}
		if err == nil {
			err = t.explained() // the change passed over it, but nothing behind it was done
		}
		next = "RELEASE change; SAVEPOINT change"
		if err != nil {
			results[i] = err
			next = "ROLLBACK TO change" // and the next change begins there
		}
		begun = true
	}
	switch {
	case !begun:
		return results, nil
	case next == "ROLLBACK TO change":
		return results, x.control(ctx, conn, next+"; COMMIT")
	}
	return results, x.control(ctx, conn, "COMMIT")
}

// control runs statements about the transaction itself. If the connection breaks
// during the last of them, COMMIT, nobody knows whether the server did it.
func (x *Postgres) control(ctx context.Context, conn *pgx.Conn, statements string) error {
	ctx, cancel := context.WithTimeout(ctx, x.limits.write)
	defer cancel()
	tag, err := conn.Exec(ctx, statements)
	if err != nil {
		return fmt.Errorf("%s: %w", statements, err)
	}
	// What the server answers to the COMMIT of a transaction that had failed.
	if strings.HasSuffix(statements, "COMMIT") && tag.String() != "COMMIT" {
		return fmt.Errorf("%s: the server answered %s", statements, tag)
	}
	return nil
}
