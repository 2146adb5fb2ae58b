package nixcache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

const (
	jsonType = "application/json"
	logType  = "text/plain; charset=utf-8"
)

// Limits of what is uploaded beside NARs, in bytes, unpacked.
const (
	maxRecord  = 1 << 20 // a realisation, or where debug information is
	maxLog     = 1 << 30
	maxListing = 1 << 30
)

// objectKind is a kind of files of a cache that are neither paths nor NARs.
type objectKind struct {
	contentType string
	limit       int64
	isJSON      bool
	// name returns the name of the file that a request is about. It is the file's
	// path under the cache's URL.
	name func(*http.Request) (string, bool)
}

// Lengths are looked at apart from the expressions: counted repetitions would
// take milliseconds of each start of whatever has this package.
var (
	validRealisation = regexp.MustCompile(`^[a-z0-9]+:[0-9a-zA-Z+/=]+![0-9A-Za-z+._?=-]+\.doi$`)
	validOutput      = regexp.MustCompile(`^[0-9A-Za-z+._?=-]+\.doi$`)
	validBuildID     = regexp.MustCompile(`^[0-9a-f]{8,}(\.debug)?$`)
)

// The longest names: an output's is that of a store path, with its suffix; a
// realisation's has a digest, at most SHA-512 in base 64, before it.
const (
	maxOutput      = 215
	maxRealisation = 145 + maxOutput
	maxBuildID     = 134
)

var (
	logs = objectKind{contentType: logType, limit: maxLog, name: func(r *http.Request) (string, bool) {
		drv := r.PathValue("drv")
		return "log/" + drv, isDerivation(drv)
	}}
	realisations = objectKind{contentType: jsonType, limit: maxRecord, isJSON: true, name: func(r *http.Request) (string, bool) {
		id := r.PathValue("id")
		return "realisations/" + id, len(id) <= maxRealisation && validRealisation.MatchString(id)
	}}
	buildTraces = objectKind{contentType: jsonType, limit: maxRecord, isJSON: true, name: func(r *http.Request) (string, bool) {
		drv, output := r.PathValue("drv"), r.PathValue("output")
		return "build-trace-v2/" + drv + "/" + output, isDerivation(drv) && len(output) <= maxOutput && validOutput.MatchString(output)
	}}
	debugInfo = objectKind{contentType: jsonType, limit: maxRecord, isJSON: true, name: func(r *http.Request) (string, bool) {
		id := r.PathValue("id")
		return "debuginfo/" + id, len(id) <= maxBuildID && validBuildID.MatchString(id)
	}}
	// uploadedListings are of paths that are not there yet.
	uploadedListings = objectKind{contentType: jsonType, limit: maxListing, name: func(r *http.Request) (string, bool) {
		file := r.PathValue("file")
		return file, storepath.CheckHash(strings.TrimSuffix(file, listingSuffix)) == nil
	}}
)

type objectKey struct {
	cache int64
	name  string
}

func isDerivation(base string) bool {
	_, _, err := storepath.Split(base)
	return err == nil && strings.HasSuffix(base, ".drv")
}

func (d *Door) getObject(kind *objectKind) func(http.ResponseWriter, *http.Request, *cache) error {
	return func(w http.ResponseWriter, r *http.Request, c *cache) error {
		name, ok := kind.name(r)
		if !ok {
			return errNoSuchFile
		}
		o, err := d.findObject(r.Context(), c, name)
		if err != nil {
			return err
		}
		return d.sendObject(w, r, o)
	}
}

func (d *Door) findObject(ctx context.Context, c *cache, name string) (index.Object, error) {
	o, err := d.index.Object(ctx, c.ID, name)
	if errors.Is(err, index.ErrNotFound) || err == nil && !o.Expires.IsZero() && time.Now().After(o.Expires) {
		return index.Object{}, errNoSuchFile
	}
	if err != nil {
		return index.Object{}, err
	}
	if time.Since(o.Used) >= useStep {
		d.uses.object(objectKey{c.ID, name})
	}
	return o, nil
}

func (d *Door) sendObject(w http.ResponseWriter, r *http.Request, o index.Object) error {
	h := w.Header()
	h.Set("Content-Type", o.ContentType)
	h.Set("X-Content-Type-Options", "nosniff") // a log is whatever a build wrote
	etag := `"` + o.Blob.Hash.Nix32() + `"`
	h.Set("Etag", etag)
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return d.sendPlain(w, r, o.Blob, nil)
}

func (d *Door) putObject(kind *objectKind) func(http.ResponseWriter, *http.Request, *cache) error {
	return func(w http.ResponseWriter, r *http.Request, c *cache) error {
		name, ok := kind.name(r)
		if !ok {
			return fmt.Errorf("%w name %.300q", errMalformed, r.URL.Path)
		}
		if r.ContentLength > kind.limit {
			return &http.MaxBytesError{Limit: kind.limit}
		}
		body := d.pacedBody(w, r)
		o := index.Object{CacheID: c.ID, Name: name, ContentType: kind.contentType}
		if kind == &uploadedListings {
			o.Expires = d.store.Expiry()
		}
		err := d.takeObject(r.Context(), kind, o, r.Header.Get("Content-Encoding"), body)
		body.drain()
		if err != nil {
			return d.gone(c, err)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

func (d *Door) takeObject(ctx context.Context, kind *objectKind, o index.Object, encoding string, body io.Reader) error {
	plain, err := unpackBody(encoding, body)
	if err != nil {
		return err
	}
	if kind.isJSON {
		text, err := io.ReadAll(io.LimitReader(plain, kind.limit+1))
		if err != nil {
			return err
		}
		if int64(len(text)) > kind.limit {
			return &http.MaxBytesError{Limit: kind.limit}
		}
		if !json.Valid(text) {
			return fmt.Errorf("%w %s: no JSON", errMalformed, o.Name)
		}
		plain = strings.NewReader(string(text))
	}
	_, err = d.storeObject(ctx, o, plain, kind.limit)
	return err
}

// storeObject stores an object's contents and records it.
func (d *Door) storeObject(ctx context.Context, o index.Object, contents io.Reader, limit int64) (index.Object, error) {
	stored, err := d.store.Put(ctx, contents, limit)
	if err != nil {
		return o, err
	}
	err = d.index.Update(ctx, func(tx index.Tx) (err error) {
		if o.Blob, err = tx.AddBlob(stored.Blob, stored.Chunks, d.store.Expiry()); err != nil {
			return err
		}
		return tx.PutObject(o)
	})
	return o, err
}
