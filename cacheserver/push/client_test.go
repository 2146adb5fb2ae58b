package push_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
)

func serve(t *testing.T, h http.Handler) *push.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return client(t, s.URL+"/main/")
}

func client(t *testing.T, url string) *push.Client {
	t.Helper()
	c, err := push.NewClient(url)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func answer(w http.ResponseWriter, status int, body any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// reset breaks the connection off, so that the client's kernel sees a reset.
func reset(t *testing.T, w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func TestNewClient(t *testing.T) {
	t.Parallel()
	for url, ok := range map[string]bool{
		"http://host":            true,
		"http://host/":           true,
		"https://host:8080/main": true,
		"http://[::1]:8080/main": true,
		"":                       false,
		"host":                   false,
		"host:8080/main":         false,
		"/main":                  false,
		"file:///nix":            false,
		"s3://bucket":            false,
		"http://":                false,
		"http:///main":           false,
		"http://ho st":           false,
		"http://host:port":       false,
	} {
		c, err := push.NewClient(url)
		if (err == nil) != ok {
			t.Errorf("NewClient(%q): %v, want it valid: %v", url, err, ok)
		}
		if err == nil && c.URL() != strings.TrimSuffix(url, "/") {
			t.Errorf("NewClient(%q).URL() = %q", url, c.URL())
		}
	}
}

func TestInfo(t *testing.T) {
	t.Parallel()
	good := push.Info{Protocol: push.Version, Cache: "main", PublicKeys: []string{"main:x"}}
	newer := push.Info{Protocol: push.Version + 1}
	noCache := push.Error{Code: push.CodeNoSuchCache, Message: `there is no cache "main"`}
	for name, c := range map[string]struct {
		handler   http.HandlerFunc
		notSpoken bool
		status    int    // of the StatusError
		text      string // in the error
	}{
		"good":                      {handler: func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, good) }},
		"a web server without it":   {handler: http.NotFound, notSpoken: true, status: 404},
		"a server of GETs of files": {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(405) }, notSpoken: true, status: 405},
		"a web page":                {handler: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>Welcome") }, notSpoken: true, text: "Welcome"},
		"an empty page":             {handler: func(http.ResponseWriter, *http.Request) {}, notSpoken: true},
		"other JSON":                {handler: func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, map[string]any{"protocol": "x"}) }, notSpoken: true},
		"JSON of nothing":           {handler: func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, nil) }, notSpoken: true},
		"an unknown cache":          {handler: func(w http.ResponseWriter, _ *http.Request) { answer(w, 404, noCache) }, status: 404, text: "there is no cache"},
		"a newer version":           {handler: func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, newer) }, text: "version 2"},
		"a broken server":           {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, status: 503, text: "Service Unavailable"},
		"a login":                   {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, status: 401, text: "401"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			cl := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				if r.Method != http.MethodGet || r.URL.Path != "/main/_push/v1" {
					t.Errorf("%s %s", r.Method, r.URL.Path)
				}
				c.handler(w, r)
			}))
			info, err := cl.Info(t.Context())
			if name == "good" {
				if err != nil || info.Cache != good.Cache || !slices.Equal(info.PublicKeys, good.PublicKeys) {
					t.Errorf("got %+v, %v", info, err)
				}
				return
			}
			if err == nil {
				t.Fatalf("got %+v and no error", info)
			}
			if errors.Is(err, push.ErrNotSpoken) != c.notSpoken {
				t.Errorf("%v: is ErrNotSpoken %v, want %v", err, !c.notSpoken, c.notSpoken)
			}
			var status *push.StatusError
			if errors.As(err, &status) != (c.status != 0) || (status != nil && status.Status != c.status) {
				t.Errorf("%v: want status %d", err, c.status)
			}
			if !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v: want %q in it", err, c.text)
			}
			if n := requests.Load(); n != 1 {
				t.Errorf("%d requests, a probe is one", n)
			}
		})
	}
	t.Run("no server", func(t *testing.T) {
		t.Parallel()
		// No other test is given port 1.
		_, err := client(t, "http://user:secret@127.0.0.1:1").Info(t.Context())
		if err == nil || errors.Is(err, push.ErrNotSpoken) || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v, want the connection's error without the password", err)
		}
	})
}

// A request is tried three times where that may help, and once elsewhere.
func TestRetries(t *testing.T) {
	t.Parallel()
	status := func(n int) func(*testing.T, http.ResponseWriter) {
		return func(_ *testing.T, w http.ResponseWriter) { answer(w, n, push.Error{Code: "x", Message: "no luck"}) }
	}
	page := func(n int) func(*testing.T, http.ResponseWriter) {
		return func(_ *testing.T, w http.ResponseWriter) { w.WriteHeader(n); _, _ = io.WriteString(w, "<html>") }
	}
	cutOff := func(_ *testing.T, w http.ResponseWriter) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"missing":[`)
	}
	for name, c := range map[string]struct {
		fault  func(*testing.T, http.ResponseWriter)
		faults int32 // how many requests meet it
		want   int32 // requests in all
		err    string
	}{
		"500, then well":         {status(500), 2, 3, ""},
		"503, then well":         {status(503), 1, 2, ""},
		"502 of a proxy":         {page(502), 2, 3, ""},
		"429, then well":         {status(429), 1, 2, ""},
		"408, then well":         {status(408), 1, 2, ""},
		"reset, then well":       {reset, 2, 3, ""},
		"cut off, then well":     {cutOff, 2, 3, ""},
		"500 for ever":           {status(500), 99, 3, "HTTP 500: no luck"},
		"a proxy's 502 for ever": {page(502), 99, 3, "HTTP 502 Bad Gateway"},
		"reset for ever":         {reset, 99, 3, ":"},
		"cut off for ever":       {cutOff, 99, 3, "reading the answer"},
		"400":                    {status(400), 99, 1, "HTTP 400: no luck"},
		"404":                    {status(404), 99, 1, "HTTP 404: no luck"},
		"409":                    {status(409), 99, 1, "HTTP 409: no luck"},
		"413 of a proxy":         {page(413), 99, 1, "HTTP 413 Request Entity Too Large"},
		"501":                    {status(501), 99, 1, "HTTP 501: no luck"},
		"507":                    {status(507), 99, 1, "HTTP 507: no luck"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			cl := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if want := `{"hashes":["` + hashA + `"]}`; err != nil || string(body) != want {
					t.Errorf("the body is %q, %v; want %q at every try", body, err, want)
				}
				if requests.Add(1) <= c.faults {
					c.fault(t, w)
					return
				}
				answer(w, 200, push.PathsAnswer{Missing: []string{hashA}})
			}))
			got, err := cl.MissingPaths(t.Context(), []string{hashA})
			switch {
			case c.err == "" && (err != nil || !slices.Equal(got, []string{hashA})):
				t.Errorf("got %v, %v", got, err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || got != nil):
				t.Errorf("got %v, %v; want an error with %q", got, err, c.err)
			}
			if n := requests.Load(); n != c.want {
				t.Errorf("%d requests, want %d", n, c.want)
			}
			if sent := cl.SentBytes(); sent != int64(c.want)*int64(len(hashA)+len(`{"hashes":[""]}`)) {
				t.Errorf("%d bytes sent in %d requests", sent, c.want)
			}
		})
	}
}

func TestAStatusErrorCarriesTheAnswer(t *testing.T) {
	t.Parallel()
	body := push.Error{Code: push.CodeMissingChunks, Message: "2 chunks are not stored", Limit: 7, Missing: []string{"a", "b"}}
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, 409, body) }))
	_, err := c.Commit(t.Context(), path(5), []digest.Chunk{chunk("hello")})
	var status *push.StatusError
	if !errors.As(err, &status) {
		t.Fatalf("got %v, want a StatusError", err)
	}
	if status.Status != 409 || fmt.Sprint(status.Body) != fmt.Sprint(body) {
		t.Errorf("got %+v", status)
	}
	if want := "committing: HTTP 409: 2 chunks are not stored"; err.Error() != want {
		t.Errorf("its text is %q, want %q", err, want)
	}
}

func TestARequestThatIsGivenUpIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var requests atomic.Int32
	c := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	}))
	_, err := c.MissingPaths(ctx, []string{hashA})
	if !errors.Is(err, context.Canceled) || errors.Is(err, push.ErrTooSlow) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// A server that does not answer costs its patience once, not three times.
func TestAServerThatHangs(t *testing.T) {
	t.Parallel()
	for name, hang := range map[string]func(w http.ResponseWriter){
		"before it answers": func(http.ResponseWriter) {},
		"in its answer": func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"missing":[`)
			_ = http.NewResponseController(w).Flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				_, _ = io.Copy(io.Discard, r.Body)
				hang(w)
				<-r.Context().Done()
			}))
			c.SetPatience(1)
			_, err := c.MissingPaths(t.Context(), []string{hashA})
			if !errors.Is(err, push.ErrTooSlow) {
				t.Errorf("got %v, want ErrTooSlow", err)
			}
			if n := requests.Load(); n > 1 {
				t.Errorf("%d requests, want 1 at most", n)
			}
			_, err = c.Info(t.Context())
			if !errors.Is(err, push.ErrTooSlow) || errors.Is(err, push.ErrNotSpoken) {
				t.Errorf("Info: got %v, want ErrTooSlow", err)
			}
		})
	}
}

func TestMissingPathsRefusesJunk(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"no JSON":              "<html>",
		"nothing":              "",
		"another type":         `{"missing":"all"}`,
		"numbers":              `{"missing":[1]}`,
		"a path that climbs":   `{"missing":["../../../../../../../../etc/hosts"]}`,
		"an empty hash":        `{"missing":[""]}`,
		"a hash in capitals":   `{"missing":["` + strings.ToUpper(hashA) + `"]}`,
		"a whole path":         `{"missing":["/nix/store/` + hashA + `-hello"]}`,
		"a good one and a bad": `{"missing":["` + hashA + `","x"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
			if got, err := c.MissingPaths(t.Context(), []string{hashA}); err == nil || got != nil {
				t.Errorf("got %q, %v; want an error", got, err)
			}
		})
	}
}

func TestMissingPathsOfVeryMany(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		var query push.PathsQuery
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, push.MaxPathsBody)).Decode(&query)
		if err != nil {
			t.Error(err)
		}
		answer(w, 200, push.PathsAnswer{Missing: query.Hashes})
	}))
	ask := make([]string, 100_001)
	for i := range ask {
		ask[i] = fmt.Sprintf("%032d", i)
	}
	got, err := c.MissingPaths(t.Context(), ask)
	if err != nil || !slices.Equal(got, ask) {
		t.Errorf("%d of %d, %v", len(got), len(ask), err)
	}
	if n := requests.Load(); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
	if got, err := c.MissingPaths(t.Context(), nil); len(got) != 0 || err != nil || requests.Load() != 2 {
		t.Errorf("of none: %v, %v", got, err)
	}
}

// chunkServer takes chunks as a server does, but keeps them in memory.
type chunkServer struct {
	t *testing.T

	mu       sync.Mutex
	chunks   map[digest.Hash][]byte
	queries  int
	stored   int // requests with chunks
	received int // chunks in them
}

func (s *chunkServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r.URL.Path {
	case "/main/_push/v1/missing-chunks":
		s.queries++
		asked, err := push.ReadHashes(r.Body, push.MaxChunksPerQuery)
		if err != nil {
			s.t.Error(err)
		}
		var missing []digest.Hash
		for _, h := range asked {
			if s.chunks[h] == nil {
				missing = append(missing, h)
			}
		}
		_, _ = w.Write(push.AppendHashes(nil, missing))
	case "/main/_push/v1/chunks":
		s.stored++
		frames, err := push.ReadFrames(http.MaxBytesReader(w, r.Body, push.MaxChunksBody))
		if err != nil { // perhaps of a client that has left
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		for _, f := range frames {
			plain, err := frame.Check(f, nil)
			if err != nil {
				s.t.Error(err)
			}
			s.chunks[f.Hash] = bytes.Clone(plain)
			s.received++
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		s.t.Errorf("a request for %s", r.URL.Path)
	}
}

func (s *chunkServer) join(chunks []digest.Chunk) []byte {
	var out []byte
	for _, c := range chunks {
		out = append(out, s.chunks[c.Hash]...)
	}
	return out
}

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func dumpOf(b []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	}
}

func TestUploadSendsWhatIsMissing(t *testing.T) {
	t.Parallel()
	unique := noise(9<<20+12345, 1)
	for name, c := range map[string]struct {
		nar     []byte
		size    int64 // as it is said to be
		average int
	}{
		"nothing":             {nil, 0, chunker.DefaultAverage},
		"a byte":              {[]byte("x"), 1, chunker.DefaultAverage},
		"several windows":     {unique, int64(len(unique)), chunker.DefaultAverage},
		"larger than said":    {unique[:3<<20], 1, chunker.DefaultAverage},
		"smaller than said":   {unique[:70_000], 1 << 40, chunker.DefaultAverage},
		"small chunks":        {unique[:100_000], 100_000, 1 << 10},
		"large chunks":        {unique, int64(len(unique)), 1 << 20},
		"the same ever again": {make([]byte, 9<<20), 9 << 20, chunker.DefaultAverage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &chunkServer{t: t, chunks: map[digest.Hash][]byte{}}
			cl := serve(t, s)
			chunks, err := cl.Upload(t.Context(), c.size, c.average, dumpOf(c.nar))
			must(t, err)
			if !bytes.Equal(s.join(chunks), c.nar) {
				t.Fatalf("the %d chunks listed do not make the NAR", len(chunks))
			}
			if n := len(s.chunks); name != "the same ever again" && s.received != n {
				t.Errorf("%d chunks were sent, %d are different", s.received, n)
			}
			before, stored, queries := cl.SentBytes(), s.stored, s.queries
			again, err := cl.Upload(t.Context(), c.size, c.average, dumpOf(c.nar))
			must(t, err)
			if !slices.Equal(again, chunks) {
				t.Error("a second upload lists other chunks")
			}
			if s.stored != stored || s.queries != 2*queries {
				t.Errorf("a second upload made %d requests with chunks and %d queries, want 0 and %d", s.stored-stored, s.queries-queries, queries)
			}
			if sent := cl.SentBytes() - before; sent != int64(digest.Size*len(chunks)) {
				t.Errorf("a second upload sent %d bytes, the hashes of %d chunks are %d", sent, len(chunks), digest.Size*len(chunks))
			}
		})
	}
}

func TestAChangeOfOneByteSendsAFewChunks(t *testing.T) {
	t.Parallel()
	s := &chunkServer{t: t, chunks: map[digest.Hash][]byte{}}
	c := serve(t, s)
	b := noise(3<<20, 2)
	_, err := c.Upload(t.Context(), int64(len(b)), chunker.DefaultAverage, dumpOf(b))
	must(t, err)
	before := s.received
	b[2<<20]++
	chunks, err := c.Upload(t.Context(), int64(len(b)), chunker.DefaultAverage, dumpOf(b))
	must(t, err)
	if !bytes.Equal(s.join(chunks), b) {
		t.Error("the chunks listed do not make the NAR")
	}
	if n := s.received - before; n == 0 || n > 5 {
		t.Errorf("%d chunks of %d were sent", n, len(chunks))
	}
}

func TestManyUploadsShareTheMemoryThereIs(t *testing.T) {
	t.Parallel()
	s := &chunkServer{t: t, chunks: map[digest.Hash][]byte{}}
	c := serve(t, s)
	b := noise(4<<20, 3)
	var g errgroup.Group
	for i := range 8 { // of 8 MiB each, in 32
		g.Go(func() error {
			mine := append(noise(1000, byte(i)), b...)
			chunks, err := c.Upload(t.Context(), int64(len(mine)), chunker.DefaultAverage, dumpOf(mine))
			if err != nil {
				return err
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if !bytes.Equal(s.join(chunks), mine) {
				return errors.New("the chunks listed do not make the NAR")
			}
			return nil
		})
	}
	must(t, g.Wait())
}

func TestUploadReturnsDumpsError(t *testing.T) {
	t.Parallel()
	gone := errors.New("the path was collected")
	for name, before := range map[string]int{"at once": 0, "in the first window": 100_000, "later": 9 << 20} {
		for what, fault := range map[string]error{"its own": gone, "an end of file": io.EOF, "wrapped": fmt.Errorf("dumping: %w", io.ErrUnexpectedEOF)} {
			t.Run(name+", "+what, func(t *testing.T) {
				t.Parallel()
				c := serve(t, &chunkServer{t: t, chunks: map[digest.Hash][]byte{}})
				chunks, err := c.Upload(t.Context(), 10<<20, chunker.DefaultAverage, func(w io.Writer) error {
					if _, err := w.Write(noise(before, 4)); err != nil {
						return err
					}
					return fault
				})
				if !errors.Is(err, fault) || chunks != nil {
					t.Errorf("got %d chunks, %v; want %v", len(chunks), err, fault)
				}
			})
		}
	}
}

// forever writes until the reader is gone.
func forever(w io.Writer) error {
	b := noise(1<<20, 5)
	for {
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("dumping: %w", err)
		}
		b[0]++
	}
}

func TestUploadStopsWhenTheServerFails(t *testing.T) {
	t.Parallel()
	s := &chunkServer{t: t, chunks: map[digest.Hash][]byte{}}
	refuse := func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusInsufficientStorage, push.Error{Code: push.CodeNoSpace, Message: "the disk is full"})
	}
	write := func(body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }
	}
	for name, c := range map[string]struct {
		missing, chunks http.HandlerFunc
		want            string
	}{
		"at the query":            {refuse, s.ServeHTTP, "asking which chunks are missing: HTTP 507: the disk is full"},
		"at the chunks":           {s.ServeHTTP, refuse, "sending chunks: HTTP 507: the disk is full"},
		"junk for an answer":      {write([]byte("<html>")), s.ServeHTTP, "asking which chunks are missing: malformed body"},
		"more than was asked for": {write(make([]byte, 1<<20)), s.ServeHTTP, "asking which chunks are missing: malformed body"},
		"after ten requests": {func() http.HandlerFunc {
			var n atomic.Int32
			return func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1) > 10 {
					refuse(w, r)
				} else {
					s.ServeHTTP(w, r)
				}
			}
		}(), s.ServeHTTP, "HTTP 507"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			mux.HandleFunc("POST /main/_push/v1/missing-chunks", c.missing)
			mux.HandleFunc("POST /main/_push/v1/chunks", c.chunks)
			cl := serve(t, mux)
			chunks, err := cl.Upload(t.Context(), 1<<30, chunker.DefaultAverage, forever)
			if err == nil || !strings.Contains(err.Error(), c.want) || chunks != nil {
				t.Errorf("got %d chunks, %v; want an error with %q", len(chunks), err, c.want)
			}
			// What it held of the client's memory is free again, or these would wait.
			var g errgroup.Group
			for range 4 {
				g.Go(func() error {
					_, err := cl.Upload(t.Context(), 1<<30, chunker.DefaultAverage, forever)
					if err == nil {
						return errors.New("no error")
					}
					return nil
				})
			}
			must(t, g.Wait())
		})
	}
}

func TestAnUploadCanBeGivenUp(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	c := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	}))
	chunks, err := c.Upload(ctx, 1<<30, chunker.DefaultAverage, forever)
	if !errors.Is(err, context.Canceled) || chunks != nil {
		t.Errorf("got %d chunks, %v; want context.Canceled", len(chunks), err)
	}
}

func TestAnAverageThatNoChunkerTakes(t *testing.T) {
	t.Parallel()
	c := serve(t, &chunkServer{t: t, chunks: map[digest.Hash][]byte{}})
	for _, average := range []int{0, -1, 1000, 1 << 30} {
		var param *chunker.ParamError
		if _, err := c.Upload(t.Context(), 1, average, forever); !errors.As(err, &param) {
			t.Errorf("average %d: got %v, want a ParamError", average, err)
		}
	}
}
