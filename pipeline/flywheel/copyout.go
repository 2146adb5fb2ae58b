package flywheel

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

// maxLinks bounds how many symlinks may lead from one to the next.
const maxLinks = 40

// copyResults copies each result to dir under its name, without its hash, as
// files that mean the same on a machine that has no Nix: symlinks within a
// result stay, those that lead into the store are replaced by what they lead to.
func (r *run) copyResults(dir string, results []string) error {
	began := time.Now()
	if dir == "" || len(results) == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("copying the results: %w", err)
	}
	taken := map[string]bool{}
	for _, path := range results {
		_, name, err := storepath.Split(filepath.Base(path))
		if err != nil {
			return fmt.Errorf("copying the results: %w", err)
		}
		for unique, n := name, 2; ; n++ {
			if !taken[unique] {
				name = unique
				break
			}
			unique = fmt.Sprintf("%s-%d", name, n)
		}
		taken[name] = true
		target := filepath.Join(dir, name)
		// What an earlier run left there would be mixed with the new files.
		if err := os.RemoveAll(target); err != nil {
			return fmt.Errorf("copying the results: %w", err)
		}
		c := copier{store: r.store, root: path}
		if err := c.copy(path, target, 0); err != nil {
			return fmt.Errorf("copying the result %s: %w", path, err)
		}
	}
	r.console.step("copy out", began, "%s in %s", count(len(results), "result"), dir)
	return nil
}

type copier struct {
	store nix.Store
	root  string // of the result, as a store path
}

// copy copies the store path from, which may be a file inside of one.
func (c copier) copy(from, to string, links int) error {
	real := c.store.RealPath(from)
	info, err := os.Lstat(real)
	if err != nil {
		return err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return c.link(from, to, links)
	case info.IsDir():
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		entries, err := os.ReadDir(real)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := c.copy(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), links); err != nil {
				return err
			}
		}
		return nil
	}
	mode := fs.FileMode(0o644)
	if info.Mode()&0o100 != 0 {
		mode = 0o755
	}
	return copyFile(real, to, mode)
}

func (c copier) link(from, to string, links int) error {
	target, err := os.Readlink(c.store.RealPath(from))
	if err != nil {
		return err
	}
	leads := target
	if !filepath.IsAbs(leads) {
		leads = filepath.Join(filepath.Dir(from), leads)
	}
	if !filepath.IsAbs(target) && strings.HasPrefix(leads, c.root+"/") {
		return os.Symlink(target, to)
	}
	if !strings.HasPrefix(leads, c.store.Dir+"/") {
		return os.Symlink(target, to) // such as /etc/…: it means another machine's
	}
	if links == maxLinks {
		return fmt.Errorf("%s: more than %d symlinks lead from one to the next", from, maxLinks)
	}
	if _, err := os.Lstat(c.store.RealPath(leads)); errors.Is(err, fs.ErrNotExist) {
		return os.Symlink(target, to) // it dangles in the store, too
	}
	return c.copy(leads, to, links+1)
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if e := out.Close(); err == nil {
		err = e
	}
	return err
}
