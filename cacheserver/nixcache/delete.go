package nixcache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// errNeeded is a path's that cannot be removed by itself.
var errNeeded = errors.New("paths of the cache refer to it, or it is pinned")

// deleteFile removes a path by its narinfo, whenever it was used, unless others of the
// cache refer to it or it is pinned. No protocol of Nix has it: it is what the right
// "d" of Attic's tokens is for. Other replicas may tell of the path for as long as they
// remember narinfos.
func (d *Door) deleteFile(w http.ResponseWriter, r *http.Request, c *cache) error {
	file := r.PathValue("file")
	hash, ok := strings.CutSuffix(file, narinfoSuffix)
	if !ok {
		return fmt.Errorf("to remove %.80q is %w: a path is removed by its narinfo", file, errUnsupported)
	}
	if err := storepath.CheckHash(hash); err != nil {
		return err
	}
	if err := d.deletePath(r.Context(), c, hash); err != nil {
		return d.gone(c, err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *Door) deletePath(ctx context.Context, c *cache, hash string) error {
	p, err := d.index.Path(ctx, c.ID, hash)
	if errors.Is(err, index.ErrNotFound) {
		return errNoSuchFile
	}
	if err != nil {
		return err
	}
	var removed []string
	if err := d.index.Update(ctx, func(tx index.Tx) (err error) {
		removed, _, err = tx.RemoveUnused(c.ID, []string{hash}, index.WheneverUsed())
		return err
	}); err != nil {
		return err
	}
	d.commits.Add(1)
	d.narinfos.Remove(pathKey{c.ID, hash})
	d.nars.Remove(narKey{c.ID, p.NAR.Hash})
	if len(removed) > 0 {
		return nil
	}
	if _, err := d.index.Path(ctx, c.ID, hash); errors.Is(err, index.ErrNotFound) {
		return nil // another was faster
	}
	return fmt.Errorf("%s-%s: %w", hash, p.Name, errNeeded)
}
