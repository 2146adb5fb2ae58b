package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
)

// changeBytes is how much is put into a file.
const changeBytes = 1000

// changeAll makes NARs that differ a little from the given ones.
func changeAll(archives []archive, dir string) ([]archive, error) {
	var changed []archive
	for i, a := range archives {
		b, err := change(a, filepath.Join(dir, fmt.Sprintf("%03d.nar", i)))
		if err != nil {
			return nil, fmt.Errorf("changing %s: %w", a.name, err)
		}
		changed = append(changed, b)
	}
	return changed, nil
}

// change writes a NAR whose largest file has some bytes more in its middle, so
// that all that follows stands elsewhere.
func change(a archive, file string) (archive, error) {
	f, err := os.Open(a.file)
	if err != nil {
		return archive{}, err
	}
	defer f.Close()
	var largest nar.Node
	err = nar.Read(f, func(n nar.Node, _ io.Reader) error {
		if n.Type == nar.Regular && n.Size >= largest.Size {
			largest = n
		}
		return nil
	})
	if err != nil {
		return archive{}, err
	}
	if largest.Size == 0 {
		return archive{}, fmt.Errorf("it has no file with contents")
	}
	inserted := make([]byte, changeBytes)
	_, _ = source(uint64(a.size), 0).Read(inserted)
	begin, middle, end := largest.Offset, largest.Offset+largest.Size/2, largest.Offset+largest.Size
	length := binary.LittleEndian.AppendUint64(nil, uint64(largest.Size+changeBytes))
	return writeArchive(a.name, file, func(w io.Writer) error {
		_, err := io.Copy(w, io.MultiReader(
			io.NewSectionReader(f, 0, begin-int64(len(length))),
			bytes.NewReader(length),
			io.NewSectionReader(f, begin, middle-begin),
			bytes.NewReader(inserted),
			io.NewSectionReader(f, middle, end-middle),
			bytes.NewReader(make([]byte, padding(largest.Size+changeBytes))),
			io.NewSectionReader(f, end+padding(largest.Size), a.size),
		))
		return err
	})
}

// padding is how many zeros follow contents of n bytes in a NAR.
func padding(n int64) int64 { return (8 - n%8) % 8 }

// loadNext loads what is pushed second.
func loadNext(ctx context.Context, progress io.Writer, dir string, next []string) ([]archive, error) {
	var c corpus
	var files []string
	for _, n := range next {
		switch from, spec, _ := strings.Cut(n, ":"); from {
		case "npm":
			c.npm = append(c.npm, spec)
		case "deb":
			c.deb = append(c.deb, spec)
		default:
			files = append(files, n)
		}
	}
	return c.load(ctx, progress, dir, files)
}
