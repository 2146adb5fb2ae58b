package index_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// Two builds that begin at the same time begin with an index that is not there yet.
func TestManyOpenAnIndexThatIsNotThereYet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round := range 30 {
		file := filepath.Join(dir, fmt.Sprint(round))
		var g errgroup.Group
		for range 6 {
			g.Go(func() error {
				x, err := index.OpenSQLite(t.Context(), file)
				if err != nil {
					return err
				}
				if _, err := x.Caches(t.Context()); err != nil {
					return err
				}
				return x.Close()
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}
