package nixcache_test

import (
	"log/slog"
	"net/http"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
)

// everyone lets all requests through, as a server without tokens does.
func everyone(next http.Handler) http.Handler {
	a, err := auth.New(auth.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	return a.Middleware(next)
}

// Handler is the door's for everyone.
func (r *rig) Handler() http.Handler { return everyone(r.Door.Handler()) }
