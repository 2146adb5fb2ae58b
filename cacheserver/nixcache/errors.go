package nixcache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	narformat "gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

var (
	errNoSuchCache = errors.New("there is no cache")
	errNoSuchFile  = errors.New("not in this cache")
	errMalformed   = errors.New("malformed")
	errMismatch    = errors.New("mismatch")
	errUnsupported = errors.New("not supported here")
)

// Codes of push.Error that answers to pushes do not have.
const (
	codeUnauthorized = "unauthorized"
	codeForbidden    = "forbidden"
	codeUnsupported  = "unsupported"
	codeNeeded       = "needed"
)

// retryAfter is how many seconds a client is asked to wait for storage or database to
// come back.
const retryAfter = 5

// maxMissing bounds the chunks that an answer of 409 names.
const maxMissing = 1000

// answerTo is the one place where errors become statuses. What is the server's
// own affair, such as its paths, is for its log.
func answerTo(err error) (int, push.Error) {
	answer := push.Error{Message: err.Error()}
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	var tooLarge *http.MaxBytesError
	var tooLong *cas.TooLongError
	if errors.As(err, &tooLong) {
		err = &http.MaxBytesError{Limit: tooLong.Limit}
	}
	var missing *cas.MissingChunksError
	switch {
	case is(auth.ErrIssuerUnavailable):
		answer.Code = push.CodeUnavailable
		return http.StatusServiceUnavailable, answer
	case is(auth.ErrForbidden):
		answer.Code = codeForbidden
		return http.StatusForbidden, answer
	case is(auth.ErrUnauthorized):
		answer.Code = codeUnauthorized
		return http.StatusUnauthorized, answer
	case errors.As(err, &tooLarge):
		answer.Code, answer.Limit = push.CodeTooLarge, tooLarge.Limit
		answer.Message = fmt.Sprintf("the body is over the limit of %d bytes", tooLarge.Limit)
		return http.StatusRequestEntityTooLarge, answer
	case errors.As(err, &missing):
		answer.Code = push.CodeMissingChunks
		for _, h := range missing.Chunks[:min(maxMissing, len(missing.Chunks))] {
			answer.Missing = append(answer.Missing, h.String())
		}
		return http.StatusConflict, answer
	case is(index.ErrMissingChunks):
		answer.Code = push.CodeMissingChunks
		return http.StatusConflict, answer
	case is(os.ErrDeadlineExceeded):
		answer.Code, answer.Message = push.CodeTooSlow, "the body came too slowly"
		return http.StatusRequestTimeout, answer
	case is(errNoSuchCache):
		answer.Code = push.CodeNoSuchCache
		return http.StatusNotFound, answer
	case is(cas.ErrDamaged):
		// Before the client's faults: what is damaged may look like one.
		answer.Code, answer.Message = push.CodeInternal, "stored bytes are damaged; the server's log says which"
		return http.StatusInternalServerError, answer
	case is(packstore.ErrNoSpace, index.ErrNoSpace):
		answer.Code, answer.Message = push.CodeNoSpace, "the server has no space left"
		return http.StatusInsufficientStorage, answer
	case is(packstore.ErrUnavailable, index.ErrUnavailable):
		answer.Code, answer.Message = push.CodeUnavailable, "the server's storage or database cannot be reached now; try again later"
		return http.StatusServiceUnavailable, answer
	case is(errNeeded):
		answer.Code = codeNeeded
		return http.StatusConflict, answer
	case is(errUnsupported):
		answer.Code = codeUnsupported
		return http.StatusUnsupportedMediaType, answer
	case is(frame.ErrMismatch, cas.ErrMismatch, errMismatch):
		answer.Code = push.CodeMismatch
		return http.StatusBadRequest, answer
	case is(errMalformed, push.ErrMalformed, narinfo.ErrMalformed, narformat.ErrMalformed, frame.ErrMalformed,
		digest.ErrMalformed, storepath.ErrInvalid):
		answer.Code = push.CodeMalformed
		return http.StatusBadRequest, answer
	}
	answer.Code, answer.Message = push.CodeInternal, "internal error; the server's log says which"
	return http.StatusInternalServerError, answer
}

func (d *Door) fail(w http.ResponseWriter, r *http.Request, err error) {
	// What a handler said of the file that it could not send is not true of the
	// error, which no cache must keep.
	for _, h := range []string{"Content-Length", "Content-Range", "Accept-Ranges", "Etag", "Cache-Control"} {
		w.Header().Del(h)
	}
	if errors.Is(err, errNoSuchFile) {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	d.leave(r, err)
	status, answer := answerTo(err)
	d.announce(w, r, status, err)
	writeJSON(w, status, answer)
}

// leave ends a request that nobody waits for any more.
func (d *Door) leave(r *http.Request, err error) {
	// A body that came too slowly has ended the request's context as well.
	if !errors.Is(err, os.ErrDeadlineExceeded) && (r.Context().Err() != nil || errors.Is(err, context.Canceled)) {
		// The client has left, or the server is closing: nobody reads an answer.
		d.log.Debug("request broken off", "method", r.Method, "path", r.URL.Path, "error", err)
		panic(http.ErrAbortHandler)
	}
}

// announce logs what is the server's own fault, and sets the headers that go with
// a status.
func (d *Door) announce(w http.ResponseWriter, r *http.Request, status int, err error) {
	if status >= http.StatusInternalServerError && !errors.Is(err, errPathHash) {
		d.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "status", status, "error", err)
	}
	switch status {
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", auth.Challenge)
	}
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // the types of this package can be marshalled
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // a client that left is no fault of ours
}
