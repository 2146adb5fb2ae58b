package cacheserver

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/observe"
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
		rec := observe.NewRecorder(w)
		inside := &request{}
		defer func() {
			log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", rec.Status(),
				"bytes", rec.Bytes(), "seconds", time.Since(start).Seconds(),
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
