package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/config"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// push ADDR NAME [REFERENCE…] pushes a path of 20,000 bytes that do not compress,
// which refers to paths of those names. Its base name is then in $NAME, and how
// many bytes were sent in $SENT.
func pushPath(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: push ADDR NAME [REFERENCE…]")
	}
	base := func(name string) string {
		return digest.Of([]byte(name)).Nix32()[:storepath.HashLen] + "-" + name
	}
	contents := make([]byte, 20_000)
	_, _ = rand.NewChaCha8(digest.Of([]byte(args[1]))).Read(contents)
	file := ts.MkAbs("contents")
	ts.Check(os.WriteFile(file, contents, 0o600))
	var archive bytes.Buffer
	ts.Check(nar.Dump(&archive, file))
	n := &narinfo.NarInfo{
		StorePath: storepath.DefaultDir + "/" + base(args[1]), NarHash: digest.Of(archive.Bytes()), NarSize: int64(archive.Len()),
	}
	for _, name := range args[2:] {
		n.References = append(n.References, base(name))
	}
	c, err := push.NewClient("http://" + args[0] + "/main")
	ts.Check(err)
	defer c.Close()
	ctx := context.Background()
	chunks, err := c.Upload(ctx, n.NarSize, chunker.DefaultAverage, func(w io.Writer) error {
		_, err := w.Write(archive.Bytes())
		return err
	})
	ts.Check(err)
	ts.Setenv("SENT", fmt.Sprint(c.SentBytes()))
	_, err = c.Commit(ctx, n, chunks)
	ts.Check(err)
	ts.Setenv(strings.ToUpper(args[1]), base(args[1]))
}

// age DATA AGE makes all that a store holds so much older.
func ageStore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: age DATA AGE")
	}
	by, err := config.ParseAge(args[1])
	ts.Check(err)
	seconds := int64(by / time.Second)
	db, err := sql.Open("sqlite", "file:"+ts.MkAbs(filepath.Join(args[0], "index.sqlite"))+"?_pragma=busy_timeout(10000)")
	ts.Check(err)
	defer func() { ts.Check(db.Close()) }()
	for _, column := range []string{"paths.created", "paths.used", "packs.created", "chunks.touched", "blobs.expires", "pins.created"} {
		table, column, _ := strings.Cut(column, ".")
		_, err := db.Exec(fmt.Sprintf("UPDATE %s SET %s = %s - ?", table, column, column), seconds)
		ts.Check(err)
	}
	_, err = db.Exec("UPDATE pins SET expires = expires - ? WHERE expires <> 0", seconds)
	ts.Check(err)
	// The name of a pack begins with its time.
	for _, file := range packFiles(ts, args[0]) {
		var ms int64
		name := strings.TrimSuffix(filepath.Base(file), ".pack")
		_, err := fmt.Sscanf(name[:12], "%x", &ms)
		ts.Check(err)
		older := fmt.Sprintf("%012x%s", ms-1000*seconds, name[12:])
		ts.Check(os.Rename(file, filepath.Join(filepath.Dir(file), older+".pack")))
		_, err = db.Exec("UPDATE packs SET name = ? WHERE name = ?", older, name)
		ts.Check(err)
	}
}

func packFiles(ts *testscript.TestScript, data string) []string {
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(data), "packs", "*", "*.pack"))
	ts.Check(err)
	return files
}

// packs DATA count N|copy|spoil|spoil-oldest|delete wants there to be so many
// packs, puts a copy of each beside it, or damages or deletes them, or the oldest.
func changePacks(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: packs DATA count N|copy|spoil|spoil-oldest|delete")
	}
	files := packFiles(ts, args[0])
	if args[1] == "count" {
		if got := fmt.Sprint(len(files)); got != args[2] {
			ts.Fatalf("%s packs: %v", got, files)
		}
		return
	}
	if args[1] == "spoil-oldest" {
		oldest := files[0]
		for _, f := range files {
			if filepath.Base(f) < filepath.Base(oldest) {
				oldest = f
			}
		}
		files, args[1] = []string{oldest}, "spoil"
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		ts.Check(err)
		switch args[1] {
		case "copy":
			name := strings.TrimSuffix(filepath.Base(file), ".pack")
			disk, err := packstore.OpenDisk(filepath.Join(ts.MkAbs(args[0]), "packs"))
			ts.Check(err)
			ts.Check(disk.Put(context.Background(), name[:len(name)-1]+"z", int64(len(b)), bytes.NewReader(b)))
			ts.Check(disk.Close()) // or its journal brings the copy back once it is deleted
		case "spoil":
			b[len(b)/3] ^= 1
			ts.Check(os.WriteFile(file, b, 0o600))
		case "delete":
			ts.Check(os.Remove(file))
		}
	}
}

// lock DATA holds the collector's lock until the script ends.
func lockStore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: lock DATA")
	}
	ctx := context.Background()
	x, err := index.OpenSQLite(ctx, ts.MkAbs(filepath.Join(args[0], "index.sqlite")))
	ts.Check(err)
	_, unlock, err := x.Lock(ctx, collect.LockName)
	ts.Check(err)
	ts.Defer(func() {
		unlock()
		_ = x.Close()
	})
}

// noindex FILE makes an index of no cache.
func emptyIndex(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: noindex FILE")
	}
	x, err := index.OpenSQLite(context.Background(), ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(x.Close())
}
