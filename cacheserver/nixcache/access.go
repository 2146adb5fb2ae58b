package nixcache

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// open returns a cache for someone who may do that with it. Who has no right at
// all on the name does not learn whether there is one.
func (d *Door) open(ctx context.Context, right auth.Right, name string) (*cache, error) {
	subject := auth.SubjectOf(ctx)
	c, err := d.cache(ctx, name)
	switch {
	case errors.Is(err, errNoSuchCache):
		if !subject.Any(name) {
			return nil, subject.Check(right, name)
		}
		return nil, err
	case err != nil:
		return nil, err
	case c.Public:
		subject = subject.With(auth.Pull, name)
	}
	if err := subject.Check(right, name); err != nil {
		return nil, err
	}
	return c, nil
}

// gone makes of an error what it is when another server has destroyed the cache
// since this one looked it up.
func (d *Door) gone(c *cache, err error) error {
	if !errors.Is(err, index.ErrNotFound) {
		return err
	}
	d.caches.Remove(c.Name)
	return fmt.Errorf("%w %q any more", errNoSuchCache, c.Name)
}

// with finds the cache that a request is about, sees to it that the route's right
// is there (of several, one), and answers errors.
func (d *Door) with(handle func(http.ResponseWriter, *http.Request, *cache) error, rights ...auth.Right) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := d.open(r.Context(), rights[0], d.nameOf(r))
		for _, right := range rights[1:] {
			if errors.Is(err, auth.ErrForbidden) {
				c, err = d.open(r.Context(), right, d.nameOf(r))
			}
		}
		if err == nil {
			if c.Public && rights[0] == auth.Pull {
				w.Header().Set("X-Attic-Cache-Visibility", "public")
			}
			err = handle(w, r, c)
		}
		if err != nil {
			d.drain(w, r, err)
			d.fail(w, r, err)
		}
	}
}
