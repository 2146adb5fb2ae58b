package nixcache

import (
	"net/http"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
)

// Handler returns the routes of every cache under its name, those of the default
// one at the root, and Attic's API. Whoever is not a subject of auth in the
// request's context may do nothing.
func (d *Door) Handler() http.Handler {
	mux := http.NewServeMux()
	// A pattern of GET is one of HEAD, too.
	mux.HandleFunc("GET /nix-cache-info", d.with(d.cacheInfo, auth.Pull))
	mux.HandleFunc("PUT /nix-cache-info", d.with(d.putCacheInfo, auth.Push))
	mux.HandleFunc("GET /{file}", d.with(d.file, auth.Pull))
	mux.HandleFunc("PUT /{file}", d.with(d.putFile, auth.Push))
	mux.HandleFunc("DELETE /{file}", d.with(d.deleteFile, auth.Delete))
	mux.HandleFunc("GET /nar/{file}", d.with(d.nar, auth.Pull))
	mux.HandleFunc("PUT /nar/{file}", d.with(d.putNAR, auth.Push))
	for pattern, kind := range map[string]*objectKind{
		"/log/{drv}":                     &logs,
		"/realisations/{id}":             &realisations,
		"/build-trace-v2/{drv}/{output}": &buildTraces,
		"/debuginfo/{id}":                &debugInfo,
	} {
		mux.HandleFunc("GET "+pattern, d.with(d.getObject(kind), auth.Pull))
		mux.HandleFunc("PUT "+pattern, d.with(d.putObject(kind), auth.Push))
	}

	mux.HandleFunc("GET /_push/v1", d.with(d.pushInfo, auth.Pull, auth.Push))
	mux.HandleFunc("POST /_push/v1/missing-paths", d.with(d.missingPaths, auth.Push))
	mux.HandleFunc("POST /_push/v1/missing-chunks", d.with(d.missingChunks, auth.Push))
	mux.HandleFunc("POST /_push/v1/chunks", d.with(d.chunks, auth.Push))
	mux.HandleFunc("POST /_push/v1/paths", d.with(d.commit, auth.Push))
	mux.HandleFunc("PUT /_push/v1/pins/{name...}", d.with(d.putPin, auth.Push))
	mux.HandleFunc("POST /_push/v1/build-times", d.with(d.buildTimes, auth.Pull, auth.Push))

	mux.HandleFunc("GET /attic-cache-info", d.attic(d.atticInfo))
	mux.HandleFunc("GET /_api/v1/cache-config/{cache}", d.attic(d.atticInfo))
	mux.HandleFunc("POST /_api/v1/cache-config/{cache}", d.attic(d.atticCreate))
	mux.HandleFunc("PATCH /_api/v1/cache-config/{cache}", d.attic(d.atticConfigure))
	mux.HandleFunc("DELETE /_api/v1/cache-config/{cache}", d.attic(d.atticDestroy))
	mux.HandleFunc("POST /_api/v1/get-missing-paths", d.attic(d.atticMissing))
	mux.HandleFunc("PUT /_api/v1/upload-path", d.attic(d.atticUpload))
	mux.HandleFunc("/_api/", d.attic(d.atticNowhere))
	return targeted(mux)
}
