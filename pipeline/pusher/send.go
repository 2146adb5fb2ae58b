package pusher

import (
	"context"
	"fmt"
	"io"
	"path"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

// push sends one path: its contents at once, its name after its references.
func (p *Pusher) push(ctx context.Context, it *item) error {
	chunks, err := p.target.Upload(ctx, it.NarSize, func(w io.Writer) error {
		return nar.Dump(w, p.store.RealPath(it.Path))
	})
	if err == nil {
		err = p.awaitReferences(ctx, it)
	}
	if err == nil {
		err = p.target.Commit(ctx, narinfoOf(it.PathInfo), chunks)
	}
	if err != nil {
		return &pathError{path: it.Path, err: err}
	}
	return nil
}

// awaitReferences waits for the tries of references that run and were begun
// before this one, so that nobody waits in a circle.
func (p *Pusher) awaitReferences(ctx context.Context, it *item) error {
	for _, ref := range it.References {
		if ref == it.Path {
			continue
		}
		p.mu.Lock()
		var done chan struct{}
		if r, ok := p.items[ref]; ok && r.state == running && r.turn < it.turn {
			done = r.done
		}
		p.mu.Unlock()
		if done == nil {
			continue
		}
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func narinfoOf(i nix.PathInfo) *narinfo.NarInfo {
	n := &narinfo.NarInfo{
		StorePath: i.Path, NarHash: i.NarHash, NarSize: i.NarSize,
		Signatures: i.Signatures, CA: i.CA,
	}
	for _, r := range i.References {
		n.References = append(n.References, path.Base(r))
	}
	if i.Deriver != "" {
		n.Deriver = path.Base(i.Deriver)
	}
	return n
}

func hashOf(storePath string) string { return storepath.Hash(storePath) }

// pathError is a failure to send one path. Faults of the same kind are told
// apart by their cause, not by their paths.
type pathError struct {
	path string
	err  error
}

func (e *pathError) Error() string { return fmt.Sprintf("%s: %v", e.path, e.err) }
func (e *pathError) Unwrap() error { return e.err }
