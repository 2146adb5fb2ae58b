package s3test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/filelock"
)

// program is a server that is built from source, at the version that the go.mod
// in its directory under servers says.
type program struct {
	name    string
	pkg     string
	budget  time.Duration // for a build with nothing cached
	once    sync.Once
	path    string
	err     error
	missing bool // err is something that the machine lacks
}

var (
	versitygw = program{name: "versitygw", pkg: "github.com/versity/versitygw/cmd/versitygw", budget: 10 * time.Minute}
	minioD    = program{name: "minio", pkg: "github.com/minio/minio", budget: 30 * time.Minute}
)

// binary returns the program's path, and builds it where this machine has not
// done so yet.
func (p *program) binary(t testing.TB) string {
	t.Helper()
	p.once.Do(func() { p.path, p.err = p.build() })
	if p.missing {
		t.Skipf("%s is not to be had: %v", p.name, p.err)
	}
	if p.err != nil {
		t.Fatal(p.err)
	}
	return p.path
}

func (p *program) build() (path string, err error) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		p.missing = true
		return "", errors.New("the go command, which builds it, is not installed")
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.budget)
	defer cancel()
	root, err := exec.CommandContext(ctx, goTool, "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module's directory: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "cacheserver/internal/s3test/servers", p.name)
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, file := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(source, file))
		if err != nil {
			return "", err
		}
		sum.Write(b)
	}
	path = filepath.Join(cache, fmt.Sprintf("%s-%.16x", p.name, sum.Sum(nil)))
	unlock, err := lock(ctx, path+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	tmp := path + ".tmp"
	defer os.Remove(tmp)
	cmd := exec.CommandContext(ctx, goTool, "build", "-buildvcs=false", "-o", tmp, p.pkg)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		p.missing = unreachable.Match(out)
		return "", fmt.Errorf("building %s: %w\n%s", p.name, err, out)
	}
	return path, os.Rename(tmp, path)
}

// unreachable matches what go says when it is modules that it cannot get.
var unreachable = regexp.MustCompile(`(?m)(Get|reading) "?https?://|module lookup disabled|dial tcp`)

func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	dir := filepath.Join(base, "attic-cache-s3test")
	return dir, os.MkdirAll(dir, 0o700)
}

// lock waits until no other process builds the same.
func lock(ctx context.Context, file string) (unlock func(), err error) {
	for {
		f, err := filelock.Open(file)
		if err == nil {
			return func() { _ = filelock.Release(f) }, nil
		}
		if !errors.Is(err, filelock.ErrHeld) {
			return nil, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for another process that builds the same: %w", ctx.Err())
		}
	}
}
