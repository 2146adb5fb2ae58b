package nixcache

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// A client that announces a body and then sends nothing holds memory that
// others wait for.
func TestABodyThatDoesNotComeIsGivenUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	idx, err := index.OpenSQLite(t.Context(), filepath.Join(dir, "index.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idx.Close() }()
	packs, err := packstore.OpenDisk(filepath.Join(dir, "packs"))
	if err != nil {
		t.Fatal(err)
	}
	store := cas.New(packs, idx, cas.DefaultGrace)
	defer store.Close()
	if _, err := EnsureCache(t.Context(), idx, "main", "/nix/store"); err != nil {
		t.Fatal(err)
	}
	d := New(store, idx, Config{DefaultCache: "main", Log: slog.New(slog.DiscardHandler)})
	d.patience = 50 * time.Millisecond
	everyone, err := auth.New(auth.Config{}, d.log)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(everyone.Middleware(d.Handler()))
	defer server.Close()

	for _, route := range []string{"missing-paths", "missing-chunks", "chunks", "paths"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /_push/v1/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 64\r\n\r\n", route)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", route, err)
		}
		if resp.StatusCode != http.StatusRequestTimeout {
			t.Errorf("%s: %s, want 408", route, resp.Status)
		}
		_ = resp.Body.Close()
		_ = conn.Close()
	}
}
