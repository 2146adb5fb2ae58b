package embedded_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/embedded"
)

// The data of one's own builds would grow for ever otherwise.
func TestItCollectsOnceADay(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	mark := filepath.Join(data, "collected")
	var log bytes.Buffer
	run := func(until func() bool) {
		t.Helper()
		log.Reset()
		s, err := embedded.Start(t.Context(), cacheserver.Config{Data: data, StoreDir: "/nix/store", Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); !until() && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	marked := func() time.Time {
		info, err := os.Stat(mark)
		if err != nil {
			return time.Time{}
		}
		return info.ModTime()
	}
	run(func() bool { return !marked().IsZero() })
	if strings.Contains(log.String(), "collected") {
		t.Errorf("the first run collects: %s", &log)
	}
	for age, want := range map[time.Duration]bool{23 * time.Hour: false, 25 * time.Hour: true} {
		then := time.Now().Add(-age)
		if err := os.Chtimes(mark, then, then); err != nil {
			t.Fatal(err)
		}
		run(func() bool { return !want || time.Since(marked()) < time.Hour })
		if got := strings.Contains(log.String(), "msg=collected"); got != want {
			t.Errorf("after %v: %s", age, &log)
		}
	}
}

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
