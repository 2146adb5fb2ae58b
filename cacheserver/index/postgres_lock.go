package index

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Lock implements Index. The lock is the server's, bound to a connection of its
// own. Should the connection break without a word, both sides take time to see
// it: this one closes lost within 15 s, the server may hold on for longer.
func (x *Postgres) Lock(ctx context.Context, name string) (<-chan struct{}, func(), error) {
	conn, err := x.lock(ctx, name)
	if err != nil {
		return nil, nil, fmt.Errorf("taking the lock %q: %w", name, err)
	}
	held, release := context.WithCancel(x.ctx)
	lost, ended := make(chan struct{}), make(chan struct{})
	x.locks.Add(1)
	go func() {
		defer x.locks.Done()
		defer close(ended)
		defer x.disconnect(conn)
		if x.hold(held, conn) || x.ctx.Err() != nil {
			close(lost)
		}
		if !conn.IsClosed() {
			x.unlock(conn)
		}
	}()
	return lost, sync.OnceFunc(func() {
		release()
		<-ended
	}), nil
}

func (x *Postgres) lock(ctx context.Context, name string) (*pgx.Conn, error) {
	limited, cancel := context.WithTimeout(ctx, x.limits.read)
	defer cancel()
	conn, err := x.connect(limited)
	if err != nil {
		return nil, explainPostgres(ctx, err)
	}
	var ours bool
	err = conn.QueryRow(limited, "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", "cacheserver lock "+name).Scan(&ours)
	if err == nil && !ours {
		err = ErrLocked
	}
	if err != nil {
		x.disconnect(conn)
		return nil, explainPostgres(ctx, err)
	}
	return conn, nil
}

// hold returns when ctx has ended, or says that the connection was lost. The
// server's goodbye is seen at once, its silence after a beat.
func (x *Postgres) hold(ctx context.Context, conn *pgx.Conn) (lost bool) {
	for ctx.Err() == nil {
		beat, cancel := context.WithTimeout(ctx, x.limits.beat)
		_, err := conn.WaitForNotification(beat)
		cancel()
		if err != nil && ctx.Err() == nil && pgconn.Timeout(err) {
			proof, cancel := context.WithTimeout(ctx, x.limits.connect)
			err = conn.Ping(proof)
			cancel()
		}
		if err != nil && ctx.Err() == nil {
			return true
		}
	}
	return false
}

// unlock gives the lock back before the connection is closed: the server would
// see the end of the connection only a moment later, and the next to ask for
// the lock would not get it.
func (x *Postgres) unlock(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), x.limits.connect)
	defer cancel()
	_, _ = conn.Exec(ctx, "SELECT pg_advisory_unlock_all()") // the end of the connection does it, too
}
