package cacheserver

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
)

// The doors, as the log names them.
const (
	doorNix   = "nix"
	doorPush  = "push"  // the push protocol, which the door for Nix answers
	doorAttic = "attic" // so it does Attic's API
	doorBazel = "bazel"
	doorPage  = "page"
)

// request is what only the handlers inside learn of a request.
type request struct{ door, caller string }

type requestKey struct{}

// logged writes a line for each request, at debug. Calls by gRPC have their own,
// by callLog. Neither the query nor a header is in it: there may be secrets in
// them.
func logged(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !log.Enabled(r.Context(), slog.LevelDebug) || isGRPC(r) {
			next.ServeHTTP(w, r)
			return
		}
		start := time.Now()
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		inside := &request{}
		defer func() {
			log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", rec.status,
				"bytes", rec.bytes, "seconds", time.Since(start).Seconds(),
				"door", inside.door, "caller", inside.caller, "from", r.RemoteAddr)
		}()
		next.ServeHTTP(rec, r.WithContext(context.WithValue(r.Context(), requestKey{}, inside)))
	})
}

// isGRPC is how Bazel's door tells gRPC from HTTP.
func isGRPC(r *http.Request) bool {
	return r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
}

// atDoor notes that a request has come to a door.
func atDoor(door string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if inside, ok := r.Context().Value(requestKey{}).(*request); ok {
			inside.door = door
			switch path := r.URL.Path; {
			case door == doorNix && strings.Contains(path, "/_push/"):
				inside.door = doorPush
			case door == doorNix && strings.HasPrefix(path, "/_api/"):
				inside.door = doorAttic
			}
		}
		next.ServeHTTP(w, r)
	})
}

// withCaller notes who makes a request.
func withCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if inside, ok := r.Context().Value(requestKey{}).(*request); ok {
			inside.caller = auth.SubjectOf(r.Context()).Name()
		}
		next.ServeHTTP(w, r)
	})
}

type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// ReadFrom lets files go from the kernel straight to the connection.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	n, err := io.Copy(r.ResponseWriter, src)
	r.bytes += n
	return n, err
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
