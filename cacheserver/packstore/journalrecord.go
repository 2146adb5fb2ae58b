package packstore

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"maps"
)

const (
	recordMagic = "pkj1"
	// recordAlign is where records begin, so that none shares with another what
	// disks and page caches write at once.
	recordAlign = 4096
	// recordHeader has the magic, the checksum of all that follows, the sequence
	// number, the body's length, what the record is, and the length of the name,
	// which follows it; then comes the body.
	recordHeader = 4 + 4 + 8 + 4 + 1 + 1
)

// record says that a pack was put, or that it is gone.
type record struct {
	seq  uint64 // one more than that of the record before
	name string
	gone bool
	body []byte
}

func (r record) encode() []byte {
	size := recordHeader + len(r.name) + len(r.body)
	b := make([]byte, 0, (size+recordAlign-1)/recordAlign*recordAlign)
	b = append(b, recordMagic...)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, r.seq)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.body)))
	var kind byte
	if r.gone {
		kind = 1
	}
	b = append(b, kind, byte(len(r.name)))
	b = append(b, r.name...)
	b = append(b, r.body...)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	return b[:cap(b)]
}

// decodeRecord returns the record that b begins with, and its length there. ok is
// false where none does, or one that was not written whole.
func decodeRecord(b []byte) (r record, size int, ok bool) {
	if len(b) < recordHeader || string(b[:4]) != recordMagic {
		return record{}, 0, false
	}
	body, name := int64(binary.LittleEndian.Uint32(b[16:])), int64(b[21])
	end := recordHeader + name + body
	if end > int64(len(b)) || crc32.Checksum(b[8:end], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return record{}, 0, false
	}
	r = record{
		seq:  binary.LittleEndian.Uint64(b[8:]),
		gone: b[20] == 1,
		name: string(b[recordHeader : recordHeader+name]),
		body: b[recordHeader+name : end],
	}
	size = int(min((end+recordAlign-1)/recordAlign*recordAlign, int64(len(b))))
	return r, size, CheckName(r.name) == nil
}

// readJournal returns the packs of a journal.
func readJournal(f io.ReaderAt) (map[string][]byte, error) {
	var first [2]uint64
	var packs [2]map[string][]byte
	for i := range packs {
		b := make([]byte, journalHalf)
		n, err := f.ReadAt(b, int64(i)*journalHalf)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		first[i], packs[i] = readHalf(b[:n])
	}
	older, newer := packs[0], packs[1]
	if first[0] > first[1] {
		older, newer = newer, older
	}
	maps.Copy(older, newer)
	maps.DeleteFunc(older, func(_ string, body []byte) bool { return body == nil })
	return older, nil
}

// readHalf returns the packs of a half, nil for those that are gone, and the first
// record's sequence number. Records follow one another without a gap; what comes
// after them is from an earlier use.
func readHalf(b []byte) (first uint64, packs map[string][]byte) {
	packs = map[string][]byte{}
	for n := uint64(0); ; n++ {
		r, size, ok := decodeRecord(b)
		if n == 0 {
			first = r.seq
		}
		if !ok || r.seq != first+n {
			return first, packs
		}
		packs[r.name] = r.body
		if r.gone {
			packs[r.name] = nil
		}
		b = b[size:]
	}
}
