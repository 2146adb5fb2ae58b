package index_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index/indextest"
)

func open(t *testing.T, file string) *index.SQLite {
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
		return open(t, file), func() index.Index { return open(t, file) }
	})
}

func TestAnIndexOfANewerVersionIsLeftAlone(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "index.sqlite")
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := index.OpenSQLite(t.Context(), file); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("got %v, want an error that says it is newer", err)
	}
}
