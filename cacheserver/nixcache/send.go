package nixcache

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// checkEvery is how long bytes that were compared with their hashes are taken to
// be good: they are then sent by the kernel, which cannot look at them.
const checkEvery = 24 * time.Hour

// moves bounds how often compaction may move a NAR while it is sent.
const moves = 10

// send sends a part of a NAR. Bytes that were not checked for a while are
// checked as they are sent, so that damage ends the answer before it is served.
func (d *Door) send(w http.ResponseWriter, r *http.Request, c *cache, n *nar, status int, rng byteRange) error {
	begun := false
	begin := func() {
		if !begun {
			w.WriteHeader(status)
			begun = true
		}
	}
	var sent int64
	var err error
	checked := time.Since(time.Unix(n.checked.Load(), 0)) <= checkEvery
	if checked {
		sent, err = d.sendExtents(r.Context(), w, begin, c, n, rng)
		// Reading with care tells which chunk is gone, and whom that hits.
		checked = begun || !packstore.Unreadable(err)
	}
	if !checked {
		sent, err = d.store.WriteChecked(r.Context(), &beginner{begin, w}, n.Blob, rng.start, rng.length)
		if err == nil {
			begin() // the empty one
			if rng.length == n.FileSize {
				n.checked.Store(time.Now().Unix())
			}
		}
	}
	var collected *cas.MissingChunksError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cas.ErrDamaged):
		n.checked.Store(0)
		d.reportDamage(r.Context(), err)
	case packstore.Unreadable(err):
		n.checked.Store(0)
	case !begun && (errors.Is(err, index.ErrNotFound) || errors.As(err, &collected)):
		d.nars.Remove(narKey{c.ID, n.Hash})
		return errNoSuchFile
	}
	if !begun {
		return err
	}
	return d.breakOff(r, sent, err)
}

// breakOff ends an answer whose status is out: a broken connection is what tells
// the client that the rest is missing.
func (d *Door) breakOff(r *http.Request, sent int64, err error) error {
	if r.Context().Err() == nil {
		d.log.Error("sending a file", "path", r.URL.Path, "sent", sent, "error", err)
	}
	panic(http.ErrAbortHandler)
}

// beginner sends the status with the first byte, not before.
type beginner struct {
	begin func()
	w     io.Writer
}

func (b *beginner) Write(p []byte) (int, error) {
	b.begin()
	return b.w.Write(p)
}

// sendExtents copies extents, each from the pack's own file where packs are
// files, so that the kernel does the copying: nothing between here and net/http
// may hide its ReadFrom.
func (d *Door) sendExtents(ctx context.Context, w http.ResponseWriter, begin func(), c *cache, n *nar, rng byteRange) (sent int64, err error) {
	extents := clip(n.extents, rng)
	for moved := 0; len(extents) > 0; {
		e := extents[0]
		d.store.Prefetch(ctx, extents[1:])
		pack, err := d.store.OpenExtent(ctx, e)
		if errors.Is(err, packstore.ErrNotFound) && moved < moves {
			// Compaction has moved it: the same frames lie in another pack now.
			moved++
			d.nars.Remove(narKey{c.ID, n.Hash})
			fresh, err := d.lookUpNAR(ctx, c, n.Hash)
			if err != nil {
				return sent, err
			}
			if fresh.FileHash != n.FileHash {
				return sent, errors.New("the NAR was collected, and pushed again as another file, while it was sent")
			}
			extents = clip(fresh.extents, byteRange{rng.start + sent, rng.length - sent})
			continue
		}
		if err != nil {
			return sent, err
		}
		begin()
		copied, err := packstore.CopyN(w, pack, e.Length)
		_ = pack.Close()
		sent += copied
		if err != nil {
			return sent, err
		}
		extents = extents[1:]
	}
	begin() // the empty one
	return sent, nil
}

// reportDamage says which paths damaged bytes hit.
func (d *Door) reportDamage(ctx context.Context, damage error) {
	var hit []string
	var at *cas.DamagedError
	var err error
	if errors.As(damage, &at) {
		var paths []index.PathName
		paths, err = d.index.PathsWith(context.WithoutCancel(ctx), []digest.Hash{at.Chunk})
		for _, p := range paths {
			hit = append(hit, p.String())
		}
	}
	d.log.Error("stored bytes are damaged; cacheserver fsck --repair mends what can be mended and drops the rest, to be pushed again",
		"error", damage, "paths", hit, "lookup", err)
}

// redirectFor is how long a client may take to follow a redirect.
const redirectFor = 15 * time.Minute

// redirect sends a client to the storage itself for a NAR that is all that its
// pack holds. done is false where that cannot be: the NAR is then sent from here.
func (d *Door) redirect(w http.ResponseWriter, r *http.Request, n *nar) (done bool) {
	if !d.redirects || r.Method != http.MethodGet || r.Header.Get("Range") != "" {
		return false
	}
	if known := n.inPack.Load(); known != nil && !*known {
		return false
	}
	url, ok, err := d.store.WholePackURL(r.Context(), n.Blob, n.extents, redirectFor)
	if err != nil {
		d.log.Warn("a NAR is sent from here rather than from the storage", "path", r.URL.Path, "error", err)
		return false
	}
	n.inPack.Store(&ok)
	if !ok {
		return false
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, url, http.StatusFound)
	return true
}
