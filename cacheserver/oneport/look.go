package oneport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// maxFrame is the longest frame that is taken before settings say otherwise
	// (RFC 9113, 4.2).
	maxFrame = 16 << 10
	// maxBefore is how many frames may stand before the first request, a few of
	// settings and windows: whoever sends more is net/http's to judge.
	maxBefore = 32
	// maxHeaders is how long the headers of the first request may be to be looked
	// at, in bytes and unpacked.
	maxHeaders = 64 << 10
)

// look reads the beginning of a connection and tells whose it is. What it read is
// read again from the connection that it returns.
func (p *Port) look(c net.Conn) (*half, net.Conn, error) {
	if err := c.SetReadDeadline(time.Now().Add(p.limits.Preface)); err != nil {
		return nil, nil, err
	}
	seen := &bytes.Buffer{}
	two, err := readPreface(c, seen)
	if err != nil {
		return nil, nil, err
	}
	to := p.http
	if two {
		// Clients of gRPC send no request before they have the server's settings,
		// so they are told some. The server that the connection is for says its own
		// in another frame.
		if _, err := c.Write(emptySettings); err != nil {
			return nil, nil, err
		}
		if err := c.SetReadDeadline(time.Now().Add(p.limits.Idle)); err != nil {
			return nil, nil, err
		}
		own, err := firstIsGRPC(io.TeeReader(c, seen))
		if own {
			to = p.grpc
		}
		if gone(err) {
			return nil, nil, err
		}
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return nil, nil, err
	}
	var from io.Reader = &replay{first: seen.Bytes(), rest: c}
	if two && to == p.http {
		from = &withoutAck{r: from, pass: len(http2.ClientPreface)}
	}
	return to, &sorted{c, from}, nil
}

// emptySettings is a SETTINGS frame that leaves all as it is (RFC 9113, 6.5).
var emptySettings = []byte{0, 0, 0, byte(http2.FrameSettings), 0, 0, 0, 0, 0}

// gone says whether a connection has ended, rather than said what is not
// understood, or nothing for too long.
func gone(err error) bool {
	var fault net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.As(err, &fault) && !errors.Is(err, os.ErrDeadlineExceeded)
}

// readPreface reads as far as bytes are those that a connection of HTTP/2 begins
// with, and tells whether they are all of them.
func readPreface(c io.Reader, seen *bytes.Buffer) (two bool, err error) {
	var b [len(http2.ClientPreface)]byte
	for n := 0; n < len(b); {
		m, err := c.Read(b[n:])
		seen.Write(b[n : n+m])
		n += m
		if string(b[:n]) != http2.ClientPreface[:n] {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// firstIsGRPC reads up to the end of the first request's headers.
func firstIsGRPC(r io.Reader) (bool, error) {
	f := http2.NewFramer(io.Discard, r)
	f.SetMaxReadFrameSize(maxFrame)
	f.MaxHeaderListSize = maxHeaders
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for range maxBefore {
		frame, err := f.ReadFrame()
		if err != nil {
			return false, err
		}
		if headers, ok := frame.(*http2.MetaHeadersFrame); ok {
			return ownGRPC(headers), nil
		}
	}
	return false, nil
}

// ownGRPC says whether a request is gRPC, and not one that a proxy passes on.
func ownGRPC(f *http2.MetaHeadersFrame) (own bool) {
	for _, h := range f.RegularFields() {
		switch {
		case h.Name == "content-type":
			own = strings.HasPrefix(h.Value, "application/grpc")
		case h.Name == "via", h.Name == "forwarded", h.Name == "x-request-id",
			strings.HasPrefix(h.Name, "x-forwarded-"), strings.HasPrefix(h.Name, "x-envoy-"):
			return false
		}
	}
	return own
}
