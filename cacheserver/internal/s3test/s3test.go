// Package s3test starts real S3 servers for tests: each on a free port of this
// machine, with a directory and keys of its own, for as long as its test runs.
package s3test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sys/unix"
)

// withMinIO, set to 1 in the environment, lets tests build MinIO.
const withMinIO = "S3TEST_MINIO"

// startWithin is how long a server may take until it answers.
const startWithin = 2 * time.Minute

// Server is a server that runs, but between Stop and Start.
type Server struct {
	Endpoint  string // "http://127.0.0.1:port", the same for all of its life
	AccessKey string
	SecretKey string

	binary string
	args   func(address string) []string
	env    []string
	dir    string

	mu      sync.Mutex
	process *exec.Cmd
	exited  chan struct{}
	output  lockedBuffer
}

// Versitygw starts a versitygw over a file system. It builds it first, which
// takes a machine a minute or two when it does so for the first time.
func Versitygw(t testing.TB) *Server {
	t.Helper()
	return VersitygwOn(t, t.TempDir())
}

// VersitygwOn is Versitygw with its objects in a directory.
func VersitygwOn(t testing.TB, dir string) *Server {
	t.Helper()
	s := newServer(versitygw.binary(t), dir)
	s.env = []string{"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey}
	s.args = func(address string) []string {
		return []string{"--port", address, "--quiet", "--keep-alive", "posix", dir}
	}
	s.startAnywhere(t)
	return s
}

// MinIO starts a MinIO with one directory. To build it takes a machine several
// minutes the first time, so that tests do it only where they are told to.
func MinIO(t testing.TB) *Server {
	t.Helper()
	if os.Getenv(withMinIO) != "1" {
		t.Skipf("MinIO takes minutes to build: set %s=1 for the tests with it", withMinIO)
	}
	dir := t.TempDir()
	s := newServer(minioD.binary(t), dir)
	s.env = []string{"MINIO_ROOT_USER=" + s.AccessKey, "MINIO_ROOT_PASSWORD=" + s.SecretKey, "MINIO_BROWSER=off", "MINIO_CI_CD=1"}
	s.args = func(address string) []string {
		return []string{"server", "--quiet", "--address", address, "--config-dir", filepath.Join(dir, "config"), filepath.Join(dir, "data")}
	}
	s.startAnywhere(t)
	return s
}

func newServer(binary, dir string) *Server {
	return &Server{binary: binary, dir: dir, AccessKey: rand.Text()[:16], SecretKey: rand.Text()}
}

// startAnywhere starts the server on a port that is its own to the end of the test,
// also while it is stopped.
func (s *Server) startAnywhere(t testing.TB) {
	t.Helper()
	address, release, err := reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stop()
		release()
	})
	s.Endpoint = "http://" + address
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// reserve binds a socket to a free port, and does not listen: the kernel gives the port
// to nobody who asks for any, and to a server that names it, as both say SO_REUSEADDR.
// Until one listens, connections are refused.
func reserve() (address string, release func(), err error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("reserving a port: %w", err)
	}
	release = func() { _ = unix.Close(socket) }
	err = errors.Join(
		unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(socket, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
	)
	bound, nameErr := unix.Getsockname(socket)
	at, ok := bound.(*unix.SockaddrInet4)
	if err = errors.Join(err, nameErr); err != nil || !ok {
		release()
		return "", nil, fmt.Errorf("reserving a port: %w", err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.Port), release, nil
}

// Stop ends the server as a crash would.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.stop()
}

func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		_ = s.process.Process.Kill()
		<-s.exited
		s.process = nil
	}
}

// Pause makes a server that still takes connections and answers nothing, until
// Resume or Stop.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	s.signal(t, unix.SIGSTOP)
	// The signal was sent; its threads stop one after the other.
	for !s.isStopped(t) {
		time.Sleep(time.Millisecond)
	}
}

func (s *Server) isStopped(t testing.TB) bool {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.process.Process.Pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("looking for the server's threads: %v", err)
	}
	for _, thread := range threads {
		b, err := os.ReadFile(thread)
		if err != nil {
			return false // it has ended since
		}
		// The state follows the command's name, which is in parentheses.
		_, state, _ := strings.Cut(string(b), ") ")
		if !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return true
}

// Resume ends a Pause.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	s.signal(t, unix.SIGCONT)
}

func (s *Server) signal(t testing.TB, sig os.Signal) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.process.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// Start starts the server again after Stop, with its objects and its address.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd := exec.Command(s.binary, s.args(strings.TrimPrefix(s.Endpoint, "http://"))...)
	cmd.Dir = s.dir
	cmd.Env = append([]string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH")}, s.env...)
	// A test process that is killed cleans nothing up.
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", s.binary, err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // it is killed
	}()
	if err := s.await(ctx, exited); err != nil {
		_ = cmd.Process.Kill()
		<-exited
		return fmt.Errorf("starting %s: %w\n%s", s.binary, err, s.output.String())
	}
	s.process, s.exited = cmd, exited
	return nil
}

// await waits until the server answers to its keys, which no other has.
func (s *Server) await(ctx context.Context, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	client, err := s.client()
	if err != nil {
		return err
	}
	for {
		if _, err = client.ListBuckets(ctx); err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("it ended: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) client() (*minio.Client, error) {
	return minio.New(strings.TrimPrefix(s.Endpoint, "http://"), &minio.Options{
		Creds:      credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""),
		MaxRetries: 1,
	})
}

// NewBucket makes an empty bucket and returns its name.
func (s *Server) NewBucket(t testing.TB) string {
	t.Helper()
	client, err := s.client()
	if err != nil {
		t.Fatal(err)
	}
	name := strings.ToLower("packs-" + rand.Text())
	if err := client.MakeBucket(t.Context(), name, minio.MakeBucketOptions{}); err != nil {
		t.Fatalf("making a bucket: %v", err)
	}
	return name
}

// lockedBuffer keeps what a server says, for the message when it does not start.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
