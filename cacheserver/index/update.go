package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// maxGroup bounds how many changes share a transaction, and with it how long
// the first of them waits for the last.
const maxGroup = 64

// ErrClosed is returned by Update once the index is closing.
var ErrClosed = errors.New("the index is closed")

type update struct {
	ctx    context.Context
	change func(Tx) error
	done   chan error
}

// Update implements Index. Whoever waits while another's transaction is made
// durable goes into the next one together: one fsync for all of them.
func (x *SQLite) Update(ctx context.Context, change func(Tx) error) error {
	u := &update{ctx: ctx, change: change, done: make(chan error, 1)}
	select {
	case x.updates <- u:
	case <-ctx.Done():
		return ctx.Err()
	case <-x.closing:
		return ErrClosed
	}
	// From here the outcome is the writer's to tell: to leave early would be to
	// call a change failed that may be durable.
	return <-u.done
}

func (x *SQLite) writer() {
	defer close(x.closed)
	for {
		select {
		case first := <-x.updates:
			x.commit(x.gather(first))
		case <-x.closing:
			return
		}
	}
}

func (x *SQLite) gather(first *update) []*update {
	group := []*update{first}
	for len(group) < maxGroup {
		select {
		case u := <-x.updates:
			group = append(group, u)
		default:
			return group
		}
	}
	return group
}

func (x *SQLite) commit(group []*update) {
	results := make([]error, len(group))
	err := x.transact(group, results)
	for i, u := range group {
		if err != nil && results[i] == nil {
			results[i] = fmt.Errorf("writing to the index: %w", wrapFull(err))
		}
		u.done <- results[i]
	}
}

// transact fills in the errors of the changes that were undone by themselves;
// its own error is that of all others.
func (x *SQLite) transact(group []*update, results []error) error {
	// The transaction is everybody's, so nobody's context may end it.
	ctx := context.Background()
	tx, err := x.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for i, u := range group {
		if err := u.ctx.Err(); err != nil {
			results[i] = err
			continue
		}
		if _, err := tx.ExecContext(ctx, "SAVEPOINT change"); err != nil {
			return err
		}
		end := "RELEASE change"
		if err := u.change(&sqliteTx{ctx: ctx, tx: tx, now: time.Now().Unix()}); err != nil {
			results[i] = wrapFull(err)
			end = "ROLLBACK TO change; RELEASE change"
		}
		if _, err := tx.ExecContext(ctx, end); err != nil {
			return err
		}
	}
	return tx.Commit()
}

type sqliteTx struct {
	ctx context.Context
	tx  *sql.Tx
	now int64
}

// AddPack implements Tx.
func (t *sqliteTx) AddPack(name string, size int64, entries []pack.Entry) error {
	res, err := t.tx.ExecContext(t.ctx, "INSERT INTO packs (name, size, created) VALUES (?, ?, ?)", name, size, t.now)
	if err != nil {
		return fmt.Errorf("recording pack %s: %w", name, err)
	}
	id, err := res.LastInsertId()
	if err != nil {
		return fmt.Errorf("recording pack %s: %w", name, err)
	}
	insert, err := t.tx.PrepareContext(t.ctx,
		"INSERT INTO chunks (hash, size, pack, offset, length) VALUES (?, ?, ?, ?, ?) ON CONFLICT (hash) DO NOTHING")
	if err != nil {
		return fmt.Errorf("recording pack %s: %w", name, err)
	}
	defer insert.Close()
	for _, e := range entries {
		if e.Kind != pack.KindChunk {
			continue
		}
		if _, err := insert.ExecContext(t.ctx, e.Hash[:], e.Size, id, e.Offset, e.Length); err != nil {
			return fmt.Errorf("recording chunk %s of pack %s: %w", e.Hash, name, err)
		}
	}
	return nil
}

// AddBlob implements Tx.
func (t *sqliteTx) AddBlob(b Blob, chunks []digest.Chunk) (Blob, error) {
	there, err := scanBlob(b.String(), t.tx.QueryRowContext(t.ctx,
		"SELECT id, hash, size, file_hash, file_size FROM blobs WHERE hash = ? AND size = ?", b.Hash[:], b.Size))
	if !errors.Is(err, ErrNotFound) {
		return there, err
	}
	res, err := t.tx.ExecContext(t.ctx, "INSERT INTO blobs (hash, size, file_hash, file_size, created) VALUES (?, ?, ?, ?, ?)",
		b.Hash[:], b.Size, b.FileHash[:], b.FileSize, t.now)
	if err != nil {
		return Blob{}, fmt.Errorf("recording blob %s: %w", b.Digest, err)
	}
	if b.ID, err = res.LastInsertId(); err != nil {
		return Blob{}, fmt.Errorf("recording blob %s: %w", b.Digest, err)
	}
	insert, err := t.tx.PrepareContext(t.ctx, "INSERT INTO blob_chunks (blob, seq, chunk) SELECT ?, ?, id FROM chunks WHERE hash = ? AND size = ?")
	if err != nil {
		return Blob{}, fmt.Errorf("recording blob %s: %w", b.Digest, err)
	}
	defer insert.Close()
	for i, c := range chunks {
		res, err := insert.ExecContext(t.ctx, b.ID, i, c.Hash[:], c.Size)
		if err != nil {
			return Blob{}, fmt.Errorf("recording chunk %d of blob %s: %w", i, b.Digest, err)
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return Blob{}, errors.Join(fmt.Errorf("blob %s, chunk %d (%s): %w", b.Digest, i, c.Hash, ErrMissingChunks), err)
		}
	}
	return b, nil
}

// PutPath implements Tx.
func (t *sqliteTx) PutPath(p Path) error {
	_, err := t.tx.ExecContext(t.ctx, `INSERT INTO paths (cache, hash, name, nar, refs, deriver, signatures, ca, created)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (cache, hash) DO UPDATE SET name = excluded.name, nar = excluded.nar, refs = excluded.refs,
			deriver = excluded.deriver, signatures = excluded.signatures, ca = excluded.ca`,
		p.CacheID, p.Hash, p.Name, p.NAR.ID, strings.Join(p.References, " "), p.Deriver,
		strings.Join(p.Signatures, " "), p.CA, t.now)
	if err != nil {
		return fmt.Errorf("recording path %s-%s: %w", p.Hash, p.Name, err)
	}
	return nil
}

// AddCache implements Tx.
func (t *sqliteTx) AddCache(c Cache) (int64, error) {
	res, err := t.tx.ExecContext(t.ctx, `INSERT INTO caches (name, store_dir, priority, secret_key, created)
		VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING`, c.Name, c.StoreDir, c.Priority, c.SecretKey, t.now)
	if err != nil {
		return 0, fmt.Errorf("recording cache %q: %w", c.Name, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return 0, errors.Join(fmt.Errorf("cache %q: %w", c.Name, ErrExists), err)
	}
	return res.LastInsertId()
}
