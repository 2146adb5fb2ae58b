package nixcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
)

// maxCacheInfo bounds an uploaded nix-cache-info, in bytes.
const maxCacheInfo = 64 << 10

// smallBody reads a body of at most limit bytes, unpacked.
func (d *Door) smallBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	b, done, err := d.body(w, r, limit)
	if err != nil {
		return nil, err
	}
	plain, err := unpackBody(r.Header.Get("Content-Encoding"), b)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(plain, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	done()
	return text, nil
}

// putCacheInfo takes what nix copy makes of a cache that it believes to be new.
func (d *Door) putCacheInfo(w http.ResponseWriter, r *http.Request, c *cache) error {
	text, err := d.smallBody(w, r, maxCacheInfo)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if key != "StoreDir" {
			continue
		}
		if dir := strings.TrimSpace(value); dir != c.StoreDir {
			return fmt.Errorf("%w: StoreDir %.300q, but the cache is for %s", errMismatch, dir, c.StoreDir)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return fmt.Errorf("%w nix-cache-info: no StoreDir", errMalformed)
}

// putNarinfo makes a path visible over a NAR that was uploaded before, or that
// the cache holds.
func (d *Door) putNarinfo(w http.ResponseWriter, r *http.Request, c *cache, hash string) error {
	text, err := d.smallBody(w, r, narinfo.MaxSize)
	if err != nil {
		return err
	}
	n, err := narinfo.Parse(text)
	if err != nil {
		return err
	}
	if err := n.Check(c.StoreDir); err != nil {
		return err
	}
	p, err := pathOf(r.Context(), c, n)
	if err != nil {
		return err
	}
	if p.Hash != hash {
		return fmt.Errorf("%w: the narinfo of %s is at %s.narinfo", errMismatch, n.StorePath, hash)
	}
	blob, err := d.uploaded(r.Context(), c, n)
	if err != nil {
		return err
	}
	err = d.putPath(r.Context(), c, p, func(tx index.Tx) (index.Blob, error) {
		held, err := tx.HoldBlobs([]int64{blob.ID}, d.store.Expiry())
		if err == nil && held == 0 {
			err = errNoNAR(n)
		}
		return blob, err
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// errNoNAR is that of a narinfo whose NAR is not there.
func errNoNAR(n *narinfo.NarInfo) error {
	return fmt.Errorf("%w: the NAR %s is not here, or was uploaded too long ago: PUT %.300s first, then its narinfo again",
		errMismatch, n.NarHash.Nix(), n.URL)
}

// uploaded returns the NAR that a narinfo names.
func (d *Door) uploaded(ctx context.Context, c *cache, n *narinfo.NarInfo) (index.Blob, error) {
	url, _, _ := strings.Cut(n.URL, "?")
	name, ok := strings.CutPrefix(strings.TrimPrefix(url, "./"), "nar/")
	if !ok {
		return index.Blob{}, fmt.Errorf("%w narinfo: URL %.300q is not nar/<file>, as the NAR was uploaded", errMalformed, n.URL)
	}
	var blob index.Blob
	o, err := d.index.Object(ctx, c.ID, narFile{name: name}.objectName())
	if err == nil {
		blob = o.Blob
	} else if errors.Is(err, index.ErrNotFound) {
		blob, err = d.index.NAR(ctx, c.ID, n.NarHash)
	}
	if errors.Is(err, index.ErrNotFound) {
		return index.Blob{}, errNoNAR(n)
	}
	if err != nil {
		return index.Blob{}, err
	}
	if want := (digest.Digest{Hash: n.NarHash, Size: n.NarSize}); blob.Digest != want {
		return index.Blob{}, fmt.Errorf("%w: the narinfo says NarHash %s and NarSize %d, the NAR at %s has %s and %d",
			errMismatch, want.Hash.Nix(), want.Size, n.URL, blob.Hash.Nix(), blob.Size)
	}
	return blob, nil
}
