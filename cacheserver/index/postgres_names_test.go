package index_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/pgtest"
)

// The server plans each statement when the tables are empty, here, too.
func TestNamesAreLookedUpRatherThanReadThrough(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	x, err := index.OpenPostgres(t.Context(), url)
	must(t, err)
	ctx := t.Context()
	var main, other int64
	must(t, x.Update(ctx, func(tx index.Tx) error {
		var err, err2 error
		main, err = tx.AddCache(index.Cache{Name: "main", Retention: index.GlobalRetention})
		other, err2 = tx.AddCache(index.Cache{Name: "other"})
		return errors.Join(err, err2, tx.AddPack("p", 100, entriesOf("a")))
	}))
	const rows = 300
	var digests []digest.Digest
	var ids []int64
	for n := range rows {
		b := blobOf(fmt.Sprint(n))
		must(t, x.Update(ctx, func(tx index.Tx) error {
			b, err := tx.AddBlob(b, chunksOf("a"), past)
			if err != nil {
				return err
			}
			ids = append(ids, b.ID)
			name := fmt.Sprint(n)
			_, err = tx.PutPath(index.Path{CacheID: main, Hash: hashOf(n), Name: "name", NAR: b})
			_, err2 := tx.PutPath(index.Path{CacheID: other, Hash: hashOf(n), Name: "name", NAR: b})
			_, err3 := tx.HoldBlobs(ids[n:], future)
			return errors.Join(
				err, err2, err3,
				tx.PutObject(index.Object{CacheID: main, Name: name, Blob: b}), tx.TouchObject(main, name),
				tx.PutObject(index.Object{CacheID: other, Name: name, Blob: b}),
				tx.PutAction(index.Action{Instance: "main", Digest: b.Hash, Result: b.Hash[:]}), tx.TouchAction("main", b.Hash),
				tx.PutAlias("blake3", b.Digest, b.ID), tx.PutAlias("blake3", digest.Digest{Hash: b.Hash}, b.ID),
				tx.AddSample("bytes", index.Sample{At: past.Add(time.Duration(n) * time.Second)}, past),
			)
		}))
		digests = append(digests, b.Digest)
		_, err := x.Object(ctx, main, fmt.Sprint(n))
		_, err2 := x.Action(ctx, "main", b.Hash)
		must(t, errors.Join(err, err2))
	}
	blobs, err := x.Blobs(ctx, digests)
	aliases, err2 := x.Aliases(ctx, "blake3", digests)
	must(t, errors.Join(err, err2))
	if len(blobs) != rows || len(aliases) != rows {
		t.Errorf("%d blobs and %d aliases of %d", len(blobs), len(aliases), rows)
	}
	var after index.PathName
	for page := range rows / 10 {
		found, err := x.Search(ctx, main, "", after, 10)
		latest, err2 := x.Latest(ctx, main, 10)
		must(t, errors.Join(err, err2))
		if len(found) != 10 || len(latest) != 10 {
			t.Fatalf("page %d: %d found, %d the latest", page, len(found), len(latest))
		}
		after = found[9]
	}
	must(t, x.Update(ctx, func(tx index.Tx) error {
		_, err := tx.HoldBlobs(ids, future)
		_, err2 := tx.ReleaseBlobs(ids, future)
		return errors.Join(err, err2, tx.RemoveCache(other))
	}))
	for what, step := range map[string]func(tx index.Tx, from int64) (index.Swept, error){
		"objects": func(tx index.Tx, from int64) (index.Swept, error) {
			return tx.SweepObjects(from, 50, future, time.Minute)
		},
		"actions": func(tx index.Tx, from int64) (index.Swept, error) { return tx.SweepActions(from, 50, future) },
	} {
		removed := int64(0)
		for from := int64(1); from != 0; {
			var s index.Swept
			must(t, x.Update(ctx, func(tx index.Tx) (err error) {
				s, err = step(tx, from)
				return err
			}))
			removed += s.Removed
			from = s.Next
		}
		if removed != rows {
			t.Errorf("%d %s were swept, want %d", removed, what, rows)
		}
	}
	for more := true; more; {
		must(t, x.Update(ctx, func(tx index.Tx) (err error) {
			more, err = tx.PurgeCaches(50)
			return err
		}))
	}
	_, err = x.HeldBlobs(ctx, past, index.HeldBlob{}, 10)
	must(t, err)
	must(t, x.Close()) // each session tells what it read when it ends
	conn, err := pgx.Connect(ctx, url)
	must(t, err)
	defer func() { must(t, conn.Close(context.WithoutCancel(ctx))) }()
	for table, rows := range map[string]int{"objects": 2 * rows, "actions": rows, "aliases": 2 * rows, "blobs": rows, "paths": 2 * rows, "samples": rows} {
		var byIndex, through int
		soon(t, "the sessions' statistics", func() error {
			must(t, conn.QueryRow(ctx, "SELECT coalesce(idx_tup_fetch, 0), seq_tup_read FROM pg_stat_user_tables WHERE relname = $1", table).
				Scan(&byIndex, &through))
			if table != "samples" && byIndex < rows {
				return fmt.Errorf("%d rows of %s were read", byIndex, table)
			}
			return nil
		})
		t.Logf("%s: %d rows, %d read by an index, %d by reading through", table, rows, byIndex, through)
		if most := 40 * rows; byIndex > most || through > rows {
			t.Errorf("%s has %d rows: %d were read by an index, want at most %d, and %d by reading through it", table, rows, byIndex, most, through)
		}
	}
}
