// Package flywheel is the build that never builds the same thing twice: it
// pulls from the cache, pushes every store path while the build runs, and
// closes with a push of the results' closure. Nothing about the cache can fail
// the build, and nothing about it is silent.
package flywheel

import (
	"io"
	"log/slog"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/credential"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
)

// Options say what to build and against which caches.
type Options struct {
	Installables []string // anything `nix build` takes; "." when there are none and no File
	File         string   // -f FILE
	All          bool     // the installables are flakes, of which all outputs are built
	OutLink      string   // symlink to the results, or empty
	NixArgs      []string // further arguments of `nix build`
	FlakeCheck   string   // run `nix flake check` of this flake instead of a build
	CopyOut      string   // directory to copy the results to, as files; or empty
	GCRoot       string   // directory of symlinks that keep the results from being collected; or empty

	// SkipCached neither fetches nor builds what the cache holds already. With
	// CopyOut, OutLink or GCRoot it is fetched all the same: they need it here.
	SkipCached bool
	// KeepGoing builds what can be built when something else has failed.
	KeepGoing bool
	// Parallel is how many installables are built at a time, each by a nix of its
	// own, while others are evaluated; below 2, one nix builds all of them.
	Parallel int

	Caches     []string // URLs of caches; the embedded server when empty
	PublicKeys []string // trusted for this run besides those that caches tell
	// Credentials finds the tokens of caches that want one.
	Credentials credential.Finder
	Data        string // the embedded server's directory
	Bootstrap   string // installable to realise before the build, or empty

	Selection     // of what is pushed
	Jobs      int // paths sent at a time; 0: what suits the cache

	NoWatch bool // push at the end only
	Setup   bool // install Nix when it is missing

	// DrainTime bounds what is still pushed once a run was interrupted.
	DrainTime time.Duration

	// Observer is told what happens; when it is nil, plain lines go to Out.
	Observer event.Observer
	Out      io.Writer
	Log      *slog.Logger // of the embedded server
}

// DefaultUpstreamKey is cache.nixos.org's: what it signed, anybody can have
// from there.
const DefaultUpstreamKey = "cache.nixos.org-1"

// DefaultDrainTime is how long an interrupted run goes on pushing.
const DefaultDrainTime = 30 * time.Second
