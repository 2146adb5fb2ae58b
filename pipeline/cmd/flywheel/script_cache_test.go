package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// scriptServer is a cache server in the test's own process, between which and its
// clients faults can be set.
type scriptServer struct {
	inner *cacheserver.Server // nil of one of files
	next  http.Handler        // what it does without a fault
	http  *httptest.Server

	mu      sync.Mutex
	changed *sync.Cond
	fault   func(http.ResponseWriter, *http.Request) (answered bool) // nil for none
	commits int
	holds   bool // the fault is to hold requests
	held    int
	release chan struct{} // closed when requests are held no more
	closed  bool
}

// cmdCache starts a server, whose URL becomes the variable NAME: cache NAME
// [attic]. Its data are in $WORK/NAME. One of Attic's has no push protocol.
func cmdCache(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 || (len(args) == 2 && args[1] != "attic") {
		ts.Fatalf("usage: cache NAME [attic]")
	}
	inner, err := cacheserver.Open(context.Background(), cacheserver.Config{
		Data: filepath.Join(ts.Getenv("WORK"), args[0]), StoreDir: ts.Getenv("NIX_STORE_DIR"),
	})
	ts.Check(err)
	s := &scriptServer{inner: inner, next: inner.Handler(), release: make(chan struct{})}
	if len(args) == 2 {
		s.next = withoutPush(s.next)
	}
	s.changed = sync.NewCond(&s.mu)
	s.http = httptest.NewServer(s.handler())
	stateOf(ts).servers[args[0]] = s
	ts.Setenv(args[0], s.http.URL)
	ts.Setenv(args[0]+"_key", inner.PublicKey())
}

func withoutPush(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/_push/") {
			http.NotFound(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// cmdFiles serves a directory of files as a cache that cannot be pushed to:
// files NAME [writable]. The directory is $WORK/NAME. A writable one takes files
// by PUT, and nothing more.
func cmdFiles(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: files NAME [writable]")
	}
	s := &scriptServer{release: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	dir := filepath.Join(ts.Getenv("WORK"), args[0])
	s.next = http.FileServer(http.Dir(dir))
	if len(args) == 2 {
		s.next = takesFiles(dir, s.next)
	}
	s.http = httptest.NewServer(s.handler())
	stateOf(ts).servers[args[0]] = s
	ts.Setenv(args[0], s.http.URL)
}

func takesFiles(dir string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut {
			next.ServeHTTP(w, r)
			return
		}
		file := filepath.Join(dir, filepath.FromSlash(path.Clean(r.URL.Path)))
		text, err := io.ReadAll(r.Body)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(file), 0o755)
		}
		if err == nil {
			err = os.WriteFile(file, text, 0o644)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
}

func (s *scriptServer) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		fault := s.fault
		s.mu.Unlock()
		if fault != nil && fault(w, r) {
			return
		}
		rec := &statusRecorder{ResponseWriter: w}
		s.next.ServeHTTP(rec, r)
		if r.Method == http.MethodPost && path.Base(r.URL.Path) == "paths" && rec.status < 300 {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.commits++
			s.changed.Broadcast()
		}
	})
}

type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (r *statusRecorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (s *scriptServer) close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	s.mu.Unlock()
	s.setFault(nil, false)
	s.http.CloseClientConnections()
	s.http.Close()
	if s.inner != nil {
		_ = s.inner.Close()
	}
}

func (s *scriptServer) setFault(f func(http.ResponseWriter, *http.Request) bool, holds bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.holds, s.held = f, holds, 0
	close(s.release)
	s.release = make(chan struct{})
}

func serverOf(ts *testscript.TestScript, name string) *scriptServer {
	s := stateOf(ts).servers[name]
	if s == nil {
		ts.Fatalf("there is no cache %s", name)
	}
	return s
}

// cmdFault changes how a server answers from now on: fault NAME KIND [ARGUMENT]
//
//	none           as it should
//	all STATUS     with a status, whatever is asked
//	reads STATUS   with a status, to those who read
//	writes STATUS  with a status, to those who push
//	cut N          N more times as it should, then connections are cut
//	slow DURATION  each answer takes so long
//	trickle RATE   so many bytes a second, in both directions
//	page PART      with a page for people, where the URL's path has PART
//	garbage PART   with bytes that mean nothing, where the URL's path has PART
//	key KEY        that its public key is another, a string of JSON
//	hold           not at all, to those who push
func cmdFault(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fault NAME KIND [ARGUMENT]")
	}
	s := serverOf(ts, args[0])
	argument := strings.Join(args[2:], " ")
	number, numberErr := strconv.Atoi(argument)
	answer := func(w http.ResponseWriter) bool {
		http.Error(w, "out of order", number)
		return true
	}
	var f func(http.ResponseWriter, *http.Request) bool
	switch args[1] {
	case "none":
	case "all":
		ts.Check(numberErr)
		f = func(w http.ResponseWriter, _ *http.Request) bool { return answer(w) }
	case "reads":
		ts.Check(numberErr)
		f = func(w http.ResponseWriter, r *http.Request) bool {
			return !strings.Contains(r.URL.Path, "/_push/") && answer(w)
		}
	case "writes":
		ts.Check(numberErr)
		f = func(w http.ResponseWriter, r *http.Request) bool {
			return (r.Method == http.MethodPost || r.Method == http.MethodPut) && answer(w)
		}
	case "cut":
		ts.Check(numberErr)
		f = cutConnectionsAfter(number)
	case "slow":
		d, err := time.ParseDuration(argument)
		ts.Check(err)
		f = func(http.ResponseWriter, *http.Request) bool {
			time.Sleep(d)
			return false
		}
	case "trickle":
		ts.Check(numberErr)
		f = s.trickle(number)
	case "garbage":
		f = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, argument) {
				return false
			}
			_, _ = w.Write(bytes.Repeat([]byte{0xff, 0x00, 0x7b, 0x0a}, 1<<10))
			return true
		}
	case "key":
		f = s.tellKey(argument)
	case "hold":
		f = s.hold
	case "page":
		f = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, argument) {
				return false
			}
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = io.WriteString(w, "<!DOCTYPE html><h1>Sign in</h1>")
			return true
		}
	default:
		ts.Fatalf("there is no fault %s", args[1])
	}
	s.setFault(f, args[1] == "hold")
}

func cutConnectionsAfter(n int) func(http.ResponseWriter, *http.Request) bool {
	var mu sync.Mutex
	return func(w http.ResponseWriter, _ *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if n--; n >= 0 {
			return false
		}
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // the client sees a reset, as of a process that died
			}
			_ = conn.Close()
		}
		return true
	}
}

// trickle lets so many bytes a second through, each way.
func (s *scriptServer) trickle(rate int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		slowly := r.Clone(r.Context())
		slowly.Body = slowBody{r.Body, rate}
		s.next.ServeHTTP(slowWriter{w, rate}, slowly)
		return true
	}
}

// slowSteps is in how many parts a second's bytes go.
const slowSteps = 10

type slowBody struct {
	io.ReadCloser
	rate int
}

func (b slowBody) Read(p []byte) (int, error) {
	time.Sleep(time.Second / slowSteps)
	return b.ReadCloser.Read(p[:min(len(p), max(1, b.rate/slowSteps))])
}

type slowWriter struct {
	http.ResponseWriter
	rate int
}

func (w slowWriter) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		time.Sleep(time.Second / slowSteps)
		var m int
		m, err = w.ResponseWriter.Write(p[n:min(len(p), n+max(1, w.rate/slowSteps))])
		n += m
		if f, ok := w.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
	}
	return n, err
}

// tellKey answers with another public key where a client asks for it.
func (s *scriptServer) tellKey(key string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/_push/v1") {
			return false
		}
		rec := httptest.NewRecorder()
		s.next.ServeHTTP(rec, r)
		own := regexp.MustCompile(`"publicKeys":\["[^"]*"\]`)
		_, _ = w.Write(own.ReplaceAllLiteral(rec.Body.Bytes(), []byte(`"publicKeys":["`+key+`"]`)))
		return true
	}
}

// hold lets those who push wait until the fault is another.
func (s *scriptServer) hold(_ http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodPost {
		return false
	}
	s.mu.Lock()
	if !s.holds { // no more, since the request came
		s.mu.Unlock()
		return false
	}
	s.held++
	s.changed.Broadcast()
	release := s.release
	s.mu.Unlock()
	select {
	case <-release:
		return false
	case <-r.Context().Done():
		return true
	}
}

// cmdDown ends a server: connections to it are refused from then on.
func cmdDown(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: down NAME")
	}
	s := serverOf(ts, args[0])
	s.close()
	ts.Check(occupy(ts, s.http.Listener.Addr().(*net.TCPAddr).Port))
}

// occupy takes a port at which nobody listens, until the script ends: a server of
// another script would be given it.
func occupy(ts *testscript.TestScript, port int) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ts.Defer(func() { _ = syscall.Close(fd) })
	// Connections that the server had closed may linger.
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return err
	}
	return syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
}

// cmdPushed waits until a server has acknowledged so many paths: pushed NAME COUNT
func cmdPushed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: pushed NAME COUNT")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	s := serverOf(ts, args[0])
	if got := s.await(func() (int, bool) { return s.commits, s.commits >= n }); got < n {
		ts.Fatalf("%d paths were pushed to %s", got, args[0])
	}
}

// cmdHeld waits until a server holds a request: held NAME
func cmdHeld(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: held NAME")
	}
	s := serverOf(ts, args[0])
	if got := s.await(func() (int, bool) { return s.held, s.held > 0 }); got == 0 {
		ts.Fatalf("nobody pushes to %s", args[0])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = 0 // the next wait is for another
}

// await waits for a condition, which is looked at with the lock held.
func (s *scriptServer) await(condition func() (int, bool)) int {
	late := time.AfterFunc(patience, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changed.Broadcast()
	})
	defer late.Stop()
	began := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		n, ok := condition()
		if ok || time.Since(began) >= patience {
			return n
		}
		s.changed.Wait()
	}
}

// cmdServed sees whether a cache has paths, and sends them: [!] served URL PATH…
func cmdServed(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: [!] served URL PATH…")
	}
	for _, p := range args[1:] {
		if err := fetchPath(args[0], p); (err == nil) == neg {
			ts.Fatalf("%s at %s: %v", p, args[0], err)
		}
	}
}

var narURL = regexp.MustCompile(`(?m)^URL: (.*)$`)

func fetchPath(cache, storePath string) error {
	if storepath.CheckHash(path.Base(storePath)[:storepath.HashLen]) != nil {
		return fmt.Errorf("%q is no store path", storePath)
	}
	text, err := getURL(cache + "/" + storepath.Hash(storePath) + ".narinfo")
	if err != nil {
		return err
	}
	m := narURL.FindSubmatch(text)
	if m == nil {
		return errors.New("a narinfo without URL")
	}
	_, err = getURL(cache + "/" + string(m[1]))
	return err
}

func getURL(url string) ([]byte, error) {
	resp, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// cmdAwaitServed waits until a server that is a process of its own, which tells
// nobody, has a path: await-served URL PATH
func cmdAwaitServed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await-served URL PATH")
	}
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := fetchPath(args[0], args[1])
		if err == nil {
			return
		}
		if time.Since(began) > patience {
			ts.Fatalf("%s at %s: %v", args[1], args[0], err)
		}
	}
}
