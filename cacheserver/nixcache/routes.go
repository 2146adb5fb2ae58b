package nixcache

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

// Handler returns the routes of every cache under its name, and those of the
// default one at the root.
func (d *Door) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /nix-cache-info", d.with(d.cacheInfo))
	mux.HandleFunc("GET /{file}", d.with(d.narinfo))
	mux.HandleFunc("GET /nar/{file}", d.with(d.nar))

	mux.HandleFunc("GET /_push/v1", d.with(d.pushInfo))
	mux.HandleFunc("POST /_push/v1/missing-paths", d.with(d.missingPaths))
	mux.HandleFunc("POST /_push/v1/missing-chunks", d.with(d.missingChunks))
	mux.HandleFunc("POST /_push/v1/chunks", d.with(d.chunks))
	mux.HandleFunc("POST /_push/v1/paths", d.with(d.commit))
	return named(mux)
}

type nameKey struct{}

// named takes the cache's name off the path. A ServeMux cannot: to it,
// /nar/nix-cache-info is a NAR of the default cache as much as it is the cache
// info of a cache named nar.
func named(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, rest, inside := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if !inside || name == "nar" || name == "_push" {
			next.ServeHTTP(w, r)
			return
		}
		r2 := r.WithContext(context.WithValue(r.Context(), nameKey{}, name))
		r2.URL = &url.URL{Path: "/" + rest, RawQuery: r.URL.RawQuery}
		next.ServeHTTP(w, r2)
	})
}

func nameOf(r *http.Request, defaultCache string) string {
	if name, ok := r.Context().Value(nameKey{}).(string); ok {
		return name
	}
	return defaultCache
}

// with finds the cache that a request is about and answers its errors.
func (d *Door) with(handle func(http.ResponseWriter, *http.Request, *cache) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := d.cache(r)
		if err == nil {
			err = handle(w, r, c)
		}
		if err != nil {
			d.fail(w, r, err)
		}
	}
}
