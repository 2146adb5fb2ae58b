package cacheserver_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// serving runs a server until stop is called; change is called before it serves.
func serving(t *testing.T, c cacheserver.Config, change ...func(*cacheserver.Server)) (url string, stop context.CancelFunc, ended *errgroup.Group) {
	t.Helper()
	s, err := cacheserver.Open(t.Context(), c)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	for _, f := range change {
		f(s)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended = new(errgroup.Group)
	ended.Go(func() error { return s.Serve(ctx, l) })
	t.Cleanup(func() {
		stop()
		_ = ended.Wait()
	})
	return "http://" + l.Addr().String(), stop, ended
}

const query = `{"hashes":[]}`

// underWay makes a request that the server is at work on, and that wants query as
// its body.
func underWay(t *testing.T, url string) (net.Conn, *bufio.Reader) {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "POST /main/_push/v1/missing-paths HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", len(query))
	must(t, err)
	answer := bufio.NewReader(conn)
	resp, err := http.ReadResponse(answer, nil)
	must(t, err)
	if resp.Body.Close(); resp.StatusCode != http.StatusContinue {
		t.Fatal(resp.Status)
	}
	return conn, answer
}

func asks(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(body)
}

func TestReadinessNamesTheDependencyThatIsAway(t *testing.T) {
	t.Parallel()
	url, _, _ := serving(t, cacheserver.Config{Data: t.TempDir()})
	if code, body := asks(t, url+"/readyz"); code != http.StatusOK || body != "ready\nindex: ok\npacks: ok\n" {
		t.Errorf("%d %q", code, body)
	}
	url, _, _ = serving(t, cacheserver.Config{
		Data: t.TempDir(), Storage: "s3://packs",
		// No other test is given port 1.
		S3: packstore.S3Config{Endpoint: "http://127.0.0.1:1", Region: "here", AccessKeyID: "id", SecretAccessKey: "secret"},
	})
	if code, body := asks(t, url+"/readyz"); code != http.StatusServiceUnavailable || body != "not ready\nindex: ok\npacks: away\n" {
		t.Errorf("%d %q", code, body)
	}
	if code, body := asks(t, url+"/readyz?degraded=ok"); code != http.StatusOK || body != "degraded\nindex: ok\npacks: away\n" {
		t.Errorf("%d %q", code, body)
	}
	if code, _ := asks(t, url+"/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
}

// A load balancer that asks /readyz must learn that the server is going before
// connections are refused, and a request that is under way must be answered.
func TestReadinessGoesBeforeTheServerDoes(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	end := sync.OnceFunc(func() { close(over) })
	defer end()
	url, stop, ended := serving(t, cacheserver.Config{Data: t.TempDir(), Drain: cacheserver.Drain{Delay: time.Hour}}, func(s *cacheserver.Server) {
		s.DelayBy(func(d time.Duration) {
			if d != time.Hour {
				t.Errorf("it goes on for %v", d)
			}
			<-over
		})
	})
	conn, answer := underWay(t, url)
	stop()
	for {
		code, text := asks(t, url+"/readyz?degraded=ok")
		if code == http.StatusServiceUnavailable && text == "draining\n" {
			break
		}
		if !strings.HasPrefix(text, "ready\n") {
			t.Fatalf("%d %q", code, text)
		}
	}
	if code, _ := asks(t, url+"/nix-cache-info"); code != http.StatusOK {
		t.Errorf("while it drains: %d", code)
	}
	end()
	_, err := io.WriteString(conn, query)
	must(t, err)
	resp, err := http.ReadResponse(answer, nil)
	must(t, err)
	if resp.Body.Close(); resp.StatusCode != http.StatusOK {
		t.Errorf("the request under way: %s", resp.Status)
	}
	must(t, ended.Wait())
}

func TestRequestsThatDoNotEndAreBrokenOff(t *testing.T) {
	t.Parallel()
	url, stop, ended := serving(t, cacheserver.Config{Data: t.TempDir(), Drain: cacheserver.Drain{Time: 100 * time.Millisecond}})
	_, answer := underWay(t, url)
	stop()
	if err := ended.Wait(); err == nil || !strings.Contains(err.Error(), "broken off after 100ms") {
		t.Errorf("%v", err)
	}
	if text, err := io.ReadAll(answer); len(text) > 0 {
		t.Errorf("answered with %q, %v", text, err)
	}
}

func TestDeclaredCachesAreReconciled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	private, public, priority := false, true, 3
	open := func(declared ...cacheserver.DeclaredCache) *cacheserver.Server {
		s, err := cacheserver.Open(t.Context(), cacheserver.Config{Data: dir, Caches: declared})
		must(t, err)
		return s
	}
	s := open(cacheserver.DeclaredCache{Name: "main", CacheChange: cacheserver.CacheChange{Public: &private}}, cacheserver.DeclaredCache{Name: "a"})
	first, err := s.Index.Caches(t.Context())
	must(t, err)
	must(t, s.Close())
	s = open(cacheserver.DeclaredCache{Name: "main", CacheChange: cacheserver.CacheChange{Public: &public, Priority: &priority, UpstreamKeys: []string{}}})
	second, err := s.Index.Caches(t.Context())
	must(t, err)
	must(t, s.Close())
	if len(first) != 2 || first[1].Public || !first[0].Public || len(second) != 2 {
		t.Fatalf("%+v\n%+v", first, second)
	}
	if m := second[1]; !m.Public || m.Priority != 3 || len(m.UpstreamKeys) != 0 || m.SecretKeys[0] != first[1].SecretKeys[0] {
		t.Errorf("%+v", m)
	}
	_, err = cacheserver.Open(t.Context(), cacheserver.Config{Data: dir, StoreDir: "/gnu/store", Caches: []cacheserver.DeclaredCache{{Name: "a"}}})
	if err == nil || !strings.Contains(err.Error(), `the declared cache "a": it is for the store /nix/store, not /gnu/store`) {
		t.Error(err)
	}
}
