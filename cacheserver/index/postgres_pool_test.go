package index_test

import (
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/pgtest"
)

// Ten replicas on machines of 64 processors would take all that a database has.
func TestReplicasTakeFewConnectionsOrAsManyAsTheirURLSays(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	more := "?"
	if strings.Contains(url, "?") {
		more = "&"
	}
	for url, want := range map[string]func(int32) bool{
		url:                              func(n int32) bool { return n >= 1 && n <= 16 },
		url + more + "pool_max_conns=23": func(n int32) bool { return n == 23 },
	} {
		x, err := index.OpenPostgres(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		if n := x.Pools()["read"].MaxConns(); !want(n) {
			t.Errorf("%s: %d connections read", url, n)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
}
