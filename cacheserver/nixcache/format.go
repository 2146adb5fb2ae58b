package nixcache

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Memory that a file may make its reader hold, in bytes: what the highest levels
// of xz and zstd ask for.
const (
	maxDictionary  = 64 << 20
	maxZstdHistory = 128 << 20
)

// format is a way to compress a NAR's file.
type format struct {
	suffix   string // behind .nar
	encoding string // in Content-Encoding, and in a narinfo
	magic    string // what its files begin with, where they do
	read     func(io.Reader) (io.Reader, error)
	write    func(io.Writer) (io.WriteCloser, error) // nil where there is none
}

var (
	formatZstd  = &format{suffix: ".zst", encoding: "zstd", magic: "\x28\xb5\x2f\xfd", read: readZstd}
	formatPlain = &format{encoding: "identity", read: func(r io.Reader) (io.Reader, error) { return r, nil }, write: writePlain}
)

// packed are the formats but for formatPlain.
var packed = []*format{
	formatZstd,
	{suffix: ".xz", encoding: "xz", magic: xzMagic, read: readXZ, write: writeXZ},
	{suffix: ".bz2", encoding: "bzip2", magic: "BZh", read: func(r io.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil }},
	{suffix: ".br", encoding: "br", read: func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil }, write: writeBrotli},
	{suffix: ".lz4", encoding: "lz4", magic: "\x04\x22\x4d\x18", read: func(r io.Reader) (io.Reader, error) { return lz4.NewReader(r), nil }, write: writeLZ4},
	{suffix: ".lzip", encoding: "lzip", magic: lzipMagic, read: readLzip, write: writeLzip},
	{suffix: ".gz", encoding: "gzip", magic: "\x1f\x8b", read: func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }, write: writeGzip},
}

// formatOf returns the format of files whose names end so behind .nar.
func formatOf(suffix string) (*format, bool) {
	if suffix == "" {
		return formatPlain, true
	}
	for _, f := range packed {
		if f.suffix == suffix {
			return f, true
		}
	}
	return nil, false
}

// unpackBody returns a reader of a body in a Content-Encoding.
func unpackBody(encoding string, r io.Reader) (io.Reader, error) {
	encoding = strings.ToLower(strings.TrimSpace(encoding))
	if encoding == "" || encoding == formatPlain.encoding {
		return r, nil
	}
	for _, f := range packed {
		if f.encoding == encoding {
			return f.unpack(r), nil
		}
	}
	return nil, fmt.Errorf("Content-Encoding %.40q is %w", encoding, errUnsupported)
}

// unpack returns a reader of what a file of that format holds. Its errors that
// are not r's own are errMalformed or errUnsupported. It takes memory from its
// first Read on.
func (f *format) unpack(r io.Reader) io.Reader {
	return &unpacker{format: f, in: &noting{r: r}}
}

type unpacker struct {
	*format
	in  *noting
	out io.Reader
	err error
}

// Read implements io.Reader.
func (u *unpacker) Read(p []byte) (n int, err error) {
	if u.err != nil {
		return 0, u.err
	}
	// A decoder that a file drives into a panic must not take the server with it:
	// it runs where net/http does not guard.
	defer func() {
		if fault := recover(); fault != nil {
			n, u.err = 0, fmt.Errorf("%w %s file: %v", errMalformed, u.encoding, fault)
			err = u.err
		}
	}()
	if u.out == nil {
		u.out, err = u.read(u.in)
		err = early(err)
	}
	if err == nil {
		n, err = u.out.Read(p)
	}
	switch {
	case err == nil || err == io.EOF: //nolint:errorlint // a wrapped EOF is a fault of the file
	case u.in.err != nil:
		err = u.in.err
	case errors.Is(early(err), io.ErrUnexpectedEOF):
		err = fmt.Errorf("%w %s file: it ends early", errMalformed, u.encoding)
	case !errors.Is(err, errUnsupported):
		err = fmt.Errorf("%w %s file: %w", errMalformed, u.encoding, err)
	}
	u.err = err
	return n, err
}

// noting remembers its reader's failure.
type noting struct {
	r   io.Reader
	err error
}

func (n *noting) Read(p []byte) (int, error) {
	m, err := n.r.Read(p)
	if err != nil && err != io.EOF {
		n.err = err
	}
	return m, err
}

// narMagic is what a NAR begins with.
const narMagic = "\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1"

// sniff tells the format of a file without a suffix by what it begins with: it is
// compressed all the same where Nix has no suffix for it, as for gzip.
func sniff(r io.Reader) (*format, io.Reader, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(len(narMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	if strings.HasPrefix(string(head), narMagic) {
		return formatPlain, br, nil
	}
	for _, f := range packed {
		if f.magic != "" && strings.HasPrefix(string(head), f.magic) {
			return f, br, nil
		}
	}
	return nil, nil, fmt.Errorf("a file that is neither a NAR nor compressed with %s is %w", known(), errUnsupported)
}

func known() string {
	var names []string
	for _, f := range packed {
		names = append(names, f.encoding)
	}
	return strings.Join(names, ", ")
}

func readZstd(r io.Reader) (io.Reader, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdHistory))
}

// What is written is read by few clients, each once: those that uploaded the file
// remember its name for a month. It is compressed fast rather than well.

func writePlain(w io.Writer) (io.WriteCloser, error) { return unclosed{w}, nil }

type unclosed struct{ io.Writer }

// Close implements io.Closer.
func (unclosed) Close() error { return nil }

func writeBrotli(w io.Writer) (io.WriteCloser, error) {
	return brotli.NewWriterLevel(w, brotli.BestSpeed), nil
}

func writeLZ4(w io.Writer) (io.WriteCloser, error) { return lz4.NewWriter(w), nil }

func writeGzip(w io.Writer) (io.WriteCloser, error) {
	return gzip.NewWriterLevel(w, gzip.BestSpeed)
}
