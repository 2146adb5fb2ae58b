package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// The codes of PostgreSQL's errors that something is done about; see its manual,
// "PostgreSQL Error Codes".
const (
	pgReadOnly             = "25006" // the server became a standby
	pgIdleInTransaction    = "25P03"
	pgUniqueViolation      = "23505"
	pgSerializationFailure = "40001"
	pgDeadlock             = "40P01"
	pgDiskFull             = "53100"
	pgOutOfMemory          = "53200"
	pgTooManyConnections   = "53300"
	pgLockNotAvailable     = "55P03"
	pgConnectionClass      = "08"
	pgOperatorClass        = "57" // shutting down, starting up, cancelled, …
)

// pgCode returns the code of a server's error, or nothing where the error is not
// a server's.
func pgCode(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// explainPostgres names the errors that callers decide on. ctx is the caller's:
// if that has ended, there is no more to explain.
func explainPostgres(ctx context.Context, err error) error {
	switch {
	case err == nil, errors.Is(err, ErrUnavailable), errors.Is(err, ErrNoSpace):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	switch code := pgCode(err); {
	case code == pgDiskFull:
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case code == pgReadOnly, code == pgIdleInTransaction, code == pgOutOfMemory, code == pgTooManyConnections,
		code == pgLockNotAvailable, code == pgSerializationFailure, code == pgDeadlock,
		strings.HasPrefix(code, pgConnectionClass), strings.HasPrefix(code, pgOperatorClass),
		code == "" && unreachable(err):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// unreachable tells errors of the connection from mistakes of this program. The
// caller's context has not ended, so a deadline that passed is one of pgLimits.
func unreachable(err error) bool {
	var connecting *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connecting) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
