package index

import (
	"context"
	"database/sql"
	"sync"
)

// prepared runs the statements of a database, each of which is compiled once a
// connection: to compile one takes longer than to run it. The texts are the
// program's own, so there is a bounded number of them.
//
// Rows of a statement must be closed before it runs again in the same
// transaction.
type prepared struct {
	*sql.DB

	mu     sync.RWMutex
	byText map[string]*sql.Stmt
}

func newPrepared(db *sql.DB) *prepared {
	return &prepared{DB: db, byText: map[string]*sql.Stmt{}}
}

func (p *prepared) stmt(ctx context.Context, text string) (*sql.Stmt, error) {
	p.mu.RLock()
	s, ok := p.byText[text]
	p.mu.RUnlock()
	if ok {
		return s, nil
	}
	s, err := p.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if other, ok := p.byText[text]; ok {
		return other, s.Close() //nolint:sqlclosecheck // at once
	}
	p.byText[text] = s
	return s, nil
}

// QueryContext hides that of the database.
func (p *prepared) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	s, err := p.stmt(ctx, text) //nolint:sqlclosecheck // it is kept
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

// Close closes the statements, too.
func (p *prepared) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.byText {
		_ = s.Close()
	}
	clear(p.byText)
	return p.DB.Close()
}

// begin begins a transaction. The writer has one connection, which the transaction
// then holds: a statement that is not compiled yet runs as it is, and is compiled
// for the next ones when this one is through.
func (p *prepared) begin(ctx context.Context) (*preparedTx, error) {
	tx, err := p.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	return &preparedTx{Tx: tx, p: p, wanted: map[string]bool{}}, nil
}

// preparedTx is a transaction over prepared statements.
type preparedTx struct {
	*sql.Tx
	p      *prepared
	wanted map[string]bool
}

// QueryContext hides that of the transaction.
func (t *preparedTx) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	if s := t.stmt(ctx, text); s != nil { //nolint:sqlclosecheck // the transaction closes it
		return s.QueryContext(ctx, args...)
	}
	return t.Tx.QueryContext(ctx, text, args...)
}

// ExecContext hides that of the transaction.
func (t *preparedTx) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	if s := t.stmt(ctx, text); s != nil { //nolint:sqlclosecheck // the transaction closes it
		return s.ExecContext(ctx, args...)
	}
	return t.Tx.ExecContext(ctx, text, args...)
}

func (t *preparedTx) stmt(ctx context.Context, text string) *sql.Stmt {
	t.p.mu.RLock()
	s := t.p.byText[text]
	t.p.mu.RUnlock()
	if s == nil {
		t.wanted[text] = true
		return nil
	}
	return t.StmtContext(ctx, s)
}

// through compiles what was wanted. One that cannot be goes on running as it is.
func (t *preparedTx) through(ctx context.Context) {
	for text := range t.wanted {
		_, _ = t.p.stmt(ctx, text) //nolint:sqlclosecheck // it is kept
	}
}
