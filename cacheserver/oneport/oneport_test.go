package oneport_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/oneport"
)

// servers are both kinds behind one port. Both answer the health service.
type servers struct {
	address string

	mu   sync.Mutex
	seen []string // what the HTTP server was asked
}

func (s *servers) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

func start(t *testing.T, limits oneport.Limits) *servers {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &servers{address: l.Addr().String()}
	port := oneport.New(l, limits)
	own, over := grpc.NewServer(), grpc.NewServer()
	healthpb.RegisterHealthServer(own, health.NewServer())
	healthpb.RegisterHealthServer(over, health.NewServer())
	hs := &http.Server{
		Protocols: new(http.Protocols),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			s.seen = append(s.seen, fmt.Sprintf("%s %s HTTP/%d", r.Method, r.URL.Path, r.ProtoMajor))
			s.mu.Unlock()
			if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
				over.ServeHTTP(w, r)
				return
			}
			n, err := io.Copy(w, r.Body)
			if err != nil || n == 0 {
				fmt.Fprint(w, "nothing")
			}
		}),
	}
	hs.Protocols.SetHTTP1(true)
	hs.Protocols.SetUnencryptedHTTP2(true)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var g errgroup.Group
	g.Go(func() error { return port.Run(ctx) })
	g.Go(func() error {
		// A test may be over before this has begun.
		if err := own.Serve(port.GRPC); !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		if err := hs.Serve(port.HTTP); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	t.Cleanup(func() {
		cancel()
		own.GracefulStop()
		_ = hs.Close()
		over.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	return s
}

var patient = oneport.Limits{Preface: time.Minute, Idle: time.Minute}

func check(t *testing.T, address string, headers ...string) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx := metadata.AppendToOutgoingContext(t.Context(), headers...)
	for range 3 {
		a, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		if err != nil || a.Status != healthpb.HealthCheckResponse_SERVING {
			t.Fatalf("%v: %v", a, err)
		}
	}
}

func TestAClientOfGRPCGetsItsServer(t *testing.T) {
	t.Parallel()
	s := start(t, patient)
	check(t, s.address)
	if asked := s.asked(); len(asked) > 0 {
		t.Errorf("net/http was asked %v", asked)
	}
}

func TestWhatAProxySendsGoesToHTTP(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"x-forwarded-for", "via", "forwarded", "x-request-id", "x-envoy-expected-rq-timeout-ms"} {
		s := start(t, patient)
		check(t, s.address, header, "1")
		if asked := s.asked(); len(asked) != 3 {
			t.Errorf("%s: net/http was asked %v", header, asked)
		}
	}
}

func TestRequestsOfHTTPArriveWhole(t *testing.T) {
	t.Parallel()
	body := make([]byte, 3<<20)
	_, _ = rand.Read(body)
	for name, two := range map[string]bool{"HTTP/1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, patient)
			protocols := new(http.Protocols)
			protocols.SetHTTP1(!two)
			protocols.SetUnencryptedHTTP2(two)
			transport := &http.Transport{Protocols: protocols}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			for range 5 {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+s.address+"/echo", bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				resp, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || !bytes.Equal(got, body) || (resp.ProtoMajor == 2) != two {
					t.Fatalf("%s: %d bytes came back of %d, %v", resp.Proto, len(got), len(body), err)
				}
			}
		})
	}
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

func TestMethodsThatBeginLikeThePreface(t *testing.T) {
	t.Parallel()
	s := start(t, patient)
	for _, method := range []string{"P", "PR", "PRI", "PROPFIND", "PUT", "POST"} {
		c := dial(t, s.address)
		// One byte after the other: the port must not decide before it can.
		for _, b := range []byte(method + " /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") {
			if _, err := c.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		got, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(got) != "nothing" {
			t.Errorf("%s: %s %q", method, resp.Status, got)
		}
	}
}

// Java's client, which Bazel is, sends no request before it has settings.
func TestAClientThatWaitsForSettings(t *testing.T) {
	t.Parallel()
	s := start(t, patient)
	for _, proxied := range []bool{false, true} {
		c := dial(t, s.address)
		f := http2.NewFramer(c, c)
		if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
			t.Fatal(err)
		}
		if err := f.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		first, err := f.ReadFrame()
		if err != nil || first.Header().Type != http2.FrameSettings {
			t.Fatalf("the first frame is %v, %v", first, err)
		}
		if err := f.WriteSettingsAck(); err != nil {
			t.Fatal(err)
		}
		var headers bytes.Buffer
		e := hpack.NewEncoder(&headers)
		fields := []hpack.HeaderField{
			{Name: ":method", Value: "POST"},
			{Name: ":scheme", Value: "http"},
			{Name: ":path", Value: healthpb.Health_Check_FullMethodName},
			{Name: ":authority", Value: s.address},
			{Name: "content-type", Value: "application/grpc"},
			{Name: "te", Value: "trailers"},
		}
		if proxied {
			fields = append(fields, hpack.HeaderField{Name: "via", Value: "1.1 somebody"})
		}
		for _, field := range fields {
			if err := e.WriteField(field); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers.Bytes(), EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
		if err := f.WriteData(1, true, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		// All that is acknowledged is what was sent: net/http looks at that.
		data := false
		for !data {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatalf("proxied %v: %v", proxied, err)
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					err = f.WriteSettingsAck()
				}
			case *http2.DataFrame:
				data = len(frame.Data()) > 0
			case *http2.GoAwayFrame, *http2.RSTStreamFrame:
				t.Fatalf("proxied %v: %v", proxied, frame)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if asked := s.asked(); len(asked) != 1 {
		t.Errorf("net/http was asked %v, only the one behind a proxy is its", asked)
	}
}

func TestWhoeverSaysNothingIsClosed(t *testing.T) {
	t.Parallel()
	s := start(t, oneport.Limits{Preface: 50 * time.Millisecond, Idle: time.Hour})
	for _, said := range []string{"", "PRI * HTTP/2.0\r\n"} {
		c := dial(t, s.address)
		if _, err := io.WriteString(c, said); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); len(b) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("after %q: %q, %v", said, b, err)
		}
	}
}

// A client connects long before its first call.
func TestAClientThatWaitsIsServed(t *testing.T) {
	t.Parallel()
	s := start(t, oneport.Limits{Preface: time.Minute, Idle: time.Millisecond})
	c := dial(t, s.address)
	f := http2.NewFramer(c, c)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	// net/http says its settings, too, once the connection is its.
	for settings := 0; settings < 2; {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if own, ok := frame.(*http2.SettingsFrame); ok && !own.IsAck() {
			settings++
			if err := f.WriteSettingsAck(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.WritePing(false, [8]byte{1}); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if p, ok := frame.(*http2.PingFrame); ok && p.IsAck() {
			return
		}
	}
}

func TestAFileIsSentByTheKernel(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := oneport.New(l, patient)
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return port.Run(ctx) })
	defer func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}()
	client := dial(t, l.Addr().String())
	if _, err := io.WriteString(client, "GET "); err != nil {
		t.Fatal(err)
	}
	c, err := port.HTTP.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	to, ok := c.(io.ReaderFrom)
	if !ok {
		t.Fatalf("a %T: net/http would copy files through memory", c)
	}
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("contents"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if n, err := to.ReadFrom(io.LimitReader(file, 4)); n != 4 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "cont" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestTheEndClosesWhatIsNotSorted(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := oneport.New(l, patient)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- port.Run(ctx) }()
	silent, waiting := dial(t, l.Addr().String()), dial(t, l.Addr().String())
	if _, err := io.WriteString(waiting, "GET / "); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, c := range []net.Conn{silent, waiting} {
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("%q", b)
		}
	}
	_ = port.HTTP.Close()
	if _, err := port.HTTP.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
