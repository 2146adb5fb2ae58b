package nixcache

import (
	"errors"
	"fmt"
	"net/http"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// What the clients of Attic's API are told and others are not.
var (
	errBadRequest  = errors.New("bad request")
	errCacheExists = errors.New("the cache exists already")
	errPathHash    = errors.New("invalid store path hash")
	errNoSuchRoute = errors.New("nothing of Attic's API is here")
)

// Messages that are Attic's own words.
const (
	saidBadNAR     = "Bad NAR Hash or Size"
	saidNothingSet = "No modifiable fields were set."
)

// atticError is the body of every answer of Attic's API that is not a success.
type atticError struct {
	Code    int    `json:"code"` // the status
	Error   string `json:"error"`
	Message string `json:"message"`
}

// requestError is an error whose message is all that the client is told.
type requestError struct{ message string }

func (e *requestError) Error() string { return e.message }

func (e *requestError) Unwrap() error { return errBadRequest }

func badRequest(format string, args ...any) error {
	return &requestError{fmt.Sprintf(format, args...)}
}

// atticAnswerTo gives errors the names and statuses that they have in Attic.
// Those that Attic does not know are answered as answerTo says.
func atticAnswerTo(err error) atticError {
	var request *requestError
	var missing *cas.MissingChunksError
	answer := func(status int, name string) atticError { return atticError{status, name, err.Error()} }
	switch {
	case errors.Is(err, auth.ErrUnauthorized):
		return answer(http.StatusUnauthorized, "Unauthorized")
	case errors.Is(err, auth.ErrForbidden):
		return answer(http.StatusForbidden, "AccessError")
	case errors.Is(err, errNoSuchCache):
		return answer(http.StatusNotFound, "NoSuchCache")
	case errors.Is(err, errNoSuchRoute):
		return answer(http.StatusNotFound, "NotFound")
	case errors.Is(err, errCacheExists):
		return answer(http.StatusBadRequest, "CacheAlreadyExists")
	case errors.Is(err, errPathHash):
		return answer(http.StatusInternalServerError, "InvalidStorePathHash")
	case errors.As(err, &request):
		return atticError{http.StatusBadRequest, "RequestError", request.message}
	case errors.Is(err, index.ErrMissingChunks), errors.As(err, &missing):
		return atticError{http.StatusServiceUnavailable, "IncompleteNar", "a part of the NAR was collected while it was stored; push it again"}
	}
	status, told := answerTo(err)
	name := "InternalServerError"
	switch {
	case status == http.StatusNotFound:
		name = "NoSuchObject"
	case status < http.StatusInternalServerError:
		name = "RequestError"
	}
	return atticError{status, name, told.Message}
}

// attic answers the errors of a route of Attic's API.
func (d *Door) attic(handle func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := handle(w, r)
		if err == nil {
			return
		}
		d.drain(w, r, err)
		d.leave(r, err)
		answer := atticAnswerTo(err)
		d.announce(w, r, answer.Code, err)
		writeJSON(w, answer.Code, answer)
	}
}

func (d *Door) atticNowhere(http.ResponseWriter, *http.Request) error { return errNoSuchRoute }
