package nixcache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	narformat "gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// maxNAR is the longest NAR that is taken, in bytes, uncompressed; and the
// longest file that is taken for one.
const maxNAR = 64 << 30

// aliasFile is the function by whose digests NARs are known that were uploaded as
// a file: SHA-256 of the file, as it was compressed.
const aliasFile = "nar-file"

// storeNAR stores a NAR from a stream that has at most limit bytes. malformed is
// what is wrong with it as an archive; its bytes are stored even then, for as long
// as bytes live that nothing names.
func (d *Door) storeNAR(ctx context.Context, r io.Reader, limit int64) (stored cas.Stored, malformed, err error) {
	pr, pw := io.Pipe()
	checked := make(chan error, 1)
	go func() {
		err := narformat.Read(pr, nil)
		// The hash of the whole counts, whatever was found.
		_, _ = io.Copy(io.Discard, pr)
		checked <- err
	}()
	stored, err = d.store.Put(ctx, io.TeeReader(r, pw), limit)
	_ = pw.Close()
	return stored, <-checked, err
}

// putPath makes a path visible over the blob that nar adds to the index.
func (d *Door) putPath(ctx context.Context, c *cache, p index.Path, nar func(index.Tx) (index.Blob, error)) error {
	err := d.index.Update(ctx, func(tx index.Tx) (err error) {
		if p.NAR, err = nar(tx); err != nil {
			return err
		}
		_, err = tx.PutPath(p)
		return err
	})
	if err != nil {
		return d.gone(c, err)
	}
	d.commits.Add(1)
	d.narinfos.Remove(pathKey{p.CacheID, p.Hash})
	return nil
}

// narFile is the name of a NAR's file.
type narFile struct {
	name   string
	hash   digest.Hash // zero where the name tells none
	path   string      // the hash of the store path; empty where the name tells none
	format *format
}

// maxFile is how long a name may be.
const maxFile = 300

var validFile = regexp.MustCompile(`^[0-9A-Za-z+._=-]+$`)

// parseNARFile reads a name such as <hash>.nar.zst, or <store hash>-<hash>.nar,
// as some servers write it.
func parseNARFile(name string) (narFile, error) {
	stem, suffix, ok := strings.Cut(name, ".nar")
	if !ok || stem == "" || len(name) > maxFile || !validFile.MatchString(name) {
		return narFile{}, errNoSuchFile
	}
	f := narFile{name: name}
	if f.format, ok = formatOf(suffix); !ok {
		return narFile{}, errNoSuchFile
	}
	if hash, behind, ok := strings.Cut(stem, "-"); ok && storepath.CheckHash(hash) == nil {
		f.path, stem = hash, behind
	}
	if h, err := digest.Parse(stem); err == nil {
		f.hash = h
	}
	return f, nil
}

// objectName is that of the object that a file is until a narinfo names it.
func (f narFile) objectName() string { return "nar/" + f.name }

// alias is the function by whose digests the files of a format are known.
func (f *format) alias() string { return aliasFile + f.suffix }

func (d *Door) putNAR(w http.ResponseWriter, r *http.Request, c *cache) error {
	f, err := parseNARFile(r.PathValue("file"))
	if err != nil {
		return fmt.Errorf("a NAR whose file is named %.80q is %w: want <hash>.nar, compressed as the suffix behind it says with %s",
			r.PathValue("file"), errUnsupported, known())
	}
	if r.ContentLength > maxNAR {
		return &http.MaxBytesError{Limit: maxNAR}
	}
	body := d.pacedBody(w, r)
	if err := d.takeFile(r.Context(), c, f, body); err != nil {
		body.drain()
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// takeFile stores the NAR in a file, which lives for the grace until a narinfo
// names it.
func (d *Door) takeFile(ctx context.Context, c *cache, f narFile, body io.Reader) error {
	file := sha256.New()
	raw := io.TeeReader(io.LimitReader(body, maxNAR), file)
	format, packed := f.format, raw
	if format == formatPlain {
		var err error
		if format, packed, err = sniff(raw); err != nil {
			return err
		}
	}
	stored, malformed, err := d.storeNAR(ctx, format.unpack(packed), maxNAR)
	if err != nil {
		return err
	}
	// What stands behind the compressed NAR counts for the file's hash.
	if _, err := io.Copy(io.Discard, raw); err != nil {
		return fmt.Errorf("reading the file: %w", err)
	}
	hash := digest.Hash(file.Sum(nil))
	if f.hash != (digest.Hash{}) && f.hash != hash && f.hash != stored.Hash {
		return fmt.Errorf("%w: the file that is named %s has hash %s", errMismatch, f.name, hash.Nix32())
	}
	if malformed != nil {
		return malformed
	}
	expires := d.store.Expiry()
	return d.gone(c, d.index.Update(ctx, func(tx index.Tx) error {
		blob, err := tx.AddBlob(stored.Blob, stored.Chunks, expires)
		if err != nil {
			return err
		}
		if hash != blob.Hash {
			if err := tx.PutAlias(format.alias(), digest.Digest{Hash: hash}, blob.ID); err != nil {
				return err
			}
		}
		return tx.PutObject(index.Object{CacheID: c.ID, Name: f.objectName(), ContentType: narType, Blob: blob, Expires: expires})
	}))
}

// findFile finds the NAR that a file's name stands for, and the format in which
// it is to be sent: the names that this server gives, those that files were
// uploaded by, and, until a narinfo names it, whatever was uploaded.
func (d *Door) findFile(r *http.Request, c *cache, f narFile) (*nar, *format, error) {
	ctx := r.Context()
	if f.hash != (digest.Hash{}) {
		if f.format == formatZstd || f.format == formatPlain {
			n, err := d.findNAR(ctx, c, f.hash)
			if !errors.Is(err, errNoSuchFile) {
				return n, f.format, err
			}
		}
		n, format, err := d.findAlias(ctx, c, f)
		if !errors.Is(err, errNoSuchFile) {
			return n, format, err
		}
	}
	o, err := d.index.Object(ctx, c.ID, f.objectName())
	if errors.Is(err, index.ErrNotFound) {
		return nil, nil, errNoSuchFile
	}
	if err != nil {
		return nil, nil, err
	}
	// Whoever asks by HEAD does not send what is there, and needs it to stay until
	// its narinfo comes.
	if left := time.Until(o.Expires); left < 0 || r.Method == http.MethodHead && left < time.Since(d.store.Settled()) {
		return nil, nil, errNoSuchFile
	}
	extents, err := d.store.Extents(ctx, o.Blob)
	if errors.Is(err, index.ErrNotFound) {
		return nil, nil, errNoSuchFile
	}
	return &nar{Blob: o.Blob, extents: extents}, f.format, err
}

// findAlias finds the NAR of one of the cache's paths by the hash of the file that
// it was uploaded as.
func (d *Door) findAlias(ctx context.Context, c *cache, f narFile) (*nar, *format, error) {
	formats := []*format{f.format}
	if f.format == formatPlain {
		formats = packed // Nix has no suffix for some
	}
	file := digest.Digest{Hash: f.hash}
	for _, format := range formats {
		blobs, err := d.index.Aliases(ctx, format.alias(), []digest.Digest{file})
		if err != nil {
			return nil, nil, err
		}
		if b, ok := blobs[file]; ok {
			n, err := d.findNAR(ctx, c, b.Hash)
			return n, format, err
		}
	}
	return nil, nil, errNoSuchFile
}
