package nixcache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

const (
	narSuffix     = ".nar.zst"
	narType       = "application/x-nix-nar"
	narinfoSuffix = ".narinfo"
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

// file answers with a file that lies beside the NARs.
func (d *Door) file(w http.ResponseWriter, r *http.Request, c *cache) error {
	if hash, ok := strings.CutSuffix(r.PathValue("file"), listingSuffix); ok {
		return d.listing(w, r, c, hash)
	}
	hash, ok := strings.CutSuffix(r.PathValue("file"), narinfoSuffix)
	if !ok {
		return errNoSuchFile
	}
	if err := storepath.CheckHash(hash); err != nil {
		return err
	}
	n, err := d.findNarinfo(r, c, hash)
	if err != nil {
		return err
	}
	if n.used.due() {
		d.uses.path(pathKey{c.ID, hash})
	}
	text := n.text
	if targetOf(r).plain {
		text = unpackedNarinfo(text)
	}
	writeText(w, narinfo.ContentType, text)
	return nil
}

// unpackedNarinfo is a narinfo whose NAR is asked for uncompressed. What is signed
// is the same.
func unpackedNarinfo(text []byte) []byte {
	n, err := narinfo.Parse(text)
	if err != nil {
		return text // it was written here
	}
	n.URL, n.Compression = strings.TrimSuffix(n.URL, formatZstd.suffix), "none"
	n.FileHash, n.FileSize = n.NarHash, n.NarSize
	return n.Text()
}

func (d *Door) putFile(w http.ResponseWriter, r *http.Request, c *cache) error {
	file := r.PathValue("file")
	if hash, ok := strings.CutSuffix(file, narinfoSuffix); ok {
		return d.putNarinfo(w, r, c, hash)
	}
	if strings.HasSuffix(file, listingSuffix) {
		return d.putObject(&uploadedListings)(w, r, c)
	}
	return fmt.Errorf("a file named %.80q is %w", file, errUnsupported)
}

func (d *Door) findNarinfo(r *http.Request, c *cache, hash string) (*hotNarinfo, error) {
	key := pathKey{c.ID, hash}
	if n, ok := d.narinfos.Get(key); ok {
		return n, nil
	}
	before := d.commits.Load()
	p, err := d.index.Path(r.Context(), c.ID, hash)
	switch {
	case errors.Is(err, index.ErrNotFound):
		d.narinfos.Remove(key)
		o, err := d.offer(r, c, hash)
		if err != nil {
			return nil, err
		}
		return o.here, nil
	case errors.Is(err, index.ErrUnavailable):
		if n, ok := d.narinfos.Stale(key); ok {
			return n, nil
		}
		return nil, err
	case err != nil:
		return nil, err
	}
	info := narinfoOf(c, p)
	if len(d.pulls.upstreams[c.Name]) > 0 {
		info.URL = pulledURL(p) // once it was collected, it may be pulled again
	}
	n := &hotNarinfo{text: info.Text()}
	n.used.seconds.Store(p.Used.Unix())
	d.narinfos.Add(key, n)
	if d.commits.Load() != before {
		d.narinfos.Remove(key)
	}
	return n, nil
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
	if n.FileHash == (digest.Hash{}) { // it is not known
		n.FileSize = 0
	}
	ours := map[string]bool{}
	for _, k := range c.keys {
		n.Signatures = append(n.Signatures, k.Sign(n))
		ours[k.Name] = true
	}
	for _, s := range p.Signatures {
		if name, _, _ := strings.Cut(s, ":"); !ours[name] {
			n.Signatures = append(n.Signatures, s)
		}
	}
	return n
}

// publicKeys are what clients may trust, the newest first.
func (c *cache) publicKeys() []string {
	keys := make([]string, len(c.keys))
	for i, k := range c.keys {
		keys[i] = k.Public()
	}
	return keys
}

func (d *Door) findNAR(ctx context.Context, c *cache, hash digest.Hash) (*nar, error) {
	key := narKey{c.ID, hash}
	if n, ok := d.nars.Get(key); ok {
		return n, nil
	}
	n, err := d.lookUpNAR(ctx, c, hash)
	if errors.Is(err, index.ErrUnavailable) {
		if n, ok := d.nars.Stale(key); ok {
			return n, nil
		}
	}
	if err != nil {
		return nil, err
	}
	if old, ok := d.nars.Stale(key); ok && old.ID == n.ID && slices.Equal(old.extents, n.extents) {
		// What is known of those very bytes stays true.
		n = old
	}
	d.nars.Add(key, n)
	return n, nil
}

func (d *Door) lookUpNAR(ctx context.Context, c *cache, hash digest.Hash) (*nar, error) {
	blob, err := d.index.NAR(ctx, c.ID, hash)
	if errors.Is(err, index.ErrNotFound) {
		return nil, errNoSuchFile
	}
	if err != nil {
		return nil, err
	}
	extents, err := d.store.Extents(ctx, blob)
	if errors.Is(err, index.ErrNotFound) {
		return nil, errNoSuchFile // it was collected meanwhile
	}
	if err != nil {
		return nil, err
	}
	return &nar{Blob: blob, extents: extents}, nil
}

func (d *Door) nar(w http.ResponseWriter, r *http.Request, c *cache) error {
	f, err := parseNARFile(r.PathValue("file"))
	if err != nil {
		return err
	}
	n, format, err := d.findFile(r, c, f)
	if errors.Is(err, errNoSuchFile) {
		var answered bool
		if answered, err = d.pullNAR(w, r, c, f); answered || err != nil {
			return err
		}
		n, format, err = d.findFile(r, c, f)
	}
	if err != nil {
		return err
	}
	if n.used.due() {
		d.uses.nar(narKey{c.ID, n.Hash})
	}
	if format.write == nil && format != formatZstd {
		return errNoSuchFile
	}
	h := w.Header()
	etag := `"` + n.Hash.Nix32() + format.suffix + `"`
	if format == formatZstd && n.FileHash != (digest.Hash{}) {
		etag = `"` + n.FileHash.Nix32() + `"`
	}
	h.Set("Etag", etag)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	if !c.Public {
		h.Set("Cache-Control", "private, max-age=31536000, immutable")
	}
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", narType)
	switch format {
	case formatZstd:
		return d.sendFile(w, r, c, n, etag)
	case formatPlain:
		return d.sendPlain(w, r, n.Blob, nil)
	}
	return d.sendPlain(w, r, n.Blob, format.write)
}

// sendFile answers with a NAR as it is stored, or a part of that.
func (d *Door) sendFile(w http.ResponseWriter, r *http.Request, c *cache, n *nar, etag string) error {
	if d.redirect(w, r, n) {
		return nil
	}
	h := w.Header()
	h.Set("Accept-Ranges", "bytes")
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
	h.Set("Content-Length", strconv.FormatInt(rng.length, 10))
	if r.Method == http.MethodHead {
		w.WriteHeader(status)
		return nil
	}
	err := d.send(w, r, c, n, status, rng)
	if errors.Is(err, errNoSuchFile) {
		// What was kept of the NAR is of a blob that is gone. The path may have been
		// pushed again since.
		if fresh, lookup := d.findNAR(r.Context(), c, n.Hash); lookup == nil && fresh.ID != n.ID {
			h.Del("Content-Range")
			return d.nar(w, r, c)
		}
	}
	return err
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
