package verify

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
)

// remove deletes what was pushed. A token that may not, or a cache that takes no
// deletion, leaves it to retention and is no fault: clients need neither.
func (c *cache) remove(ctx context.Context) (string, error) {
	target := c.base.JoinPath(storepath.Hash(c.trip.info.StorePath) + ".narinfo")
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, target.String(), nil)
	if err != nil {
		return "", fmt.Errorf("deleting what was pushed: %w", err)
	}
	c.sign(req)
	resp, err := c.client.Do(req)
	if err != nil {
		return "", transportFault(ctx, err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, maxCacheInfo))
	if err != nil {
		return "", transportFault(ctx, err)
	}
	switch resp.StatusCode {
	case http.StatusNoContent:
		return path.Base(c.trip.info.StorePath), nil
	case http.StatusUnauthorized, http.StatusForbidden:
		return "", fmt.Errorf("%w: it is left to retention: the token has not the right to delete", check.ErrSkip)
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return "", fmt.Errorf("%w: it is left to retention: the cache takes no deletion", check.ErrSkip)
	}
	f := statusFault(resp.StatusCode, string(said))
	f.reason = "deleting what was pushed: " + f.reason
	return "", f
}
