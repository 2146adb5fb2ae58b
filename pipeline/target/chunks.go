package target

import (
	"context"
	"fmt"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/pusher"
)

// chunks is this project's server: only what it lacks of a NAR is sent.
type chunks struct {
	*push.Client
	average int // of the chunks that the server wants, in bytes
}

func (*chunks) Kind() Kind { return Chunks }
func (*chunks) Jobs() int  { return pusher.DefaultJobs }

// Send implements pusher.Target. References that the cache lacks are no fault:
// the closure push sends them, or reports them missing.
func (t *chunks) Send(ctx context.Context, p pusher.Path) error {
	cut, err := t.Upload(ctx, p.NarSize, t.average, p.Dump)
	if err != nil {
		return err
	}
	if err := p.Ready(ctx); err != nil {
		return err
	}
	_, err = t.CommitBuilt(ctx, p.NarInfo, cut, p.BuildTime)
	return err
}

// Probe implements pusher.Target.
func (t *chunks) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	_, err := t.Info(ctx)
	return err
}

// Pin implements Pinner.
func (t *chunks) Pin(ctx context.Context, name, storePath string, keep int) error {
	if err := t.Client.Pin(ctx, name, push.PinRequest{Path: storepath.Hash(storePath), Keep: keep}); err != nil {
		return fmt.Errorf("pinning %s as %q: %w", storePath, name, err)
	}
	return nil
}

// BuildTimes implements Historian.
func (t *chunks) BuildTimes(ctx context.Context, hashes []string) (map[string]time.Duration, error) {
	return t.Client.BuildTimes(ctx, hashes)
}
