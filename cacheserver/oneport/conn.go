package oneport

import (
	"encoding/binary"
	"io"
	"net"

	"golang.org/x/net/http2"
)

// sorted is a connection of which the beginning is read again.
type sorted struct {
	net.Conn
	from io.Reader
}

// Read implements net.Conn.
func (c *sorted) Read(p []byte) (int, error) { return c.from.Read(p) }

// ReadFrom implements io.ReaderFrom: net/http sends a file without copying it
// where its connection has this.
func (c *sorted) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// replay reads bytes, then the rest.
type replay struct {
	first []byte
	rest  io.Reader
}

// Read implements io.Reader.
func (r *replay) Read(p []byte) (int, error) {
	if len(r.first) == 0 {
		return r.rest.Read(p)
	}
	n := copy(p, r.first)
	if r.first = r.first[n:]; len(r.first) == 0 {
		r.first = nil
	}
	return n, nil
}

// withoutAck leaves the first acknowledgement of settings out of a connection of
// HTTP/2. It is that of the settings that were sent before there was a server, and
// net/http breaks a connection off on which more are acknowledged than it sent.
type withoutAck struct {
	r    io.Reader
	pass int // bytes that are read as they are
	head [frameHead]byte
	had  int // bytes of head that were read
	give []byte
	done bool
}

// frameHead is the length of a frame's header (RFC 9113, 4.1).
const frameHead = 9

// Read implements io.Reader.
func (w *withoutAck) Read(p []byte) (int, error) {
	for {
		switch {
		case len(p) == 0:
			return 0, nil
		case len(w.give) > 0:
			n := copy(p, w.give)
			w.give = w.give[n:]
			return n, nil
		case w.done:
			return w.r.Read(p)
		case w.pass > 0:
			n, err := w.r.Read(p[:min(len(p), w.pass)])
			w.pass -= n
			return n, err
		}
		// A part of a header stays for the next call: a deadline may come in between.
		n, err := w.r.Read(w.head[w.had:])
		if w.had += n; w.had < frameHead {
			if err != nil {
				return 0, err
			}
			continue
		}
		w.had = 0
		length := int(binary.BigEndian.Uint32(w.head[:4]) >> 8)
		if kind, flags := http2.FrameType(w.head[3]), http2.Flags(w.head[4]); kind == http2.FrameSettings && flags.Has(http2.FlagSettingsAck) && length == 0 {
			w.done = true
			continue
		}
		w.give, w.pass = w.head[:], length
	}
}
