package packstore

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A block's file is the block, then its CRC-32C in 4 bytes, big-endian. Its name
// is the pack's, the block's number and the pack's size, with dots between them:
// so a start knows how long it must be without opening it.
const (
	blocksDir    = "blocks"
	checksumSize = 4
	// touchEvery is how often a block's use shows in its file's time, by which a
	// start sees what was used last.
	touchEvery = time.Hour
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// diskError is a failure of the local disk, which fails no read.
type diskError struct{ err error }

func (e *diskError) Error() string { return e.err.Error() }

func (c *Cached) path(b *block) string {
	return filepath.Join(c.dir, blocksDir, fan(b.pack.name), fmt.Sprintf("%s.%d.%d", b.pack.name, b.number, b.pack.size))
}

// parseBlock is the inverse of a block's file name.
func parseBlock(file string) (name string, number, size int64, ok bool) {
	parts := strings.Split(file, ".")
	if len(parts) != 3 || CheckName(parts[0]) != nil {
		return "", 0, 0, false
	}
	number, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return "", 0, 0, false
	}
	size, err = strconv.ParseInt(parts[2], 10, 64)
	if err != nil {
		return "", 0, 0, false
	}
	return parts[0], number, size, number >= 0 && number <= size/blockSize && number*blockSize < size
}

// scan takes stock of the directory: what a crash left half-written goes, and
// what has the right length is a block until its bytes are looked at.
func (c *Cached) scan() error {
	incoming := filepath.Join(c.dir, staging)
	for _, dir := range []string{incoming, filepath.Join(c.dir, blocksDir)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	left, err := os.ReadDir(incoming)
	if err != nil {
		return err
	}
	for _, e := range left {
		if err := os.Remove(filepath.Join(incoming, e.Name())); err != nil {
			return err
		}
	}
	var found []*block
	err = filepath.WalkDir(filepath.Join(c.dir, blocksDir), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, number, size, ok := parseBlock(e.Name())
		if !ok {
			return nil // none of ours
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		b := c.grasp(name, size, number)
		if b.holders > 1 || path != c.path(b) || info.Size() != b.fileSize() {
			c.letGo(b)
			return os.Remove(path)
		}
		b.state, b.touched = blockUnproven, info.ModTime()
		c.used += b.fileSize()
		found = append(found, b)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(found, func(a, b *block) int {
		return cmp.Or(a.touched.Compare(b.touched), cmp.Compare(a.number, b.number))
	})
	for _, b := range found {
		c.letGo(b)
	}
	c.evict(0)
	return nil
}

// isWhole returns whether a block's file is what was written.
func isWhole(path string, size int64) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	sum := crc32.New(castagnoli)
	n, err := io.Copy(sum, io.LimitReader(f, size-checksumSize))
	if err != nil || n != size-checksumSize {
		return false
	}
	want, err := io.ReadAll(io.LimitReader(f, checksumSize+1))
	return err == nil && string(want) == string(sum.Sum(nil))
}

// blank makes a temporary file and takes the room for it from the disk, so that a
// full one shows before anything is fetched.
func (c *Cached) blank(size int64) (*os.File, error) {
	incoming := filepath.Join(c.dir, staging)
	f, err := os.CreateTemp(incoming, "")
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(incoming, 0o700); err == nil {
			f, err = os.CreateTemp(incoming, "")
		}
	}
	if err != nil {
		return nil, err
	}
	err = allocate(f, size)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		_ = f.Close()
		_ = os.Remove(f.Name())
		return nil, err
	}
	return f, nil // a file system that cannot is one where writing tells
}

// writeBlock writes n bytes of r and their checksum. Where the disk is at fault,
// its error is a *diskError.
func writeBlock(f *os.File, r io.Reader, n int64) error {
	sum := crc32.New(castagnoli)
	buf := make([]byte, 128<<10)
	for n > 0 {
		read, err := r.Read(buf[:min(n, int64(len(buf)))])
		n -= int64(read)
		sum.Write(buf[:read])
		if _, err := f.Write(buf[:read]); err != nil {
			return &diskError{err}
		}
		switch {
		case n == 0:
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%w: %d bytes are missing", io.ErrUnexpectedEOF, n)
		case err != nil:
			return err
		}
	}
	if _, err := f.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32())); err != nil {
		return &diskError{err}
	}
	return nil
}

// open opens the file of a block that is good, at a place within it. nil: the
// file is gone or has not its length any more, and the block is absent.
func (c *Cached) open(b *block, at int64) *os.File {
	f, err := os.Open(c.path(b))
	if err == nil {
		var info fs.FileInfo
		info, err = f.Stat()
		if err == nil && info.Size() != b.fileSize() {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			_, err = f.Seek(at, io.SeekStart)
		}
		if err != nil {
			_ = f.Close()
		}
	}
	if err != nil {
		c.lost(b)
		return nil
	}
	now := time.Now()
	c.mu.Lock()
	touch := now.Sub(b.touched) > touchEvery
	if touch {
		b.touched = now
	}
	c.mu.Unlock()
	if touch {
		// A time that cannot be set makes the next start evict another block.
		_ = os.Chtimes(f.Name(), now, now)
	}
	return f
}
