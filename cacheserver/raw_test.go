package cacheserver_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
)

// raw is a connection on which a test says what no well-behaved client says.
type raw struct {
	*net.TCPConn
	r *bufio.Reader
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	return l
}

func dial(t testing.TB, addr string) *raw {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", addr)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		t.Fatalf("a %T", c)
	}
	return &raw{tcp, bufio.NewReader(c)}
}

func (c *raw) write(t testing.TB, format string, args ...any) {
	t.Helper()
	_, err := fmt.Fprintf(c, format, args...)
	must(t, err)
}

func (c *raw) line(t testing.TB) string {
	t.Helper()
	s, err := c.r.ReadString('\n')
	must(t, err)
	return s
}

// reply reads an answer; ok is false when the connection ended without one.
func (c *raw) reply(t testing.TB) (_ reply, ok bool) {
	t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return reply{}, false
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, b, err}, true
}
