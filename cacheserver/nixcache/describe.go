package nixcache

import (
	"net/http"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
)

// PublicKeys are what clients of a cache may trust, the newest first, each as it
// stands in trusted-public-keys.
func PublicKeys(c index.Cache) ([]string, error) {
	keys, err := keysOf(c)
	if err != nil {
		return nil, err
	}
	return (&cache{c, keys}).publicKeys(), nil
}

// Narinfo is what clients of a cache are told of a path.
func Narinfo(c index.Cache, p index.Path) (*narinfo.NarInfo, error) {
	keys, err := keysOf(c)
	if err != nil {
		return nil, err
	}
	return narinfoOf(&cache{c, keys}, p), nil
}

// URL is where the client of a request reaches the root, with a slash at its end.
func (d *Door) URL(r *http.Request) string { return d.endpoint(r) }
