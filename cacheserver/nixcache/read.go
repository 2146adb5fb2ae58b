package nixcache

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

const (
	narSuffix = ".nar.zst"
	narType   = "application/x-nix-nar"
)

func (d *Door) cacheInfo(w http.ResponseWriter, _ *http.Request, c *cache) error {
	text := fmt.Sprintf("StoreDir: %s\nWantMassQuery: 1\nPriority: %d\n", c.StoreDir, c.Priority)
	writeText(w, "text/x-nix-cache-info", []byte(text))
	return nil
}

func writeText(w http.ResponseWriter, contentType string, text []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text) // to HEAD, net/http sends the headers only
}

func (d *Door) narinfo(w http.ResponseWriter, r *http.Request, c *cache) error {
	hash, ok := strings.CutSuffix(r.PathValue("file"), ".narinfo")
	if !ok {
		return errNoSuchFile
	}
	if err := storepath.CheckHash(hash); err != nil {
		return err
	}
	key := pathKey{c.ID, hash}
	text, ok := d.narinfos.Get(key)
	if !ok {
		before := d.commits.Load()
		p, err := d.index.Path(r.Context(), c.ID, hash)
		if errors.Is(err, index.ErrNotFound) {
			return errNoSuchFile
		}
		if err != nil {
			return err
		}
		text = narinfoOf(c, p).Text()
		d.narinfos.Add(key, text)
		if d.commits.Load() != before {
			d.narinfos.Remove(key)
		}
	}
	writeText(w, narinfo.ContentType, text)
	return nil
}

// narinfoOf makes the narinfo of a path. Its URL is named after the NarHash: it
// answers for as long as the cache holds those contents, whatever file they are
// sent as.
func narinfoOf(c *cache, p index.Path) *narinfo.NarInfo {
	n := &narinfo.NarInfo{
		StorePath:   c.StoreDir + "/" + p.Hash + "-" + p.Name,
		URL:         "nar/" + p.NAR.Hash.Nix32() + narSuffix,
		Compression: "zstd",
		FileHash:    p.NAR.FileHash,
		FileSize:    p.NAR.FileSize,
		NarHash:     p.NAR.Hash,
		NarSize:     p.NAR.Size,
		References:  p.References,
		Deriver:     p.Deriver,
		CA:          p.CA,
	}
	n.Signatures = []string{c.key.Sign(n)}
	for _, s := range p.Signatures {
		if !strings.HasPrefix(s, c.key.Name+":") {
			n.Signatures = append(n.Signatures, s)
		}
	}
	return n
}

func (d *Door) findNAR(r *http.Request, c *cache, hash digest.Hash) (*nar, error) {
	key := narKey{c.ID, hash}
	if n, ok := d.nars.Get(key); ok {
		return n, nil
	}
	blob, err := d.index.NAR(r.Context(), c.ID, hash)
	if errors.Is(err, index.ErrNotFound) {
		return nil, errNoSuchFile
	}
	if err != nil {
		return nil, err
	}
	extents, err := d.store.Extents(r.Context(), blob)
	if err != nil {
		return nil, err
	}
	n := &nar{Blob: blob, extents: extents}
	d.nars.Add(key, n)
	return n, nil
}

func (d *Door) nar(w http.ResponseWriter, r *http.Request, c *cache) error {
	name, ok := strings.CutSuffix(r.PathValue("file"), narSuffix)
	if !ok {
		return errNoSuchFile
	}
	hash, err := digest.Parse(name)
	if err != nil {
		return err
	}
	n, err := d.findNAR(r, c, hash)
	if err != nil {
		return err
	}
	etag := `"` + n.FileHash.Nix32() + `"`
	h := w.Header()
	h.Set("Etag", etag)
	h.Set("Accept-Ranges", "bytes")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	rng, status := byteRange{0, n.FileSize}, http.StatusOK
	if ifRange := r.Header.Get("If-Range"); ifRange == "" || ifRange == etag {
		asked, ok := parseRange(r.Header.Get("Range"), n.FileSize)
		switch {
		case ok && asked.length == 0:
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", n.FileSize))
			h.Del("Cache-Control") // it is the file that never changes
			http.Error(w, "the range begins behind the end", http.StatusRequestedRangeNotSatisfiable)
			return nil
		case ok:
			rng, status = asked, http.StatusPartialContent
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", asked.start, asked.start+asked.length-1, n.FileSize))
		}
	}
	h.Set("Content-Type", narType)
	h.Set("Content-Length", strconv.FormatInt(rng.length, 10))
	if r.Method == http.MethodHead {
		w.WriteHeader(status)
		return nil
	}
	return d.send(w, r, status, clip(n.extents, rng))
}

// send copies extents, each from the pack's own file where packs are files, so
// that the kernel does the copying: nothing between here and net/http may hide
// its ReadFrom.
func (d *Door) send(w http.ResponseWriter, r *http.Request, status int, extents []index.Extent) error {
	for i, e := range extents {
		pack, err := d.store.OpenExtent(r.Context(), e)
		if err == nil {
			if i == 0 {
				w.WriteHeader(status)
			}
			_, err = io.CopyN(w, pack, e.Length)
			_ = pack.Close()
		}
		switch {
		case err == nil:
		case i == 0 && pack == nil:
			return err
		default:
			// The status is out: a broken connection is what tells the client
			// that the rest is missing.
			if r.Context().Err() == nil {
				d.log.Error("sending a NAR", "path", r.URL.Path, "pack", e.Pack, "error", err)
			}
			panic(http.ErrAbortHandler)
		}
	}
	return nil
}

// byteRange is a part of a file.
type byteRange struct{ start, length int64 }

// parseRange reads a Range header of one range (RFC 9110, 14.1.2). ok is false
// for none, and for those that a server may pass over: malformed ones and
// several at once. A length of 0 means that it lies behind the end.
func parseRange(header string, size int64) (_ byteRange, ok bool) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	if !ok || strings.Contains(spec, ",") {
		return byteRange{}, false
	}
	first, last, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return byteRange{}, false
	}
	if first == "" {
		n, err := strconv.ParseUint(last, 10, 63)
		if err != nil {
			return byteRange{}, false
		}
		length := min(int64(n), size)
		return byteRange{size - length, length}, true
	}
	start, err := strconv.ParseUint(first, 10, 63)
	if err != nil {
		return byteRange{}, false
	}
	end := size - 1
	if last != "" {
		n, err := strconv.ParseUint(last, 10, 63)
		if err != nil || n < start {
			return byteRange{}, false
		}
		end = min(end, int64(n))
	}
	if int64(start) > end {
		return byteRange{}, true
	}
	return byteRange{int64(start), end - int64(start) + 1}, true
}

// clip returns what of the extents lies in rng.
func clip(extents []index.Extent, rng byteRange) []index.Extent {
	var out []index.Extent
	skip, left := rng.start, rng.length
	for _, e := range extents {
		if left == 0 {
			break
		}
		if skip >= e.Length {
			skip -= e.Length
			continue
		}
		e.Offset, e.Length = e.Offset+skip, min(e.Length-skip, left)
		skip, left = 0, left-e.Length
		out = append(out, e)
	}
	return out
}
