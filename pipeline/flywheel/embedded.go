package flywheel

import (
	"context"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/embedded"
)

// startCache starts the embedded server where no cache was named.
func (r *run) startCache(ctx context.Context) []string {
	if len(r.Caches) > 0 {
		return r.Caches
	}
	began := r.console.begin("cache")
	e, err := embedded.Start(ctx, cacheserver.Config{Data: r.Data, StoreDir: r.store.Dir, Log: r.Log})
	if err != nil {
		r.fault("the embedded cache server does not start: %v", err)
		return nil
	}
	r.embedded = e
	r.console.step("cache", began, "embedded server at %s, data in %s", e.URL, r.Data)
	return []string{e.URL}
}
