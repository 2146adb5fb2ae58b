package nixcache

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	narformat "gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

const (
	listingSuffix = ".ls"
	// maxListings is how many listings are made at a time.
	maxListings = 2
)

// listingName is the object that is the listing of a NAR, whichever path has it.
func listingName(nar index.Blob) string { return "ls/" + nar.Hash.Nix32() + listingSuffix }

// listing answers with what files a path has. One that was uploaded counts only
// until the path is there: from then on the NAR itself says it, and its listing is
// made when it is asked for first, and kept.
func (d *Door) listing(w http.ResponseWriter, r *http.Request, c *cache, hash string) error {
	ctx := r.Context()
	if storepath.CheckHash(hash) != nil {
		return errNoSuchFile
	}
	p, err := d.index.Path(ctx, c.ID, hash)
	if errors.Is(err, index.ErrNotFound) {
		return d.getObject(&uploadedListings)(w, r, c)
	}
	if err != nil {
		return err
	}
	if time.Since(p.Used) >= useStep {
		d.uses.path(pathKey{c.ID, hash})
	}
	o, err := d.findObject(ctx, c, listingName(p.NAR))
	if errors.Is(err, errNoSuchFile) {
		o, err = d.makeListing(ctx, c, p.NAR)
	}
	if err != nil {
		return err
	}
	return d.sendObject(w, r, o)
}

func (d *Door) makeListing(ctx context.Context, c *cache, nar index.Blob) (index.Object, error) {
	// A whole NAR is read: a few at a time are enough, and who waited for one may
	// find it made.
	select {
	case d.listings <- struct{}{}:
		defer func() { <-d.listings }()
	case <-ctx.Done():
		return index.Object{}, ctx.Err()
	}
	o, err := d.findObject(ctx, c, listingName(nar))
	if !errors.Is(err, errNoSuchFile) {
		return o, err
	}
	pr, pw := io.Pipe()
	listed := make(chan error, 1)
	go func() {
		err := d.eachByte(ctx, nar, func(contents io.Reader) error { return writeListing(pw, contents) })
		_ = pw.CloseWithError(err)
		listed <- err
	}()
	o, err = d.storeObject(ctx, index.Object{CacheID: c.ID, Name: listingName(nar), ContentType: jsonType}, pr, maxListing)
	_ = pr.CloseWithError(errEnough)
	if fault := <-listed; fault != nil && !errors.Is(fault, errEnough) {
		err = fault
	}
	var collected *cas.MissingChunksError
	switch {
	case errors.Is(err, index.ErrNotFound), errors.As(err, &collected):
		return o, errNoSuchFile // the NAR was collected meanwhile
	case errors.Is(err, cas.ErrDamaged):
		d.reportDamage(ctx, err)
	}
	if err != nil {
		return o, fmt.Errorf("listing NAR %s: %w", nar.Hash.Nix(), err)
	}
	return o, nil
}

// writeListing writes what a NAR holds as the JSON of a .ls file, version 1. It
// holds no more of it in memory than the names of the directories it is in.
func writeListing(w io.Writer, contents io.Reader) error {
	l := lister{w: bufio.NewWriterSize(w, 64<<10)}
	l.put(`{"root":`)
	if err := narformat.Read(contents, l.node); err != nil {
		return err
	}
	for l.depth > 0 {
		l.leave()
	}
	l.put(`,"version":1}`)
	return l.w.Flush()
}

type lister struct {
	w     *bufio.Writer
	depth int  // how many directories are open
	empty bool // the innermost has no entry yet
}

// put leaves errors to the bufio.Writer, which keeps the first.
func (l *lister) put(s string) { _, _ = l.w.WriteString(s) }

func (l *lister) leave() {
	l.put(`},"type":"directory"}`)
	l.depth--
	l.empty = false
}

func (l *lister) node(n narformat.Node, _ io.Reader) error {
	if n.Path != "" {
		for l.depth > strings.Count(n.Path, "/")+1 {
			l.leave()
		}
		if !l.empty {
			l.put(",")
		}
		l.put(quote(n.Path[strings.LastIndexByte(n.Path, '/')+1:]) + ":")
	}
	l.empty = false
	switch n.Type {
	case narformat.Directory:
		l.put(`{"entries":{`)
		l.depth++
		l.empty = true
	case narformat.Symlink:
		l.put(`{"target":` + quote(n.Target) + `,"type":"symlink"}`)
	default:
		l.put("{")
		if n.Executable {
			l.put(`"executable":true,`)
		}
		l.put(fmt.Sprintf(`"narOffset":%d,"size":%d,"type":"regular"}`, n.Offset, n.Size))
	}
	_, err := l.w.Write(nil)
	return err
}

// quote writes a string as Nix does, which leaves <, > and & as they are.
func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string can be
	return strings.TrimSuffix(b.String(), "\n")
}
