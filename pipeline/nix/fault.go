package nix

import "regexp"

// temporary is what Nix says, across versions, of caches and networks that may
// do better a moment later. A file that is not there (404), or that may not be
// read, is none of these.
var temporary = regexp.MustCompile(`(?i)` +
	`HTTP error (408|429|5\d\d)|` +
	`unable to download '[^']*':[^\n]*(could ?n[o']t (connect|resolve)|timeout|timed out|reset|refused|ssl|recv failure|send failure|got nothing|transferred a partial file|stream)|` +
	`some substitutes for the outputs of derivation '[^']*' failed|` +
	`substituter '[^']*' is disabled|` +
	`file 'nar/[^']*' does not exist in binary cache|` +
	`hash mismatch importing path|` +
	`failed to (read|decompress)[^\n]*(nar|compressed)|` +
	`cannot (open|connect to)[^\n]*remote store|` +
	`(could not resolve host|temporary failure in name resolution|connection (timed out|reset by peer))`)

// TemporaryFault says whether a failed build blames a cache or the network, so
// that the same build may succeed when it is tried again.
func (e *BuildError) TemporaryFault() bool { return temporary.MatchString(e.Message) }
