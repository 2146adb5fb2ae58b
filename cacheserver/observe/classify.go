package observe

import (
	"net/http"
	"strings"
)

// The doors of a server, as labels.
const (
	doorNix       = "nix"
	doorAttic     = "attic"
	doorPush      = "push"
	doorBazelHTTP = "bazel-http"
	doorBazelGRPC = "bazel-grpc"
	doorPage      = "page"
	doorProbe     = "probe" // for machines that watch the server
)

// class is what a request is about. There are few: what a client names is in none.
type class struct {
	door, kind string
	// lookup: a GET of it is a question for something that may be here or not.
	lookup bool
}

const kindOther = "other"

var (
	classPage  = class{door: doorPage, kind: "page"}
	classProbe = class{door: doorProbe, kind: "probe"}
	classGRPC  = class{door: doorBazelGRPC, kind: kindOther}
)

// nixDirectories are what lies in the directories of a Nix cache.
var nixDirectories = map[string]string{
	"nar": "nar", "log": "log", "realisations": "realisation", "build-trace-v2": "realisation", "debuginfo": "debuginfo",
}

// pushKinds are the last parts of the push protocol's paths.
var pushKinds = map[string]string{
	"v1": "info", "missing-paths": "missing-paths", "missing-chunks": "missing-chunks", "chunks": "chunks", "paths": "commit",
}

// atticKinds are the parts behind v1 of Attic's paths.
var atticKinds = map[string]string{
	"cache-config": "cache-config", "get-missing-paths": "missing-paths", "upload-path": "upload",
}

// classify tells a request's door by its path, whatever the doors then make of it.
func classify(r *http.Request) class {
	path := r.URL.Path
	switch path {
	case "/healthz", "/readyz", "/metrics":
		return classProbe
	case "/":
		return classPage
	}
	if strings.HasPrefix(path, "/-/") {
		return classPage
	}
	if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		return classGRPC
	}
	directory, file := lastTwo(path)
	if _, rest, ok := strings.Cut(path, "/_push/"); ok {
		return class{door: doorPush, kind: kindOf(pushKinds, rest[strings.LastIndexByte(rest, '/')+1:])}
	}
	if rest, ok := strings.CutPrefix(path, "/_api/v1/"); ok {
		first, _, _ := strings.Cut(rest, "/")
		return class{door: doorAttic, kind: kindOf(atticKinds, first)}
	}
	switch {
	case file == "attic-cache-info":
		return class{door: doorAttic, kind: "cache-config"}
	case directory == "ac" && isHash(file):
		return class{doorBazelHTTP, kindAction, true}
	case directory == "cas" && isHash(file):
		return class{doorBazelHTTP, kindBlob, true}
	case strings.HasSuffix(file, ".narinfo"):
		return class{doorNix, kindNarinfo, true}
	case strings.HasSuffix(file, ".ls"):
		return class{doorNix, "listing", true}
	case file == "nix-cache-info":
		return class{door: doorNix, kind: "cache-info"}
	}
	if kind, ok := nixDirectories[directory]; ok {
		return class{doorNix, kind, true}
	}
	if i := strings.Index(path, "/build-trace-v2/"); i >= 0 {
		return class{doorNix, "realisation", true}
	}
	return class{door: doorNix, kind: kindOther}
}

// Kinds whose lookups make the hit ratio: what a client that finds it does not
// build.
const (
	kindNarinfo = "narinfo"
	kindAction  = "action"
	kindBlob    = "blob"
)

func kindOf(kinds map[string]string, name string) string {
	if kind, ok := kinds[name]; ok {
		return kind
	}
	return kindOther
}

func lastTwo(path string) (directory, file string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	file, path = path[i+1:], path[:i]
	return path[strings.LastIndexByte(path, '/')+1:], file
}

// isHash is whether Bazel's HTTP cache takes it for one.
func isHash(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
