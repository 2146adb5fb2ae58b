package index_test

import (
	"os"
	"path/filepath"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index/indextest"
)

func openSQLite(t testing.TB, file string) *index.SQLite {
	t.Helper()
	x, err := index.OpenSQLite(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func TestSQLiteConformance(t *testing.T) {
	t.Parallel()
	indextest.Run(t, func(t *testing.T) (index.Index, func() index.Index) {
		file := filepath.Join(t.TempDir(), "with space and ?", "index.sqlite")
		if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		return openSQLite(t, file), func() index.Index { return openSQLite(t, file) }
	})
}

func BenchmarkSQLite(b *testing.B) {
	indextest.Bench(b, func(b *testing.B) index.Index {
		return openSQLite(b, filepath.Join(b.TempDir(), "index.sqlite"))
	})
}
