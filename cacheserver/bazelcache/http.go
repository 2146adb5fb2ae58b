package bazelcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	googleproto "google.golang.org/protobuf/proto"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// opaquePart stands behind an instance's name, as what no instance's can be, where
// the value of an action is no ActionResult: compiler caches keep what they like
// under /ac. The value is a blob then, and the result's standard output.
const opaquePart = partBlobs

// Handler answers gRPC, the paths of Bazel's HTTP cache, /ac/{hash} and
// /cas/{hash} with and without an instance before them, and leaves the rest to
// next.
func (d *Door) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			d.overHTTP.ServeHTTP(flusher{w, http.NewResponseController(w)}, r)
			return
		}
		e, ok := parsePath(r.URL.Path)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		if err := d.serve(w, r, e); err != nil {
			d.refuse(w, r, err)
		}
	})
}

// HTTP2 is how an http.Server of Handler is to treat connections of HTTP/2, which
// gRPC keeps open for long.
func HTTP2() *http.HTTP2Config {
	return &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: aliveEvery, PingTimeout: aliveTimeout}
}

// flusher flushes through whatever wraps a ResponseWriter.
type flusher struct {
	http.ResponseWriter
	conn *http.ResponseController
}

// Flush implements http.Flusher.
func (f flusher) Flush() { _ = f.conn.Flush() }

func (d *Door) serve(w http.ResponseWriter, r *http.Request, e entry) error {
	ctx := r.Context()
	write := r.Method == http.MethodPut
	if !write && r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD, PUT")
		http.Error(w, "there are GET, HEAD and PUT", http.StatusMethodNotAllowed)
		return nil
	}
	if err := d.allow(ctx, e.instance, write); err != nil {
		return err
	}
	switch {
	case write && e.action:
		return d.putAction(w, r, e)
	case write:
		return d.putBlob(w, r, e.hash)
	case e.action:
		return d.getAction(w, r, e)
	case functionAny.isEmptyHash(e.hash):
		return d.sendBlob(w, r, index.Blob{})
	}
	b, err := d.findHash(ctx, e.hash)
	if err != nil {
		return err
	}
	return d.sendBlob(w, r, b)
}

func (d *Door) getAction(w http.ResponseWriter, r *http.Request, e entry) error {
	ctx := r.Context()
	encoded, result, err := d.findResult(ctx, e.instance, functionAny, e.hash)
	if errors.Is(err, errNotFound) {
		b, found := d.findOpaque(ctx, e)
		if found == nil {
			return d.sendBlob(w, r, b)
		}
		if !errors.Is(found, errNotFound) {
			return found
		}
	}
	if err != nil {
		return err
	}
	if err := d.nameByHash(ctx, result); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(encoded)))
	_, _ = w.Write(encoded) // to HEAD, net/http sends the headers only
	return nil
}

// opaque is the instance of values that are no ActionResult.
func (e entry) opaque() string { return strings.TrimPrefix(e.instance+"/"+opaquePart, "/") }

// findOpaque returns the value of an action where it is no ActionResult.
func (d *Door) findOpaque(ctx context.Context, e entry) (index.Blob, error) {
	_, result, err := d.findResult(ctx, e.opaque(), functionSHA256, e.hash)
	if err != nil {
		return index.Blob{}, err
	}
	name, err := parseDigest(result.StdoutDigest)
	if err != nil {
		return index.Blob{}, err
	}
	return d.findOne(ctx, functionSHA256, name)
}

// nameByHash sees that what a result names can be found by what HTTP asks for, a
// hash alone. It can unless it came by another door.
func (d *Door) nameByHash(ctx context.Context, r *repb.ActionResult) error {
	files, trees, _, err := named(r)
	if err != nil {
		return err
	}
	var long []digest.Digest
	for _, name := range slices.Concat(files, trees) {
		if name.Size > minChunk {
			long = append(long, name)
		}
	}
	if len(long) == 0 {
		return nil
	}
	blobs, err := d.find(ctx, functionSHA256, long)
	if err != nil {
		return err
	}
	known, err := d.index.Aliases(ctx, aliasSHA256, withoutSize(long))
	if err != nil {
		return err
	}
	maps.DeleteFunc(blobs, func(name digest.Digest, _ index.Blob) bool {
		_, ok := known[digest.Digest{Hash: name.Hash}]
		return ok
	})
	var open []digest.Hash
	for name := range blobs {
		open = append(open, name.Hash)
	}
	if len(open) == 0 {
		return nil
	}
	located, err := d.index.Locate(ctx, open)
	if err != nil {
		return err
	}
	for _, l := range located {
		delete(blobs, digest.Digest{Hash: l.Hash, Size: int64(l.Size)})
	}
	if len(blobs) == 0 {
		return nil
	}
	return d.index.Update(ctx, func(tx index.Tx) error {
		for name, b := range blobs {
			if err := tx.PutAlias(aliasSHA256, digest.Digest{Hash: name.Hash}, b.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// sendBlob sends a blob; the zero Blob is the empty one. A client that takes zstd
// is sent the stored frames as they lie.
func (d *Door) sendBlob(w http.ResponseWriter, r *http.Request, b index.Blob) error {
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Add("Vary", "Accept-Encoding")
	frames := b.Size > 0 && takesZstd(r.Header)
	size := b.Size
	if frames {
		h.Set("Content-Encoding", "zstd")
		size = b.FileSize
	}
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	if b.Size > 0 {
		d.use(b)
	}
	if r.Method == http.MethodHead || b.Size == 0 {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	begun := false
	err := d.eachChunk(r.Context(), b, 0, func(data, plain []byte, _ int64) error {
		if frames {
			plain = data
		}
		begun = true
		_, err := w.Write(plain)
		return err
	})
	d.reportDamage(err)
	if err != nil && begun {
		// The status is out: a broken connection is what tells the client that the
		// rest is missing.
		d.log.Debug("answer broken off", "path", r.URL.Path, "error", err)
		panic(http.ErrAbortHandler)
	}
	return err
}

func takesZstd(h http.Header) bool {
	for _, list := range h.Values("Accept-Encoding") {
		for one := range strings.SplitSeq(list, ",") {
			name, weight, _ := strings.Cut(one, ";")
			if strings.EqualFold(strings.TrimSpace(name), "zstd") {
				value, ok := strings.CutPrefix(strings.TrimSpace(weight), "q=")
				q, err := strconv.ParseFloat(value, 64)
				return !ok || err == nil && q > 0
			}
		}
	}
	return false
}

// body reads a request's body, unpacked. size is -1 where it is not known. release
// is to be called once it is not read any more.
func (d *Door) body(w http.ResponseWriter, r *http.Request) (body io.Reader, size int64, release func(), err error) {
	if r.ContentLength > d.config.MaxBlob {
		return nil, 0, nil, fmt.Errorf("%w: the limit is %d bytes", errTooLarge, d.config.MaxBlob)
	}
	plain := &slowBody{r: r.Body, conn: http.NewResponseController(w), wait: wait{pace: d.pace}}
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
		return plain, r.ContentLength, func() {}, nil
	case "zstd":
		z, release := unpack(plain)
		return z, -1, release, nil
	default:
		return nil, 0, nil, fmt.Errorf("%w content encoding %q", errUnsupported, encoding)
	}
}

// slowBody ends a body that comes too slowly with os.ErrDeadlineExceeded.
type slowBody struct {
	r    io.Reader
	conn *http.ResponseController
	wait wait
}

// Read implements io.Reader.
func (s *slowBody) Read(p []byte) (int, error) {
	begun := time.Now()
	// Not every ResponseWriter has a connection: a test's recorder has none.
	_ = s.conn.SetReadDeadline(begun.Add(s.wait.left()))
	n, err := s.r.Read(p)
	s.wait.came(n, time.Since(begun))
	if errors.Is(err, io.EOF) {
		// The connection is listened to while the request is worked on; a deadline
		// that passed then would end it.
		_ = s.conn.SetReadDeadline(time.Time{})
	}
	return n, err
}

func (d *Door) putBlob(w http.ResponseWriter, r *http.Request, hash digest.Hash) error {
	body, size, release, err := d.body(w, r)
	if err != nil {
		return err
	}
	defer release()
	if _, err := d.ingest(r.Context(), want{functionAny, hash, size}, body); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *Door) putAction(w http.ResponseWriter, r *http.Request, e entry) error {
	ctx := r.Context()
	body, size, release, err := d.body(w, r)
	if err != nil {
		return err
	}
	defer release()
	if size > maxResult {
		err = d.putOpaque(ctx, e, body)
	} else {
		err = d.putValue(ctx, e, body, size)
	}
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// putValue keeps the value of an action that may be an ActionResult.
func (d *Door) putValue(ctx context.Context, e entry, body io.Reader, size int64) error {
	if size < 0 {
		size = maxResult + 1 // whether there is more than a result may have
	}
	free, err := d.store.Reserve(ctx, 3*size)
	if err != nil {
		return err
	}
	free = sync.OnceFunc(free)
	defer free()
	value, err := io.ReadAll(io.LimitReader(body, size))
	switch {
	case err != nil:
		return err
	case len(value) > maxResult:
		// To stream takes room of its own; who waits for room must not hold any.
		free()
		return d.putOpaque(ctx, e, io.MultiReader(bytes.NewReader(value), body))
	case isResult(value):
		return d.putResult(ctx, e.instance, e.hash, value)
	}
	b, err := d.ingestBytes(ctx, want{functionSHA256, digest.Of(value), int64(len(value))}, value)
	if err != nil {
		return err
	}
	return d.nameOpaque(ctx, e, b)
}

// putOpaque keeps the value of an action that is too long for an ActionResult.
func (d *Door) putOpaque(ctx context.Context, e entry, body io.Reader) error {
	stored, err := d.store.PutWithoutFile(ctx, body, d.config.MaxBlob)
	if err != nil {
		return err
	}
	blobs, err := d.record(ctx, []record{newRecord(stored.Blob, stored.Chunks, functionSHA256, stored.Hash)})
	if err != nil {
		return err
	}
	return d.nameOpaque(ctx, e, blobs[0])
}

func (d *Door) nameOpaque(ctx context.Context, e entry, b index.Blob) error {
	encoded, err := googleproto.Marshal(&repb.ActionResult{StdoutDigest: proto(b.Digest)})
	if err != nil {
		return err
	}
	return d.putResult(ctx, e.opaque(), e.hash, encoded)
}

// isResult says whether a value is meant as an ActionResult. What else compiler
// caches keep seldom decodes as one, and then has fields that it does not know.
func isResult(value []byte) bool {
	r := &repb.ActionResult{}
	if googleproto.Unmarshal(value, r) != nil {
		return false
	}
	files, trees, roots, err := named(r)
	return err == nil && (len(files)+len(trees)+len(roots) > 0 || len(r.ProtoReflect().GetUnknown()) == 0)
}

// refuse answers an error.
func (d *Door) refuse(w http.ResponseWriter, r *http.Request, err error) {
	for _, h := range []string{"Content-Length", "Content-Encoding", "Vary"} {
		w.Header().Del(h)
	}
	// A body that came too slowly has ended the request's context as well.
	if !errors.Is(err, os.ErrDeadlineExceeded) && (r.Context().Err() != nil || errors.Is(err, context.Canceled)) {
		d.log.Debug("request broken off", "method", r.Method, "path", r.URL.Path, "error", err)
		panic(http.ErrAbortHandler)
	}
	v := judge(err)
	if v.fault {
		d.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "status", v.status, "error", err)
	}
	switch v.status {
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter/time.Second)))
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="cache"`)
	}
	http.Error(w, v.message, v.status)
}
