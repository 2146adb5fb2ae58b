package nar

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const dumpBuffer = 256 << 10

// Dump writes the tree at path as an archive to w, exactly as `nix-store
// --dump` does. A file that changes its size while it is read is an error:
// what was written then is no archive.
func Dump(w io.Writer, path string) error {
	d := dumper{w: bufio.NewWriterSize(w, dumpBuffer)}
	d.str(magic)
	if err := d.node(path); err != nil {
		return fmt.Errorf("dumping %s as a NAR: %w", path, err)
	}
	if err := d.w.Flush(); err != nil {
		return fmt.Errorf("dumping %s as a NAR: %w", path, err)
	}
	return nil
}

// dumper leaves the errors of single writes to its bufio.Writer, which keeps
// the first and returns it from every later call.
type dumper struct {
	w   *bufio.Writer
	num [8]byte
}

func (d *dumper) uint64(n uint64) {
	binary.LittleEndian.PutUint64(d.num[:], n)
	_, _ = d.w.Write(d.num[:])
}

func (d *dumper) pad(n int64) {
	var zeros [8]byte
	_, _ = d.w.Write(zeros[:padding(n)])
}

func (d *dumper) str(words ...string) {
	for _, s := range words {
		d.uint64(uint64(len(s)))
		_, _ = d.w.WriteString(s)
		d.pad(int64(len(s)))
	}
}

func (d *dumper) node(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	d.str("(", "type")
	switch mode := info.Mode(); {
	case mode.IsRegular():
		d.str("regular")
		if mode&0o100 != 0 {
			d.str("executable", "")
		}
		d.str("contents")
		if err := d.contents(path, info.Size()); err != nil {
			return err
		}
	case mode.IsDir():
		d.str("directory")
		entries, err := os.ReadDir(path) // sorted by name, bytewise, as the format wants it
		if err != nil {
			return err
		}
		for _, e := range entries {
			d.str("entry", "(", "name", e.Name(), "node")
			if err := d.node(filepath.Join(path, e.Name())); err != nil {
				return err
			}
			d.str(")")
		}
	case mode&os.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		d.str("symlink", "target", target)
	default:
		return fmt.Errorf("%s is a %s: an archive holds files, directories and symlinks only", path, kind(mode))
	}
	d.str(")")
	return nil
}

func (d *dumper) contents(path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	d.uint64(uint64(size))
	n, err := io.Copy(d.w, io.LimitReader(f, size))
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%s shrank from %d to %d bytes while it was read", path, size, n)
	}
	d.pad(size)
	return nil
}

func kind(mode os.FileMode) string {
	switch {
	case mode&os.ModeSocket != 0:
		return "socket"
	case mode&os.ModeNamedPipe != 0:
		return "named pipe"
	case mode&os.ModeDevice != 0:
		return "device"
	}
	return strings.TrimSpace("special file " + mode.String())
}
