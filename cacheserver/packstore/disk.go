package packstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	suffix = ".pack"
	// staging holds packs that are being written. One that a crash left behind
	// is removed at a later start, when no writer can still be at it.
	staging    = "incoming"
	staleAfter = 24 * time.Hour
)

// Disk keeps packs as files in a directory, fanned out over subdirectories by
// the last two characters of their names.
type Disk struct {
	dir     string
	fans    sync.Map // subdirectories known to survive a crash
	journal *journal
}

// OpenDisk opens the directory, which it creates when it is missing, restores what
// a crash of this machine took of packs that were put, and removes what writers
// that died more than a day ago left half-written. Close ends it.
func OpenDisk(dir string) (*Disk, error) {
	incoming := filepath.Join(dir, staging)
	if err := os.MkdirAll(incoming, 0o700); err != nil {
		return nil, fmt.Errorf("opening the pack store %s: %w", dir, err)
	}
	entries, err := os.ReadDir(incoming)
	if err != nil {
		return nil, fmt.Errorf("opening the pack store %s: %w", dir, err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), journalPrefix) {
			continue
		}
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < staleAfter {
			continue
		}
		if err := os.Remove(filepath.Join(incoming, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("removing a half-written pack: %w", err)
		}
	}
	d := &Disk{dir: dir}
	d.journal = &journal{dir: incoming, settle: d.settle}
	if err := replayJournals(incoming, d.restore); err != nil {
		return nil, fmt.Errorf("opening the pack store %s: %w", dir, err)
	}
	return d, nil
}

// Close makes the next OpenDisk faster: nothing is lost without it. No other method
// may be called any more.
func (d *Disk) Close() error { return d.journal.close() }

func (d *Disk) path(name string) string {
	return filepath.Join(d.dir, fan(name), name+suffix)
}

// fan is the subdirectory that a pack's files are in.
func fan(name string) string {
	if len(name) < 2 {
		return "00"
	}
	return name[len(name)-2:]
}

// Put implements Store: write beside, fsync, link into place, fsync the
// directory. Link, unlike rename, never replaces a pack that is there. Small packs
// are written to the journal in place of both fsyncs.
func (d *Disk) Put(ctx context.Context, name string, size int64, body io.Reader) (err error) {
	if err := CheckName(name); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
				err = fmt.Errorf("%w: %w", ErrNoSpace, err)
			}
			err = fmt.Errorf("writing pack %s: %w", name, err)
		}
	}()
	small := size <= maxJournaled
	var read bytes.Buffer
	body = io.LimitReader(contextReader{ctx, body}, size+1)
	if small {
		body = io.TeeReader(body, &read)
	}
	written, err := d.write(name, size, body, !small)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(written) }()
	target := d.path(name)
	if _, err := os.Lstat(target); err == nil {
		return ErrExists
	}
	if small && d.journal.put(name, read.Bytes()) {
		err := os.Mkdir(filepath.Dir(target), 0o700)
		if err == nil || errors.Is(err, fs.ErrExist) {
			err = link(written, target)
		}
		if err != nil {
			d.journal.forget(name)
		}
		return err
	}
	if small {
		if err := syncFile(written); err != nil {
			return err
		}
	}
	if err := d.makeFan(filepath.Dir(target)); err != nil {
		return err
	}
	if err := link(written, target); err != nil {
		return err
	}
	if err := syncFile(filepath.Dir(target)); err != nil {
		// The name may not survive a crash, so it must not be seen either.
		_ = os.Remove(target)
		return err
	}
	return nil
}

// write writes the file of a pack beside the others.
func (d *Disk) write(name string, size int64, body io.Reader, sync bool) (path string, err error) {
	f, err := os.CreateTemp(filepath.Join(d.dir, staging), name+"-")
	if err != nil {
		return "", err
	}
	n, err := io.Copy(f, body)
	if err == nil && n != size {
		err = fmt.Errorf("the body has not the %d bytes that were announced", size)
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

func link(from, to string) error {
	err := os.Link(from, to)
	if errors.Is(err, fs.ErrExist) {
		return ErrExists
	}
	return err
}

// restore makes packs what a journal says that they are, and durable.
func (d *Disk) restore(packs map[string][]byte) error {
	for name, body := range packs {
		target := d.path(name)
		if is, err := os.ReadFile(target); err == nil && bytes.Equal(is, body) {
			continue
		}
		written, err := d.write(name, int64(len(body)), bytes.NewReader(body), false)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return err
		}
		if err := os.Rename(written, target); err != nil {
			return err
		}
	}
	return d.settle(slices.Collect(maps.Keys(packs)))
}

// settle makes the files of packs durable, those that were not deleted.
func (d *Disk) settle(packs []string) error {
	fans := map[string]bool{}
	g := new(errgroup.Group)
	// The file system makes those durable together that wait for it together.
	g.SetLimit(16)
	for _, name := range packs {
		path := d.path(name)
		fans[filepath.Dir(path)] = true
		g.Go(func() error {
			if err := syncFile(path); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for dir := range fans {
		if err := errors.Join(d.makeFan(dir), syncFile(dir)); err != nil {
			return err
		}
	}
	return nil
}

func (d *Disk) makeFan(dir string) error {
	if _, durable := d.fans.Load(dir); durable {
		return nil
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// One that is there may have been made a moment ago by another process.
	if err := syncFile(d.dir); err != nil {
		return err
	}
	d.fans.Store(dir, true)
	return nil
}

// Open implements Store; the reader is an *os.File.
func (d *Disk) Open(_ context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, notFound(name, err)
	}
	info, err := f.Stat()
	if err == nil && (offset < 0 || length < 0 || offset > info.Size()-length) {
		err = fmt.Errorf("%w: %d bytes at offset %d of %d", io.ErrUnexpectedEOF, length, offset, info.Size())
	}
	if err == nil {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("reading pack %s: %w", name, err)
	}
	return f, nil
}

// Size implements Store.
func (d *Disk) Size(_ context.Context, name string) (int64, error) {
	if err := CheckName(name); err != nil {
		return 0, err
	}
	info, err := os.Stat(d.path(name))
	if err != nil {
		return 0, notFound(name, err)
	}
	return info.Size(), nil
}

// List implements Store.
func (d *Disk) List(ctx context.Context, visit func(name string, size int64) error) error {
	return filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("listing packs: %w", err)
		case ctx.Err() != nil:
			return ctx.Err()
		case e.IsDir() && e.Name() == staging:
			return fs.SkipDir
		case e.IsDir() || !strings.HasSuffix(e.Name(), suffix):
			return nil
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("listing packs: %w", err)
		}
		return visit(strings.TrimSuffix(e.Name(), suffix), info.Size())
	})
}

// Delete implements Store.
func (d *Disk) Delete(_ context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := os.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deleting pack %s: %w", name, err)
	}
	d.journal.forget(name)
	return nil
}

func notFound(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	return fmt.Errorf("reading pack %s: %w", name, err)
}

// syncFile makes a file's contents durable, and a directory's names.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// contextReader ends a copy between two reads when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}
