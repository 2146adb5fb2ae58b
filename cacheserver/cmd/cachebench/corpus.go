package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
)

// archive is a NAR in a file.
type archive struct {
	name string
	file string
	size int64
	hash digest.Hash
}

func totalSize(archives []archive) (sum int64) {
	for _, a := range archives {
		sum += a.size
	}
	return sum
}

// corpus is where NARs come from.
type corpus struct {
	npm, deb []string
	size     size
}

const corpusHelp = `
Each DIR is dumped as a NAR; a FILE.nar is one. --npm and --deb take packages
from the registries that npm and apt-get are set up for. With none of these, two
releases of a made-up package stand in, which says little about real ones.`

func (c *corpus) flags(f *pflag.FlagSet) {
	c.size = 64 << 20
	f.StringSliceVar(&c.npm, "npm", nil, "npm `PACKAGE@VERSION`, each a NAR; may be repeated")
	f.StringSliceVar(&c.deb, "deb", nil, "Debian `PACKAGE[=VERSION]`, each a NAR; may be repeated")
	f.Var(&c.size, "size", "how large the made-up NARs are together")
}

// load makes the NARs, in dir, in the order in which they were named.
func (c *corpus) load(ctx context.Context, progress io.Writer, dir string, args []string) ([]archive, error) {
	var all []archive
	take := func(name, tree string) error {
		a, err := dump(name, tree, filepath.Join(dir, fmt.Sprintf("%03d.nar", len(all))))
		all = append(all, a)
		return err
	}
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			err = take(filepath.Base(filepath.Clean(arg)), arg)
		} else {
			var a archive
			a, err = readArchive(arg)
			all = append(all, a)
		}
		if err != nil {
			return nil, err
		}
	}
	fetched := func(specs []string, fetch func(ctx context.Context, dir, spec string) (tree string, err error)) error {
		for _, spec := range specs {
			fmt.Fprintln(progress, "fetching", spec)
			err := inSubdirectory(dir, func(sub string) error {
				tree, err := fetch(ctx, sub, spec)
				if err != nil {
					return fmt.Errorf("fetching %s: %w", spec, err)
				}
				return take(spec, tree)
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := fetched(c.npm, fetchNPM); err != nil {
		return nil, err
	}
	if err := fetched(c.deb, fetchDeb); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		for release := range 2 {
			err := inSubdirectory(dir, func(sub string) error {
				if err := writeTree(sub, tree{seed: 1, release: release, size: int64(c.size) / 2}); err != nil {
					return err
				}
				return take(fmt.Sprintf("made-up-%d", release), sub)
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// inSubdirectory runs work with a directory that is gone afterwards: trees are
// not needed once they are NARs.
func inSubdirectory(dir string, work func(sub string) error) (err error) {
	sub, err := os.MkdirTemp(dir, "tree-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(sub)) }()
	return work(sub)
}

// dump writes the tree at path as a NAR to a file.
func dump(name, tree, file string) (archive, error) {
	return writeArchive(name, file, func(w io.Writer) error { return nar.Dump(w, tree) })
}

// writeArchive makes a file of what write writes, and hashes it on the way.
func writeArchive(name, file string, write func(io.Writer) error) (_ archive, err error) {
	f, err := os.Create(file)
	if err != nil {
		return archive{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buffered, sum := bufio.NewWriterSize(f, 1<<20), sha256.New()
	n := &counter{w: io.MultiWriter(buffered, sum)}
	if err := errors.Join(write(n), buffered.Flush()); err != nil {
		return archive{}, fmt.Errorf("writing the NAR of %s: %w", name, err)
	}
	return archive{name: name, file: file, size: n.n, hash: digest.Hash(sum.Sum(nil))}, nil
}

// readArchive takes a file that must be a NAR.
func readArchive(file string) (archive, error) {
	f, err := os.Open(file)
	if err != nil {
		return archive{}, err
	}
	defer f.Close()
	sum := sha256.New()
	n := &counter{w: sum}
	if err := nar.Read(io.TeeReader(f, n), nil); err != nil {
		return archive{}, fmt.Errorf("%s: %w", file, err)
	}
	name := strings.TrimSuffix(filepath.Base(file), ".nar")
	return archive{name: name, file: file, size: n.n, hash: digest.Hash(sum.Sum(nil))}, nil
}

// counter counts what passes.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// copyTo writes the NAR to w.
func (a archive) copyTo(w io.Writer) error {
	f, err := os.Open(a.file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}
