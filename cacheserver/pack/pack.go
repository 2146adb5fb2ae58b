// Package pack encodes and reads packs, the immutable files that hold chunks.
// FORMAT.md beside this file describes them field by field.
package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

const (
	headMagic = "ATTCPK01"
	footMagic = "attcpk01"

	recordSize = 1 + digest.Size + 4 + 4
	footerSize = 4 + 8 + sha256.Size + len(footMagic)
)

// MaxEntries bounds the table of one pack, and so what ReadTable allocates.
const MaxEntries = 1 << 20

// ErrDamaged is wrapped by every error of ReadTable that the bytes themselves
// are the cause of.
var ErrDamaged = errors.New("damaged pack")

// Kind tells what an entry is.
type Kind uint8

// KindChunk is a chunk of a blob.
const KindChunk Kind = 1

// Frame is a chunk with the zstd frame that holds it.
type Frame struct {
	digest.Chunk
	Data []byte
}

// Entry says where in its pack a chunk's frame lies.
type Entry struct {
	Kind Kind
	digest.Chunk
	Offset int64
	Length uint32 // of the frame, in bytes
}

// Encoded is a pack about to be written. It refers to the frames it was made
// from and copies none of them.
type Encoded struct {
	Entries []Entry
	Size    int64 // of the whole pack, in bytes

	frames []Frame
	tail   []byte
}

// Encode lays out a pack of chunks.
func Encode(frames []Frame) *Encoded {
	e := &Encoded{
		Entries: make([]Entry, len(frames)),
		frames:  frames,
		tail:    make([]byte, 0, len(frames)*recordSize+footerSize),
	}
	offset := int64(len(headMagic))
	for i, f := range frames {
		e.Entries[i] = Entry{Kind: KindChunk, Chunk: f.Chunk, Offset: offset, Length: uint32(len(f.Data))}
		offset += int64(len(f.Data))
		e.tail = append(e.tail, byte(KindChunk))
		e.tail = append(e.tail, f.Hash[:]...)
		e.tail = binary.BigEndian.AppendUint32(e.tail, f.Size)
		e.tail = binary.BigEndian.AppendUint32(e.tail, uint32(len(f.Data)))
	}
	table := sha256.Sum256(e.tail)
	e.tail = binary.BigEndian.AppendUint32(e.tail, uint32(len(frames)))
	e.tail = binary.BigEndian.AppendUint64(e.tail, uint64(offset))
	e.tail = append(e.tail, table[:]...)
	e.tail = append(e.tail, footMagic...)
	e.Size = offset + int64(len(e.tail))
	return e
}

// Reader returns a reader of the whole pack, a fresh one at each call so that
// a failed write can be tried again.
func (e *Encoded) Reader() io.Reader {
	parts := make([]io.Reader, 0, len(e.frames)+2)
	parts = append(parts, bytes.NewReader([]byte(headMagic)))
	for _, f := range e.frames {
		parts = append(parts, bytes.NewReader(f.Data))
	}
	return io.MultiReader(append(parts, bytes.NewReader(e.tail))...)
}

// ReadTable reads the table of a pack of size bytes. It does not read the
// frames: a frame's bytes are checked against its hash when they are used.
func ReadTable(r io.ReaderAt, size int64) ([]Entry, error) {
	smallest := int64(len(headMagic) + footerSize)
	if size < smallest {
		return nil, fmt.Errorf("%w: %d bytes, a pack has at least %d", ErrDamaged, size, smallest)
	}
	head := make([]byte, len(headMagic))
	foot := make([]byte, footerSize)
	if err := readAt(r, head, 0); err != nil {
		return nil, err
	}
	if err := readAt(r, foot, size-int64(footerSize)); err != nil {
		return nil, err
	}
	if string(head) != headMagic || string(foot[footerSize-len(footMagic):]) != footMagic {
		return nil, fmt.Errorf("%w: its first or last bytes are not those of a pack", ErrDamaged)
	}
	count := int64(binary.BigEndian.Uint32(foot))
	tableAt := binary.BigEndian.Uint64(foot[4:])
	if count > MaxEntries || int64(tableAt) != size-int64(footerSize)-count*recordSize {
		return nil, fmt.Errorf("%w: a table of %d entries at offset %d does not fit %d bytes", ErrDamaged, count, tableAt, size)
	}
	table := make([]byte, count*recordSize)
	if err := readAt(r, table, int64(tableAt)); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(table); !bytes.Equal(sum[:], foot[12:12+sha256.Size]) {
		return nil, fmt.Errorf("%w: the table does not match its hash", ErrDamaged)
	}
	return parseTable(table, int64(tableAt))
}

func parseTable(table []byte, tableAt int64) ([]Entry, error) {
	entries := make([]Entry, 0, len(table)/recordSize)
	offset := int64(len(headMagic))
	for i := 0; len(table) > 0; i, table = i+1, table[recordSize:] {
		e := Entry{Kind: Kind(table[0]), Offset: offset}
		copy(e.Hash[:], table[1:])
		e.Size = binary.BigEndian.Uint32(table[1+digest.Size:])
		e.Length = binary.BigEndian.Uint32(table[1+digest.Size+4:])
		if e.Size == 0 || e.Length == 0 {
			return nil, fmt.Errorf("%w: entry %d is empty", ErrDamaged, i)
		}
		offset += int64(e.Length)
		entries = append(entries, e)
	}
	if offset != tableAt {
		return nil, fmt.Errorf("%w: frames end at %d, the table begins at %d", ErrDamaged, offset, tableAt)
	}
	return entries, nil
}

func readAt(r io.ReaderAt, b []byte, off int64) error {
	if n, err := r.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("reading a pack at offset %d: %w", off, err)
	}
	return nil
}
