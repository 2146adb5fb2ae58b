package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
)

// cutting is what becomes of NARs that are cut by one average; 0 is not at all.
type cutting struct {
	average int
	listed  int64    // chunks of all NARs
	chunks  int64    // of those, the different ones: each is a row of the index
	stored  int64    // bytes of their frames
	sampled int64    // bytes of the NARs that are in files
	files   []string // the first NARs, as clients are sent them
}

func eachChunk(a archive, average int, visit func(chunk []byte) error) error {
	f, err := os.Open(a.file)
	if err != nil {
		return err
	}
	defer f.Close()
	ch, err := chunker.New(f, chunker.Params{Average: average})
	if err != nil {
		return err
	}
	for {
		c, err := ch.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cutting %s: %w", a.name, err)
		}
		if err := visit(c); err != nil {
			return err
		}
	}
}

// cut cuts all NARs, and writes the first of them, of about sample bytes, to files
// in dir as they would be served.
func cut(ctx context.Context, archives []archive, average int, dir string, sample int64) (cutting, error) {
	all := cutting{average: average}
	seen := map[digest.Hash]bool{}
	err := all.eachInto(ctx, archives, dir, sample, func(a archive, w io.Writer) error {
		var data []byte
		return eachChunk(a, average, func(c []byte) error {
			all.listed++
			hash := digest.Of(c)
			if seen[hash] && w == io.Discard {
				return nil
			}
			data = frame.Encode(data[:0], c)
			if !seen[hash] {
				seen[hash] = true
				all.chunks++
				all.stored += int64(len(data))
			}
			_, err := w.Write(data)
			return err
		})
	})
	return all, err
}

// compressWhole makes each NAR one stream, as caches do that know no chunks.
func compressWhole(ctx context.Context, archives []archive, dir string, sample int64) (cutting, error) {
	var all cutting
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return all, err
	}
	err = all.eachInto(ctx, archives, dir, sample, func(a archive, w io.Writer) error {
		n := &counter{w: w}
		e.Reset(n)
		err := errors.Join(a.copyTo(e), e.Close())
		all.listed++
		all.chunks++
		all.stored += n.n
		return err
	})
	return all, err
}

// eachInto calls store with each NAR, and with a file for the first of them.
func (c *cutting) eachInto(ctx context.Context, archives []archive, dir string, sample int64, store func(archive, io.Writer) error) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for i, a := range archives {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.sampled >= sample {
			if err := store(a, io.Discard); err != nil {
				return err
			}
			continue
		}
		c.sampled += a.size
		name := filepath.Join(dir, fmt.Sprintf("%03d.zst", i))
		if err := storeIn(name, func(w io.Writer) error { return store(a, w) }); err != nil {
			return err
		}
		c.files = append(c.files, name)
	}
	return nil
}

func storeIn(name string, store func(io.Writer) error) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	return errors.Join(store(w), w.Flush())
}

// decoding unpacks the files of each cutting.
func decoding(ctx context.Context, rounds int, progress io.Writer, cuts []cutting, decode func(context.Context, []string) error) (*comparison, error) {
	sides := make([]side, len(cuts))
	for i, c := range cuts {
		name := "unpacking chunks of " + bytesize.Text(int64(c.average))
		if c.average == 0 {
			name = "unpacking whole NARs"
		}
		sides[i] = side{name, func(ctx context.Context) (sample, error) {
			return timed(func() error { return decode(ctx, c.files) })
		}}
	}
	return alternate(ctx, progress, rounds, sides...)
}

func decodeInGo(_ context.Context, files []string) error {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer d.Close()
	for _, name := range files {
		if err := decodeFile(d, name); err != nil {
			return fmt.Errorf("unpacking: %w", err)
		}
	}
	return nil
}

func decodeFile(d *zstd.Decoder, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := d.Reset(f); err != nil {
		return err
	}
	_, err = d.WriteTo(io.Discard)
	return err
}

// decodeByZstd unpacks with the C library, which Nix has, too.
func decodeByZstd(ctx context.Context, files []string) error {
	cmd := exec.CommandContext(ctx, "zstd", append([]string{"-dcq"}, files...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil { // its output goes to the null device
		return fmt.Errorf("zstd: %w: %.500s", err, said.Bytes())
	}
	return nil
}
