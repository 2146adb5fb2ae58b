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
	"sort"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

const (
	headMagic = "ATTCPK02"
	footMagic = "attcpk02"
	// Packs of version 1 were not zstd streams: nothing stood before the head
	// and the table.
	headMagic1 = "ATTCPK01"
	footMagic1 = "attcpk01"

	// skippable begins a zstd frame that decoders pass over (RFC 8878, 3.1.2).
	skippable     = 0x184D2A5A
	skippableSize = 4 + 4

	headSize   = skippableSize + len(headMagic)
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

func appendSkippable(b []byte, size int) []byte {
	b = binary.LittleEndian.AppendUint32(b, skippable)
	return binary.LittleEndian.AppendUint32(b, uint32(size))
}

func head() []byte { return append(appendSkippable(nil, len(headMagic)), headMagic...) }

// WholeSize returns the length of a pack that holds entries with that many bytes
// of frames, and where its frames begin.
func WholeSize(entries int, frames int64) (size, first int64) {
	first = int64(headSize)
	return first + frames + skippableSize + int64(entries)*recordSize + int64(footerSize), first
}

// Encode lays out a pack of chunks.
func Encode(frames []Frame) *Encoded {
	e := &Encoded{
		Entries: make([]Entry, len(frames)),
		frames:  frames,
		tail:    make([]byte, 0, skippableSize+len(frames)*recordSize+footerSize),
	}
	e.tail = appendSkippable(e.tail, len(frames)*recordSize+footerSize)
	offset := int64(headSize)
	for i, f := range frames {
		e.Entries[i] = Entry{Kind: KindChunk, Chunk: f.Chunk, Offset: offset, Length: uint32(len(f.Data))}
		offset += int64(len(f.Data))
		e.tail = append(e.tail, byte(KindChunk))
		e.tail = append(e.tail, f.Hash[:]...)
		e.tail = binary.BigEndian.AppendUint32(e.tail, f.Size)
		e.tail = binary.BigEndian.AppendUint32(e.tail, uint32(len(f.Data)))
	}
	table := sha256.Sum256(e.tail[skippableSize:])
	e.tail = binary.BigEndian.AppendUint32(e.tail, uint32(len(frames)))
	e.tail = binary.BigEndian.AppendUint64(e.tail, uint64(offset+skippableSize))
	e.tail = append(e.tail, table[:]...)
	e.tail = append(e.tail, footMagic...)
	e.Size = offset + int64(len(e.tail))
	return e
}

// Reader returns a reader of the whole pack, a fresh one at each call. It can
// seek, so that a store can write the pack again after a failed try.
func (e *Encoded) Reader() io.ReadSeeker {
	return io.NewSectionReader(layout{e}, 0, e.Size)
}

// layout reads the parts of a pack as one file.
type layout struct{ *Encoded }

func (l layout) ReadAt(b []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("reading a pack at offset %d", off)
	}
	for n < len(b) && off < l.Size {
		copied := copy(b[n:], l.at(off))
		n, off = n+copied, off+int64(copied)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// at returns what of the part at an offset follows it; it is never empty.
func (l layout) at(off int64) []byte {
	if off < int64(headSize) {
		return head()[off:]
	}
	if tail := off - (l.Size - int64(len(l.tail))); tail >= 0 {
		return l.tail[tail:]
	}
	// A frame of no bytes shares its offset with the one behind it, which this
	// finds.
	i := sort.Search(len(l.Entries), func(i int) bool { return l.Entries[i].Offset > off }) - 1
	return l.frames[i].Data[off-l.Entries[i].Offset:]
}

// ReadTable reads the table of a pack of size bytes. It does not read the
// frames: a frame's bytes are checked against its hash when they are used.
func ReadTable(r io.ReaderAt, size int64) ([]Entry, error) {
	smallest := int64(len(headMagic1) + footerSize)
	if size < smallest {
		return nil, fmt.Errorf("%w: %d bytes, a pack has at least %d", ErrDamaged, size, smallest)
	}
	first := make([]byte, headSize)
	foot := make([]byte, footerSize)
	if err := readAt(r, first, 0); err != nil {
		return nil, err
	}
	if err := readAt(r, foot, size-int64(footerSize)); err != nil {
		return nil, err
	}
	var frames, between int64 // where the frames begin, and what is between them and the table
	switch footMagicOf := string(foot[footerSize-len(footMagic):]); {
	case bytes.Equal(first, head()) && footMagicOf == footMagic:
		frames, between = int64(headSize), skippableSize
	case bytes.HasPrefix(first, []byte(headMagic1)) && footMagicOf == footMagic1:
		frames = int64(len(headMagic1))
	default:
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
	if between > 0 {
		header := make([]byte, skippableSize)
		if err := readAt(r, header, int64(tableAt)-skippableSize); err != nil {
			return nil, err
		}
		if !bytes.Equal(header, appendSkippable(nil, len(table)+footerSize)) {
			return nil, fmt.Errorf("%w: the header of its table is wrong", ErrDamaged)
		}
	}
	if sum := sha256.Sum256(table); !bytes.Equal(sum[:], foot[12:12+sha256.Size]) {
		return nil, fmt.Errorf("%w: the table does not match its hash", ErrDamaged)
	}
	return parseTable(table, frames, int64(tableAt)-between)
}

func parseTable(table []byte, offset, end int64) ([]Entry, error) {
	entries := make([]Entry, 0, len(table)/recordSize)
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
	if offset != end {
		return nil, fmt.Errorf("%w: by the table, frames end at %d; they do at %d", ErrDamaged, offset, end)
	}
	return entries, nil
}

func readAt(r io.ReaderAt, b []byte, off int64) error {
	if n, err := r.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("reading a pack at offset %d: %w", off, err)
	}
	return nil
}
