package pusher

import (
	"context"
	"io"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
)

// Target is a store that takes paths. Its methods may be called by several
// goroutines at once.
type Target interface {
	// MissingPaths returns those of the 32-character hashes that the store
	// lacks, or all of which it cannot say.
	MissingPaths(ctx context.Context, hashes []string) ([]string, error)
	// Send sends a path, and returns nil once the store holds it. One that it
	// holds already is no error.
	Send(ctx context.Context, p Path) error
	// Probe returns nil when the store answers.
	Probe(ctx context.Context) error
}

// Path is what a Target is given to send.
type Path struct {
	*narinfo.NarInfo               // without what is the store's own affair: URL, Compression, File…, our signatures
	BuildTime        time.Duration // what building it took; 0: unknown
	// Dump writes the NAR, of NarSize bytes. It may be called again, from the
	// beginning.
	Dump func(io.Writer) error
	// Ready is to be called before the path becomes visible. It waits for the
	// references that are on their way.
	Ready func(context.Context) error
}
