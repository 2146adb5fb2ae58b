package nixcache

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// reserved are names that no cache can have, because the root has something else
// of that name: the default cache's files, and those of other doors.
var reserved = []string{
	"nar", "log", "realisations", "build-trace-v2", "debuginfo", "ac", "cas", "healthz", "readyz", "metrics",
}

// plainPart stands behind the name of a cache in the URL of a substituter, or is
// the query of a narinfo, for clients that know no zstd: Nix before 2.4.
const plainPart = "compression=none"

type targetKey struct{}

// target is what the beginning of a path says.
type target struct {
	cache string // empty is the default one
	plain bool   // NARs are asked for uncompressed
}

// targeted takes the cache's name off the path. A ServeMux cannot: to it,
// /nar/nix-cache-info is a NAR of the default cache as much as it is the cache
// info of a cache named nar.
func targeted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var t target
		rest := strings.TrimPrefix(r.URL.Path, "/")
		name, behind, inside := strings.Cut(rest, "/")
		if inside && name != plainPart && !strings.HasPrefix(name, "_") && !slices.Contains(reserved, name) {
			t.cache, rest = name, behind
		}
		if behind, ok := strings.CutPrefix(rest, plainPart+"/"); ok {
			t.plain, rest = true, behind
		}
		t.plain = t.plain || r.URL.Query().Get("compression") == "none"
		r2 := r.WithContext(context.WithValue(r.Context(), targetKey{}, t))
		r2.URL = &url.URL{Path: "/" + rest, RawQuery: r.URL.RawQuery}
		next.ServeHTTP(w, r2)
	})
}

func targetOf(r *http.Request) target {
	t, _ := r.Context().Value(targetKey{}).(target)
	return t
}

func (d *Door) nameOf(r *http.Request) string {
	if name := targetOf(r).cache; name != "" {
		return name
	}
	return d.defaultCache
}
