package flywheel

import (
	"context"
	"io"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
)

// target is the cache that is pushed to.
type target struct {
	*push.Client
	average int // of the chunks that the server wants, in bytes
}

// Upload implements pusher.Target.
func (t *target) Upload(ctx context.Context, size int64, dump func(io.Writer) error) ([]digest.Chunk, error) {
	return t.Client.Upload(ctx, size, t.average, dump)
}

// Commit implements pusher.Target. References that the cache lacks are no
// fault: the closure push sends them, or reports them missing.
func (t *target) Commit(ctx context.Context, n *narinfo.NarInfo, chunks []digest.Chunk) error {
	_, err := t.Client.Commit(ctx, n, chunks)
	return err
}

// Probe implements pusher.Target.
func (t *target) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	_, err := t.Info(ctx)
	return err
}
