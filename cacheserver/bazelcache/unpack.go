package bazelcache

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// maxWindow is the largest window of a client's zstd stream: what RFC 8878 asks
// decoders to support, and each holds that much.
const maxWindow = 8 << 20

var unpackers = sync.Pool{New: func() any {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		panic(err) // the options are constants
	}
	return z
}}

// unpack returns a reader of what a zstd stream holds. Its errors that are not
// r's own are errInvalid. release is to be called once it is not read any more.
func unpack(r io.Reader) (z io.Reader, release func()) {
	u := &unpacker{in: &noting{r: r}, z: unpackers.Get().(*zstd.Decoder)}
	u.err = u.z.Reset(u.in)
	return u, func() {
		_ = u.z.Reset(nil)
		unpackers.Put(u.z)
	}
}

type unpacker struct {
	in  *noting
	z   *zstd.Decoder
	err error // of Reset
}

// Read implements io.Reader.
func (u *unpacker) Read(p []byte) (int, error) {
	n, err := 0, u.err
	if err == nil {
		n, err = u.z.Read(p)
	}
	switch {
	case err == nil || err == io.EOF: //nolint:errorlint // a wrapped EOF is a fault of the stream
		return n, err
	case u.in.err != nil:
		return n, u.in.err
	}
	return n, fmt.Errorf("%w: unpacking zstd: %w", errInvalid, err)
}

// noting remembers its reader's failure.
type noting struct {
	r   io.Reader
	err error
}

func (n *noting) Read(p []byte) (int, error) {
	m, err := n.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return m, err
}
