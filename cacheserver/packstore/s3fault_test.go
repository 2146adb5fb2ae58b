package packstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/s3test"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// impatient is how long tests wait for a server that does not answer.
const impatient = 5 * time.Second

func openImpatient(t *testing.T, c packstore.S3Config) *packstore.S3 {
	t.Helper()
	s, err := packstore.OpenS3Impatient(t.Context(), c, impatient)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// allFail calls every method and wants ErrUnavailable of each.
func allFail(t *testing.T, s packstore.Store) {
	t.Helper()
	ctx := t.Context()
	var wg sync.WaitGroup
	for what, call := range map[string]func() error{
		"Open": func() error {
			_, err := s.Open(ctx, "a", 0, 1)
			return err
		},
		"Open of nothing": func() error {
			_, err := s.Open(ctx, "a", 0, 0)
			return err
		},
		"Size": func() error {
			_, err := s.Size(ctx, "a")
			return err
		},
		"List":   func() error { return s.List(ctx, func(string, int64) error { return nil }) },
		"Delete": func() error { return s.Delete(ctx, "a") },
		"Put":    func() error { return s.Put(ctx, "c", 5, strings.NewReader("12345")) },
		"Put of what is read once": func() error {
			return s.Put(ctx, "d", 5, io.MultiReader(strings.NewReader("12345")))
		},
	} {
		wg.Go(func() {
			err := call()
			if !errors.Is(err, packstore.ErrUnavailable) {
				t.Errorf("%s: %v, want ErrUnavailable", what, err)
			}
			for _, other := range []error{io.EOF, io.ErrUnexpectedEOF, context.Canceled, context.DeadlineExceeded} {
				if errors.Is(err, other) {
					t.Errorf("%s: %v looks like a pack's end, or the caller's own", what, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestAStoreOutlivesItsServer(t *testing.T) {
	t.Parallel()
	server := s3test.Versitygw(t)
	c := config(t, server)
	s := openImpatient(t, c)
	put(t, s, "a", "12345")
	server.Stop(t)
	allFail(t, s)
	if _, err := packstore.OpenS3(t.Context(), c); !errors.Is(err, packstore.ErrUnavailable) || !strings.Contains(err.Error(), server.Endpoint) {
		t.Errorf("opening without a server: %v, want ErrUnavailable with its address", err)
	}
	server.Start(t)
	want(t, s, "a", []byte("12345"), 0, 5)
	put(t, s, "b", "12345")
}

func TestAServerThatDoesNotAnswerHoldsUpNoCall(t *testing.T) {
	t.Parallel()
	server := s3test.Versitygw(t)
	s := openImpatient(t, config(t, server))
	put(t, s, "a", "12345")
	server.Pause(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if _, err := s.Size(ctx, "a"); !errors.Is(err, context.Canceled) || errors.Is(err, packstore.ErrUnavailable) {
		t.Errorf("a caller that gave up: %v, want context.Canceled", err)
	}
	allFail(t, s)
	server.Resume(t)
	put(t, s, "b", "12345")
	want(t, s, "b", []byte("12345"), 0, 5)
}

func TestAServerThatVanishesInTheMiddleOfAPackIsNoEndOfIt(t *testing.T) {
	t.Parallel()
	server := s3test.Versitygw(t)
	s := openImpatient(t, config(t, server))
	body := make([]byte, 32<<20) // more than is buffered on the way
	if err := s.Put(t.Context(), "a", int64(len(body)), bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	for what, vanish := range map[string]func(testing.TB){"stops": server.Stop, "hangs": server.Pause} {
		r, err := s.Open(t.Context(), "a", 0, int64(len(body)))
		if err != nil {
			t.Fatal(err)
		}
		vanish(t)
		n, err := io.Copy(io.Discard, r)
		_ = r.Close()
		if !errors.Is(err, packstore.ErrUnavailable) || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a server that %s: %d bytes, then %v; want ErrUnavailable", what, n, err)
		}
		server.Stop(t)
		server.Start(t)
	}
}

func TestCachedBlocksAreServedWhileTheServerIsAway(t *testing.T) {
	t.Parallel()
	server := s3test.Versitygw(t)
	c := openCached(t, t.TempDir(), 16*block, openImpatient(t, config(t, server)))
	body := putFar(t, c, "a", 2*block)
	want(t, c, "a", body, 0, block)
	server.Stop(t)
	want(t, c, "a", body, 10, block-10)
	if _, err := c.Open(t.Context(), "a", block, 1); !errors.Is(err, packstore.ErrUnavailable) {
		t.Errorf("the other block: %v, want ErrUnavailable", err)
	}
	server.Start(t)
	want(t, c, "a", body, 0, len(body))
}

// through returns the address of a proxy to a server, which treats requests as
// it likes.
func through(t *testing.T, server *s3test.Server, treat func(w http.ResponseWriter, r *http.Request, pass http.Handler)) string {
	t.Helper()
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	// The host stays as it came: it is signed.
	pass := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
		r.Out.Host = r.In.Host
	}}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { treat(w, r, pass) }))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

func TestAPutWhoseAnswerWasLostIsNotRefusedAsASecond(t *testing.T) {
	t.Parallel()
	server := s3test.Versitygw(t)
	c := config(t, server)
	var lose atomic.Int32
	c.Endpoint = through(t, server, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if r.Method == http.MethodPut && lose.Add(-1) >= 0 {
			pass.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		pass.ServeHTTP(w, r)
	})
	s := openS3(t, c)
	for name, body := range map[string]io.Reader{"a": strings.NewReader("12345"), "b": io.MultiReader(strings.NewReader("12345"))} {
		lose.Store(1)
		if err := s.Put(t.Context(), name, 5, body); err != nil {
			t.Errorf("%T: %v", body, err)
		}
		lose.Store(1)
		if err := s.Put(t.Context(), name, 5, strings.NewReader("other")); !errors.Is(err, packstore.ErrExists) {
			t.Errorf("a second Put: %v, want ErrExists", err)
		}
		want(t, s, name, []byte("12345"), 0, 5)
	}
}

func TestAPutThatFailsOnTheWayIsTriedAgain(t *testing.T) {
	t.Parallel()
	server := s3test.Versitygw(t)
	c := config(t, server)
	var fail atomic.Int32
	c.Endpoint = through(t, server, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if r.Method == http.MethodPut && fail.Add(-1) >= 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		pass.ServeHTTP(w, r)
	})
	s := openS3(t, c)
	fail.Store(2)
	put(t, s, "a", "12345")
	want(t, s, "a", []byte("12345"), 0, 5)
	fail.Store(3)
	if err := s.Put(t.Context(), "b", 5, strings.NewReader("12345")); !errors.Is(err, packstore.ErrUnavailable) {
		t.Errorf("three failures: %v, want ErrUnavailable", err)
	}
	fail.Store(1)
	once := io.MultiReader(strings.NewReader("12345"))
	if err := s.Put(t.Context(), "c", 5, once); !errors.Is(err, packstore.ErrUnavailable) {
		t.Errorf("a body that is gone: %v, want ErrUnavailable", err)
	}
	if n, err := s.Size(t.Context(), "c"); !errors.Is(err, packstore.ErrNotFound) {
		t.Errorf("it has %d bytes, %v", n, err)
	}
}

// oldS3 is the little of S3 that a Put needs, without conditions.
type oldS3 struct {
	mu      sync.Mutex
	objects map[string]bool
	refuses bool // conditions; else it passes them over
}

func (o *oldS3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = io.Copy(io.Discard, r.Body)
	switch {
	case r.URL.Query().Has("location"):
		fmt.Fprint(w, `<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></LocationConstraint>`)
	case r.URL.Query().Has("list-type"):
		fmt.Fprint(w, `<ListBucketResult></ListBucketResult>`)
	case r.Method == http.MethodPut && r.Header.Get("If-None-Match") != "" && o.refuses:
		w.WriteHeader(http.StatusNotImplemented)
		fmt.Fprint(w, `<Error><Code>NotImplemented</Code></Error>`)
	case r.Method == http.MethodPut:
		o.objects[r.URL.Path] = true
	case strings.Count(r.URL.Path, "/") > 2 && !o.objects[r.URL.Path]:
		w.WriteHeader(http.StatusNotFound)
	default:
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Length", "5")
	}
}

func TestWhereConditionsMeanNothingPutLooksFirst(t *testing.T) {
	t.Parallel()
	for _, refuses := range []bool{false, true} {
		server := httptest.NewServer(&oldS3{objects: map[string]bool{}, refuses: refuses})
		defer server.Close()
		s := openS3(t, packstore.S3Config{Endpoint: server.URL, Bucket: "packs", Prefix: "x", AccessKeyID: "id", SecretAccessKey: "secret"})
		put(t, s, "a", "12345")
		if err := s.Put(t.Context(), "a", 5, strings.NewReader("other")); !errors.Is(err, packstore.ErrExists) {
			t.Errorf("refuses conditions: %v; a second Put: %v, want ErrExists", refuses, err)
		}
	}
}

func TestABucketThatIsGoneIsNotTakenForLostPacks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := s3test.VersitygwOn(t, dir)
	c := config(t, server)
	s := openS3(t, c)
	put(t, s, "a", "12345")
	if err := os.Rename(filepath.Join(dir, c.Bucket), filepath.Join(dir, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	_, openErr := s.Open(t.Context(), "a", 0, 1)
	_, sizeErr := s.Size(t.Context(), "a")
	for what, err := range map[string]error{
		"Open": openErr,
		"Size": sizeErr,
		"List": s.List(t.Context(), func(string, int64) error { return nil }),
		"Put":  s.Put(t.Context(), "b", 1, strings.NewReader("1")),
	} {
		if err == nil || errors.Is(err, packstore.ErrNotFound) || !strings.Contains(err.Error(), "no such bucket") {
			t.Errorf("%s: %v, want an error about the bucket", what, err)
		}
	}
}

func TestListPassesOverWhatIsNoPackAndGoesOnForPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := s3test.VersitygwOn(t, dir)
	c := config(t, server)
	c.Prefix = ""
	s := openS3(t, c)
	const packs = 2100 // a page has 1000
	bucket := filepath.Join(dir, c.Bucket)
	for i := range packs {
		if err := os.WriteFile(filepath.Join(bucket, fmt.Sprintf("p%d.pack", i)), []byte("12345"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, other := range []string{"README", "Upper.pack", "pack", "a.b.pack"} {
		if err := os.WriteFile(filepath.Join(bucket, other), []byte("no pack"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.Prefix = "deeper"
	put(t, openS3(t, c), "elsewhere", "1")
	seen := map[string]bool{}
	if err := s.List(t.Context(), func(name string, size int64) error {
		if !strings.HasPrefix(name, "p") || size != 5 || seen[name] {
			t.Errorf("listed %s of %d bytes", name, size)
		}
		seen[name] = true
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != packs {
		t.Errorf("%d packs, want %d", len(seen), packs)
	}
}

func TestPresignGivesAURLThatNeedsNoKeys(t *testing.T) {
	t.Parallel()
	s := openS3(t, config(t, s3test.Versitygw(t)))
	put(t, s, "a", "12345")
	var p packstore.Presigner = openCached(t, t.TempDir(), packstore.MinCached, s)
	u, err := p.Presign(t.Context(), "a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(u)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); string(b) != "12345" || err != nil {
		t.Errorf("%s: %q, %v", resp.Status, b, err)
	}
	if _, err := s.Presign(t.Context(), "../a", time.Minute); err == nil {
		t.Error("a bad name: no error")
	}
	p = openCached(t, t.TempDir(), packstore.MinCached, openDisk(t, t.TempDir()))
	if _, err := p.Presign(t.Context(), "a", time.Minute); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("over a disk: %v", err)
	}
}

func TestAnAddressWhereNobodyListensIsUnavailable(t *testing.T) {
	t.Parallel()
	s, err := packstore.NewS3(packstore.S3Config{
		// No other test is given port 1.
		Endpoint: "http://127.0.0.1:1", Bucket: "packs", AccessKeyID: "id", SecretAccessKey: "secret",
	})
	if err != nil {
		t.Fatal(err)
	}
	allFail(t, s)
}
