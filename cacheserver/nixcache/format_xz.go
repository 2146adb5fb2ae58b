package nixcache

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// The container of xz is read and written here, by "The .xz File Format" 1.2.1:
// the library's own reader takes as much memory as a file asks for.

const (
	xzMagic      = "\xfd7zXZ\x00"
	xzFooter     = "YZ"
	xzLZMA2      = 0x21
	xzHeaderSize = 12
)

// xzCheckSize is how many bytes of check follow a block, by its kind.
var xzCheckSize = [16]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}

var errXZ = errors.New("not what the format says")

// xzReader reads the blocks of one stream. It does not compare their checks: the
// hash of what comes out is compared later.
type xzReader struct {
	in     counted
	check  int64
	block  *lzma.Reader2
	begins int64 // where the block's data does
	ended  bool
}

// counted counts what is read through it.
type counted struct {
	*bufio.Reader
	n int64
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// ReadByte implements io.ByteReader.
func (c *counted) ReadByte() (byte, error) {
	b, err := c.Reader.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

func readXZ(r io.Reader) (io.Reader, error) {
	x := &xzReader{in: counted{Reader: bufio.NewReaderSize(r, 64<<10)}}
	var header [xzHeaderSize]byte
	if _, err := io.ReadFull(&x.in, header[:]); err != nil {
		return nil, err
	}
	flags := header[6:8]
	if string(header[:6]) != xzMagic || flags[0] != 0 || flags[1] > 15 || crc32.ChecksumIEEE(flags) != binary.LittleEndian.Uint32(header[8:]) {
		return nil, fmt.Errorf("its header is %w", errXZ)
	}
	x.check = xzCheckSize[flags[1]]
	return x, nil
}

// Read implements io.Reader.
func (x *xzReader) Read(p []byte) (int, error) {
	for {
		if x.ended {
			return 0, io.EOF
		}
		if x.block == nil {
			if err := x.open(); err != nil {
				return 0, err
			}
			continue
		}
		n, err := x.block.Read(p)
		if err != io.EOF { //nolint:errorlint // a wrapped EOF is a fault of the file
			return n, err
		}
		if err := x.close(); err != nil {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

// open begins the next block, or ends where the index follows: all contents stand
// before it.
func (x *xzReader) open() error {
	size, err := x.in.ReadByte()
	if err != nil {
		return early(err)
	}
	if size == 0 {
		x.ended = true
		return nil
	}
	header := make([]byte, (int(size)+1)*4)
	header[0] = size
	if _, err := io.ReadFull(&x.in, header[1:]); err != nil {
		return early(err)
	}
	body := header[:len(header)-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(header[len(body):]) {
		return fmt.Errorf("the header of a block is %w", errXZ)
	}
	dictionary, err := xzDictionary(body)
	if err != nil {
		return err
	}
	x.begins = x.in.n
	x.block, err = lzma.Reader2Config{DictCap: int(max(dictionary, lzma.MinDictCap))}.NewReader2(&x.in)
	return err
}

// xzDictionary reads a block's header.
func xzDictionary(header []byte) (int64, error) {
	malformed := fmt.Errorf("the header of a block is %w", errXZ)
	flags, rest := header[1], bytes.NewReader(header[2:])
	if flags&0x3c != 0 {
		return 0, malformed
	}
	for _, present := range []byte{0x40, 0x80} { // the sizes, compressed and not
		if flags&present != 0 {
			if _, err := binary.ReadUvarint(rest); err != nil {
				return 0, malformed
			}
		}
	}
	id, err := binary.ReadUvarint(rest)
	if err != nil {
		return 0, malformed
	}
	if flags&3 != 0 || id != xzLZMA2 {
		return 0, fmt.Errorf("xz with other filters than LZMA2 is %w", errUnsupported)
	}
	var properties [2]byte
	if _, err := io.ReadFull(rest, properties[:]); err != nil || properties[0] != 1 {
		return 0, malformed
	}
	dictionary, err := lzma.DecodeDictCap(properties[1])
	if err != nil {
		return 0, malformed
	}
	if dictionary > maxDictionary {
		return 0, fmt.Errorf("xz with a dictionary of more than %d bytes is %w", maxDictionary, errUnsupported)
	}
	return dictionary, nil
}

// close passes over what follows a block's data.
func (x *xzReader) close() error {
	x.block = nil
	behind := x.check + (4-(x.in.n-x.begins)%4)%4
	_, err := io.CopyN(io.Discard, &x.in, behind)
	return early(err)
}

// early makes an end what it is within a file.
func early(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// xzWriter writes a stream of one block whose contents stand there as they are.
type xzWriter struct {
	w     *bufio.Writer
	chunk []byte
	plain int64 // bytes of contents
	block int64 // bytes of the block so far
	begun bool
	err   error
}

const (
	xzMaxChunk = 1 << 16
	// The dictionary is the smallest that there is: nothing looks back.
	xzBlockHeader = "\x02\x00\x21\x01\x00\x00\x00\x00"
)

func writeXZ(w io.Writer) (io.WriteCloser, error) {
	x := &xzWriter{w: bufio.NewWriterSize(w, 128<<10), chunk: make([]byte, 0, xzMaxChunk)}
	x.put([]byte(xzMagic))
	x.putSummed([]byte{0, 0})
	x.block = int64(x.putSummed([]byte(xzBlockHeader)))
	return x, nil
}

func (x *xzWriter) put(b []byte) int {
	if x.err == nil {
		_, x.err = x.w.Write(b)
	}
	return len(b)
}

// putSummed writes bytes and their CRC-32.
func (x *xzWriter) putSummed(b []byte) int {
	return x.put(binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b)))
}

// Write implements io.Writer.
func (x *xzWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), xzMaxChunk-len(x.chunk))
		x.chunk, rest = append(x.chunk, rest[:n]...), rest[n:]
		if len(x.chunk) == xzMaxChunk {
			x.flush()
		}
	}
	return len(p), x.err
}

// flush writes an uncompressed chunk of LZMA2.
func (x *xzWriter) flush() {
	if len(x.chunk) == 0 {
		return
	}
	control := byte(2)
	if !x.begun {
		control, x.begun = 1, true // resets the dictionary
	}
	x.block += int64(x.put(binary.BigEndian.AppendUint16([]byte{control}, uint16(len(x.chunk)-1))))
	x.block += int64(x.put(x.chunk))
	x.plain += int64(len(x.chunk))
	x.chunk = x.chunk[:0]
}

// Close writes the rest; it does not close what it writes to.
func (x *xzWriter) Close() error {
	x.flush()
	x.block += int64(x.put([]byte{0}))
	x.put(make([]byte, (4-x.block%4)%4))
	index := binary.AppendUvarint([]byte{0, 1}, uint64(x.block))
	index = binary.AppendUvarint(index, uint64(x.plain))
	index = append(index, make([]byte, (4-len(index)%4)%4)...)
	size := x.putSummed(index)
	footer := binary.LittleEndian.AppendUint32(nil, uint32(size/4-1))
	footer = append(footer, 0, 0)
	x.put(binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(footer)))
	x.put(footer)
	x.put([]byte(xzFooter))
	if x.err == nil {
		x.err = x.w.Flush()
	}
	return x.err
}
