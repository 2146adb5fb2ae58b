package index

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// pgLimits bounds every wait for the database.
type pgLimits struct {
	connect time.Duration // for a connection to be made, and to prove that it lives
	read    time.Duration // for an answer to a request
	write   time.Duration // for one statement of a change, and for its commit
	count   time.Duration // for what reads whole tables
	beat    time.Duration // between two proofs that a lock's connection lives
}

var defaultPGLimits = pgLimits{
	connect: 10 * time.Second,
	read:    30 * time.Second,
	write:   time.Minute,
	count:   10 * time.Minute,
	beat:    5 * time.Second,
}

// pgReaders is how many connections read at a time, unless the URL's pool_max_conns
// says so: the library would take one for each processor of the machine, of which a
// container has a part, and the database a limit for all replicas together.
const pgReaders = 16

// pgSession is what every connection is told at its start.
//
// A commit waits for the disk: a change is acknowledged only when it is durable.
// The deadlines are this side's alone: a commit that the server's own
// statement_timeout ends while it waits for a standby succeeds with a warning.
// A client that was cut off in the middle of a transaction holds its locks for a
// minute at most.
//
// All statements are meant as loops over look-ups in an index, and the planner is
// left no other plan. It would choose by statistics that are a minute old, when a
// first large push has just made small tables large, and for lists whose length
// it does not know.
const pgSession = `
	SET synchronous_commit = on;
	SET statement_timeout = 0;
	SET lock_timeout = 0;
	SET idle_in_transaction_session_timeout = '60s';
	SET default_transaction_isolation = 'read committed';
	SET plan_cache_mode = force_generic_plan;
	SET enable_seqscan = off;
	SET enable_bitmapscan = off;
	SET enable_hashjoin = off;
	SET enable_mergejoin = off;
	SET enable_material = off;
	SET jit = off`

// Postgres is an index in a PostgreSQL database, version 13 or later, which any
// number of processes may share.
type Postgres struct {
	*group

	config *pgx.ConnConfig
	limits pgLimits
	read   *pgxpool.Pool
	write  *pgxpool.Pool // one connection, so that changes do not wait behind reads

	ctx   context.Context // ends with the index, and with it the locks
	end   context.CancelFunc
	locks sync.WaitGroup
}

// OpenPostgres opens the index in the database that a connection string names,
// a URL or keywords and values as libpq has them, and creates or migrates its
// tables in the first schema of the search path. The role must be allowed to
// create tables there. pool_max_conns in the string says how many connections
// answer reads, 4 or one per CPU if it does not; one more is used for changes,
// and one for each lock. A pooler in between must give each connection a
// session of its own.
//
// ErrUnavailable: the database cannot be reached within 10 s, or the
// connect_timeout in the string, or is a standby.
func OpenPostgres(ctx context.Context, url string) (*Postgres, error) {
	return openPostgres(ctx, url, defaultPGLimits)
}

func openPostgres(ctx context.Context, url string, limits pgLimits) (_ *Postgres, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("opening the index in PostgreSQL: %w", explainPostgres(ctx, err))
		}
	}()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(url, "pool_max_conns") {
		config.MaxConns = min(config.MaxConns, pgReaders)
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = limits.connect
	}
	// A standby lags behind what was acknowledged, and takes no changes.
	if config.ConnConfig.ValidateConnect == nil {
		config.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	if _, named := config.ConnConfig.RuntimeParams["application_name"]; !named {
		config.ConnConfig.RuntimeParams["application_name"] = "cacheserver"
	}
	x := &Postgres{config: config.ConnConfig.Copy(), limits: limits}
	config.AfterConnect = x.beginSession
	if err := x.migrate(ctx); err != nil {
		return nil, err
	}
	if x.read, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	config = config.Copy()
	config.MinConns, config.MinIdleConns, config.MaxConns = 0, 0, 1
	if x.write, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		x.read.Close()
		return nil, err
	}
	x.ctx, x.end = context.WithCancel(context.WithoutCancel(ctx))
	x.group = newGroup(x.commit)
	return x, nil
}

// connect makes a connection outside of the pools.
func (x *Postgres) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, x.config.Copy())
	if err != nil {
		return nil, err
	}
	if err := x.beginSession(ctx, conn); err != nil {
		x.disconnect(conn)
		return nil, err
	}
	return conn, nil
}

func (x *Postgres) beginSession(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, x.limits.connect)
	defer cancel()
	_, err := conn.Exec(ctx, pgSession)
	return err
}

// disconnect says goodbye, whatever became of the context that the connection
// was used under.
func (x *Postgres) disconnect(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), x.limits.connect)
	defer cancel()
	_ = conn.Close(ctx) // what it was for has succeeded or failed already
}

// Close ends the writer after the changes that it has begun, then the locks that
// are still held, then the connections once those who read are done.
func (x *Postgres) Close() error {
	x.close()
	x.end()
	x.locks.Wait()
	x.write.Close()
	x.read.Close()
	return nil
}
