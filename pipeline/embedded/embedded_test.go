package embedded_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/embedded"
)

func TestItServesAnInterruptedRunAndNobodyAfterClose(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := embedded.Start(ctx, cacheserver.Config{Data: t.TempDir(), StoreDir: "/nix/store"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(s.URL, "http://127.0.0.1:") {
		t.Errorf("it listens at %s, where others may push", s.URL)
	}
	cancel()
	resp, err := http.Get(s.URL + "/nix-cache-info")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if resp, err := http.Get(s.URL + "/nix-cache-info"); err == nil {
		_ = resp.Body.Close()
		t.Error("it answers after it was closed")
	}
}
