package nixcache

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// An lzip file is a member: a header of 6 bytes, an LZMA stream with an end
// marker, and a trailer (lzip's manual, "File format").

const (
	lzipMagic = "LZIP"
	// lzipProperties are those that lzip's LZMA always has: lc=3, lp=0, pb=2.
	lzipProperties = 0x5d
	// lzipDictionary is what is written with, in bytes and as the header says it.
	lzipDictionary, lzipDictionaryCode = 1 << 16, 16
)

// readLzip reads a file's first member; Nix writes no other.
func readLzip(r io.Reader) (io.Reader, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	var header [6]byte
	if _, err := io.ReadFull(br, header[:]); err != nil {
		return nil, err
	}
	code := header[5]
	if string(header[:4]) != lzipMagic || header[4] != 1 {
		return nil, fmt.Errorf("its header is %w", errXZ)
	}
	dictionary := int64(1) << (code & 31)
	dictionary -= dictionary / 16 * int64(code>>5)
	if dictionary > maxDictionary {
		return nil, fmt.Errorf("lzip with a dictionary of more than %d bytes is %w", maxDictionary, errUnsupported)
	}
	return lzma.ReaderConfig{DictCap: maxDictionary}.NewReader(&lzmaFile{header: lzmaHeader(uint32(dictionary)), Reader: br})
}

// lzmaHeader is what stands before the same LZMA stream in an .lzma file of
// unknown length.
func lzmaHeader(dictionary uint32) []byte {
	h := binary.LittleEndian.AppendUint32([]byte{lzipProperties}, dictionary)
	return binary.LittleEndian.AppendUint64(h, 1<<64-1)
}

// lzmaFile reads a header and then what follows.
type lzmaFile struct {
	header []byte
	*bufio.Reader
}

// Read implements io.Reader.
func (l *lzmaFile) Read(p []byte) (int, error) {
	if len(l.header) == 0 {
		return l.Reader.Read(p)
	}
	n := copy(p, l.header)
	l.header = l.header[n:]
	return n, nil
}

type lzipWriter struct {
	*lzma.Writer
	to    *lzipBody
	sum   uint32
	plain uint64
}

// lzipBody passes over the header that an .lzma file begins with.
type lzipBody struct {
	w    io.Writer
	skip int
	n    uint64
}

// Write implements io.Writer.
func (b *lzipBody) Write(p []byte) (int, error) {
	skipped := min(b.skip, len(p))
	b.skip -= skipped
	n, err := b.w.Write(p[skipped:])
	b.n += uint64(n)
	return skipped + n, err
}

// WriteByte implements io.ByteWriter.
func (b *lzipBody) WriteByte(c byte) error {
	_, err := b.Write([]byte{c})
	return err
}

func writeLzip(w io.Writer) (io.WriteCloser, error) {
	bw := bufio.NewWriterSize(w, 64<<10)
	if _, err := bw.Write(append([]byte(lzipMagic), 1, lzipDictionaryCode)); err != nil {
		return nil, err
	}
	body := &lzipBody{w: bw, skip: lzma.HeaderLen}
	lw, err := lzma.WriterConfig{
		Properties: &lzma.Properties{LC: 3, PB: 2}, DictCap: lzipDictionary, EOSMarker: true,
	}.NewWriter(body)
	if err != nil {
		return nil, err
	}
	return &lzipWriter{Writer: lw, to: body}, nil
}

// Write implements io.Writer.
func (l *lzipWriter) Write(p []byte) (int, error) {
	n, err := l.Writer.Write(p)
	l.sum = crc32.Update(l.sum, crc32.IEEETable, p[:n])
	l.plain += uint64(n)
	return n, err
}

// Close writes the trailer; it does not close what it writes to.
func (l *lzipWriter) Close() error {
	if err := l.Writer.Close(); err != nil {
		return err
	}
	bw, _ := l.to.w.(*bufio.Writer)
	trailer := binary.LittleEndian.AppendUint32(nil, l.sum)
	trailer = binary.LittleEndian.AppendUint64(trailer, l.plain)
	trailer = binary.LittleEndian.AppendUint64(trailer, 6+l.to.n+20)
	if _, err := bw.Write(trailer); err != nil {
		return err
	}
	return bw.Flush()
}
