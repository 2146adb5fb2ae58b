package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// changedPart is how many paths there are for each that changes.
const changedPart = 100

// leastPath is how large the smallest path is, in bytes.
const leastPath = 1 << 10

// madeStore is a Nix store that the benchmark made.
type madeStore struct {
	dir     string
	paths   []string
	changed []string // the same, but for those that changed
	bytes   int64
	env     []string
}

// makeStore fills a store with files; their sizes are even on a scale of logarithms.
func makeStore(ctx context.Context, dir string, o storeOptions) (*madeStore, error) {
	conf, files := filepath.Join(dir, "conf"), filepath.Join(dir, "files")
	s := &madeStore{dir: filepath.Join(dir, "store"), env: []string{
		"NIX_STORE_DIR=" + filepath.Join(dir, "store"), "NIX_STATE_DIR=" + filepath.Join(dir, "state"),
		"NIX_LOG_DIR=" + filepath.Join(dir, "log"), "NIX_CONF_DIR=" + conf,
	}}
	for _, d := range []string{conf, files} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	const settings = "sandbox = false\nbuild-users-group =\nsubstituters =\nexperimental-features = nix-command\n"
	if err := os.WriteFile(filepath.Join(conf, "nix.conf"), []byte(settings), 0o600); err != nil {
		return nil, err
	}
	rng := rand.New(source(storeSeed, 0)) // #nosec G404 -- no secret depends on it
	scale := math.Log(max(1, float64(o.largest)/leastPath))
	var names, newNames []string
	for i := range o.paths {
		n := int64(leastPath * math.Exp(rng.Float64()*scale))
		name := filepath.Join(files, fmt.Sprintf("path-%05d", i))
		if err := writeFile(name, source(storeSeed, uint64(i)+1), n, i%2 == 0); err != nil {
			return nil, fmt.Errorf("making up a store: %w", err)
		}
		s.bytes += n
		names = append(names, name)
	}
	var err error
	if s.paths, err = s.add(ctx, names); err != nil {
		return nil, err
	}
	s.changed = slices.Clone(s.paths)
	for i := 0; i < o.paths; i += changedPart {
		if err := addLine(names[i]); err != nil {
			return nil, fmt.Errorf("making up a store: %w", err)
		}
		newNames = append(newNames, names[i])
	}
	added, err := s.add(ctx, newNames)
	if err != nil {
		return nil, err
	}
	for i, p := range added {
		s.changed[i*changedPart] = p
	}
	return s, os.RemoveAll(files)
}

// storeSeed makes the files other ones than those of packages.
const storeSeed = 7

// addLine puts a line into the middle of a file.
func addLine(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return os.WriteFile(name, slices.Insert(text, len(text)/2, []byte("a line more\n")...), 0o600)
}

// add makes store paths of files, in their order.
func (s *madeStore) add(ctx context.Context, files []string) ([]string, error) {
	cmd := exec.CommandContext(ctx, "nix-store", append([]string{"--add"}, files...)...)
	cmd.Env = s.environ(filepath.Dir(s.dir))
	cmd.Stderr = &tail{}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("nix-store --add: %w: %s (Nix is in Debian's nix-bin)", err, cmd.Stderr)
	}
	paths := strings.Fields(string(out))
	if len(paths) != len(files) {
		return nil, fmt.Errorf("nix-store --add made %d paths of %d files", len(paths), len(files))
	}
	return paths, nil
}

// environ is that of a user whose home is new, and who uses this store.
func (s *madeStore) environ(home string) []string {
	own := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NIX_") || strings.HasPrefix(v, "XDG_") || strings.HasPrefix(v, "HOME=")
	})
	return slices.Concat(own, s.env, []string{"HOME=" + home})
}

// spent is what a client took.
type spent struct {
	wall, cpu time.Duration
	peakRSS   int64 // bytes, of the largest of its processes
}

func (s *madeStore) push(ctx context.Context, flywheel, home, url string, paths []string) (spent, error) {
	return s.run(ctx, home, strings.NewReader(strings.Join(paths, "\n")), flywheel, "push", "--cache", url, "--stdin", "--retries", "0")
}

func (s *madeStore) copy(ctx context.Context, home, url string, paths []string) (spent, error) {
	return s.run(ctx, home, nil, "nix", append([]string{"copy", "--to", url}, paths...)...)
}

// run runs a client and measures it, with all processes that it waited for.
func (s *madeStore) run(ctx context.Context, home string, stdin io.Reader, program string, args ...string) (spent, error) {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return spent{}, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Stdin = s.environ(home), stdin
	cmd.Stderr = &tail{}
	began := time.Now()
	err := cmd.Run()
	took := spent{wall: time.Since(began)}
	if err != nil {
		return spent{}, fmt.Errorf("%s: %w: %s", filepath.Base(program), err, cmd.Stderr)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return spent{}, errors.New("the system does not tell what a process used")
	}
	took.cpu = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	took.peakRSS = usage.Maxrss << 10
	return took, nil
}

// tail keeps the end of what a program says.
type tail struct{ bytes.Buffer }

const keptTail = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	n, err := t.Buffer.Write(b)
	if more := t.Len() - keptTail; more > 0 {
		t.Next(more)
	}
	return n, err
}

// inDirectory runs work in a new directory, which is removed after it.
func inDirectory(dir string, work func() error) (err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return work()
}
