package pusher

import (
	"context"
	"fmt"
	"io"
	"path"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

// tellEach is after how many bytes of a NAR the observer is told.
const tellEach = 1 << 20

// push sends one path: its contents at once, its name after its references.
func (p *Pusher) push(ctx context.Context, it *item) (err error) {
	began := time.Now()
	p.observer.Observe(event.PathPushing{Path: it.Path, NarSize: it.NarSize})
	defer func() {
		p.observer.Observe(event.PathPushed{Path: it.Path, NarSize: it.NarSize, Took: time.Since(began), Err: err})
	}()
	sent := Path{
		NarInfo: narinfoOf(it.PathInfo),
		Dump: func(w io.Writer) error {
			return nar.Dump(&telling{Writer: w, observer: p.observer, path: it.Path, size: it.NarSize}, p.store.RealPath(it.Path))
		},
		Ready: func(ctx context.Context) error { return p.awaitReferences(ctx, it) },
	}
	if p.buildTime != nil {
		sent.BuildTime = p.buildTime(it.PathInfo)
	}
	if err := p.target.Send(ctx, sent); err != nil {
		return &pathError{path: it.Path, err: err}
	}
	return nil
}

// telling tells the observer how much of a NAR has passed.
type telling struct {
	io.Writer
	observer         event.Observer
	path             string
	size, done, told int64
}

func (t *telling) Write(b []byte) (int, error) {
	n, err := t.Writer.Write(b)
	t.done += int64(n)
	if t.done-t.told >= tellEach {
		t.told = t.done
		t.observer.Observe(event.PathSent{Path: t.path, Bytes: t.done, NarSize: t.size})
	}
	return n, err
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
