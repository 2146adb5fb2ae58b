package bazelcache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	googleproto "google.golang.org/protobuf/proto"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

const (
	// maxResult is the longest action result, in bytes. It and what is given with it
	// are to fit into a message.
	maxResult = maxMessage - maxInline - 64<<10
	// maxInline is how many bytes of blobs are given with a result.
	maxInline = 1 << 20
)

type actionCache struct{ *Door }

// GetActionResult implements repb.ActionCacheServer.
func (c actionCache) GetActionResult(ctx context.Context, r *repb.GetActionResultRequest) (*repb.ActionResult, error) {
	fn, err := c.begin(ctx, r.InstanceName, r.DigestFunction, false)
	if err != nil {
		return nil, err
	}
	name, err := parseDigest(r.ActionDigest)
	if err != nil {
		return nil, err
	}
	_, result, err := c.findResult(ctx, r.InstanceName, fn, name.Hash)
	if err != nil {
		return nil, err
	}
	return result, c.inline(ctx, fn, r, result)
}

// findResult returns the result of an action, as it was sent and decoded, if all
// that it names is there, and makes that live on; else errNotFound.
func (d *Door) findResult(ctx context.Context, instance string, fn function, action digest.Hash) ([]byte, *repb.ActionResult, error) {
	a, err := d.index.Action(ctx, instance, action)
	if errors.Is(err, index.ErrNotFound) {
		return nil, nil, fmt.Errorf("%w: the result of action %s", errNotFound, action)
	}
	if err != nil {
		return nil, nil, err
	}
	result := &repb.ActionResult{}
	if err := googleproto.Unmarshal(a.Result, result); err != nil {
		return nil, nil, fmt.Errorf("the result of action %s: %w", action, err)
	}
	if err := d.complete(ctx, fn, result); err != nil {
		return nil, nil, err
	}
	if time.Since(a.Used) > min(refreshStep, d.config.Retention/4) {
		d.uses.action(actionKey{instance, action})
	}
	return a.Result, result, nil
}

// complete returns errNotFound unless all that a result names is there: a build
// that is told of a result does not keep what it would need to do without.
func (d *Door) complete(ctx context.Context, fn function, r *repb.ActionResult) error {
	files, trees, roots, err := named(r)
	if err != nil {
		return fmt.Errorf("%w: the result is malformed: %s", errNotFound, err.Error())
	}
	if _, err := d.allHeld(ctx, fn, files); err != nil {
		return err
	}
	found, err := d.allHeld(ctx, fn, trees)
	if err != nil {
		return err
	}
	for _, name := range trees {
		tree, ok := found[name]
		if !ok {
			continue // the empty one
		}
		err := d.completeFiles(ctx, fn, func(visit func(*repb.Directory) error) error { return d.walkTree(ctx, tree, visit) })
		if err != nil {
			return err
		}
	}
	for _, root := range roots {
		err := d.completeFiles(ctx, fn, func(visit func(*repb.Directory) error) error {
			return d.walkDirectories(ctx, fn, root, visit, func() error { return fmt.Errorf("%w: a directory of %s", errNotFound, root) })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// named returns what a result names: blobs, Trees, and root Directories.
func named(r *repb.ActionResult) (files, trees, roots []digest.Digest, err error) {
	add := func(to *[]digest.Digest, p *repb.Digest) {
		name, bad := parseDigest(p)
		if bad != nil {
			err = bad
		}
		*to = append(*to, name)
	}
	for _, f := range r.OutputFiles {
		add(&files, f.Digest)
	}
	for _, p := range []*repb.Digest{r.StdoutDigest, r.StderrDigest} {
		if p != nil {
			add(&files, p)
		}
	}
	for _, o := range r.OutputDirectories {
		if o.TreeDigest != nil || o.RootDirectoryDigest == nil {
			add(&trees, o.TreeDigest)
		}
		if o.RootDirectoryDigest != nil {
			add(&roots, o.RootDirectoryDigest)
		}
	}
	return files, trees, roots, err
}

// allHeld returns blobs and makes them live on, or errNotFound where one of them
// is not there.
func (d *Door) allHeld(ctx context.Context, fn function, names []digest.Digest) (map[digest.Digest]index.Blob, error) {
	found, err := d.findHeld(ctx, fn, names)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if _, ok := found[name]; !ok && !fn.isEmpty(name) {
			return nil, fmt.Errorf("%w: blob %s, which the result names", errNotFound, name)
		}
	}
	return found, nil
}

// completeFiles returns errNotFound unless all files of the directories that walk
// visits are there.
func (d *Door) completeFiles(ctx context.Context, fn function, walk func(visit func(*repb.Directory) error) error) error {
	var files []digest.Digest
	check := func() error {
		_, err := d.allHeld(ctx, fn, files)
		files = files[:0]
		return err
	}
	err := walk(func(dir *repb.Directory) error {
		for _, f := range dir.Files {
			name, err := parseDigest(f.Digest)
			if err != nil {
				return err
			}
			files = append(files, name)
		}
		if len(files) < findStep {
			return nil
		}
		return check()
	})
	var missing *cas.MissingChunksError
	switch {
	case errors.Is(err, cas.ErrDamaged):
	case errors.Is(err, errInvalid), errors.Is(err, index.ErrNotFound), errors.As(err, &missing):
		// That it is the stored bytes' fault, not the client's, is why it is not wrapped.
		return fmt.Errorf("%w: a tree that the result names: %s", errNotFound, err.Error())
	}
	if err != nil {
		return err
	}
	return check()
}

// inline puts into a result what was asked for and is small.
func (d *Door) inline(ctx context.Context, fn function, r *repb.GetActionResultRequest, result *repb.ActionResult) error {
	into := map[digest.Digest][]*[]byte{}
	var asked []digest.Digest
	room := int64(maxInline)
	add := func(p *repb.Digest, to *[]byte) {
		name, err := parseDigest(p)
		if err != nil || len(*to) > 0 || name.Size > room || fn.isEmpty(name) {
			return
		}
		room -= name.Size
		into[name] = append(into[name], to)
		asked = append(asked, name)
	}
	if r.InlineStdout && result.StdoutDigest != nil {
		add(result.StdoutDigest, &result.StdoutRaw)
	}
	if r.InlineStderr && result.StderrDigest != nil {
		add(result.StderrDigest, &result.StderrRaw)
	}
	for _, f := range result.OutputFiles {
		if slices.Contains(r.InlineOutputFiles, f.Path) {
			add(f.Digest, &f.Contents)
		}
	}
	if len(asked) == 0 {
		return nil
	}
	found, err := d.find(ctx, fn, asked)
	if err != nil {
		return err
	}
	read, err := d.readAll(ctx, found)
	if err != nil {
		return err
	}
	for name, c := range read {
		if c.err != nil {
			continue // the client will ask for it, and be told
		}
		for _, to := range into[name] {
			*to = c.data
		}
	}
	return nil
}

// UpdateActionResult implements repb.ActionCacheServer.
func (c actionCache) UpdateActionResult(ctx context.Context, r *repb.UpdateActionResultRequest) (*repb.ActionResult, error) {
	if _, err := c.begin(ctx, r.InstanceName, r.DigestFunction, true); err != nil {
		return nil, err
	}
	name, err := parseDigest(r.ActionDigest)
	if err != nil {
		return nil, err
	}
	if r.ActionResult == nil {
		return nil, fmt.Errorf("%w: there is no result", errInvalid)
	}
	if _, _, _, err := named(r.ActionResult); err != nil {
		return nil, err
	}
	encoded, err := googleproto.Marshal(r.ActionResult)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errInvalid, err)
	}
	if err := c.putResult(ctx, r.InstanceName, name.Hash, encoded); err != nil {
		return nil, err
	}
	return r.ActionResult, nil
}

func (d *Door) putResult(ctx context.Context, instance string, action digest.Hash, encoded []byte) error {
	if len(encoded) > maxResult {
		return fmt.Errorf("%w: a result of %d bytes, the limit is %d", errTooLarge, len(encoded), maxResult)
	}
	return d.index.Update(ctx, func(tx index.Tx) error {
		return tx.PutAction(index.Action{Instance: instance, Digest: action, Result: encoded})
	})
}
