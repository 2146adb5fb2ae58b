// Package pgtest gives tests a real PostgreSQL.
package pgtest

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// startTime bounds how long a server may take to answer once it is started.
const startTime = 2 * time.Minute

// supervisor is the shell script that is a server's parent. It outlives the test
// process by a moment, also one that is killed, and leaves nothing behind.
//
//go:embed supervise.sh
var supervisor string

// errNoServer makes tests skip.
var errNoServer = errors.New("the test needs PostgreSQL")

// Server is a PostgreSQL server with one cluster of databases in a temporary
// directory. It listens on a socket there, and nowhere else.
type Server struct {
	dir       string
	databases atomic.Int64

	mu       sync.Mutex // one command at a time
	commands io.WriteCloser
	answers  *bufio.Scanner
	ended    func() error
}

var shared = sync.OnceValues(func() (*Server, error) { return start(nil) })

// Database returns the URL of a new, empty database in a server that the tests
// of this process share and that ends with the process. The database is removed
// when the test is over. The test is skipped where PostgreSQL is not installed.
func Database(t testing.TB) string {
	t.Helper()
	s, err := shared()
	check(t, err)
	return s.Database(t)
}

// New starts a server of the test's own, for tests that stop it. It is gone when
// the test is over. Settings are those of postgresql.conf, as name=value; fsync
// is off unless they turn it on.
func New(t testing.TB, settings ...string) *Server {
	t.Helper()
	s, err := start(settings)
	check(t, err)
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func check(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, errNoServer) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Database returns the URL of a new, empty database, which is removed when the
// test is over. The server must run then.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	// Nobody can be connected to template0, which would be in the way.
	if err := s.admin("CREATE DATABASE " + name + " TEMPLATE template0"); err != nil {
		t.Fatalf("creating a database: %v", err)
	}
	t.Cleanup(func() {
		if err := s.admin("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("removing a database: %v", err)
		}
	})
	return s.url(name)
}

// Stop ends the server as an operator does: sessions are told and cut off. It
// returns when the server has ended.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	check(t, s.command("stop"))
}

// Crash ends the server without a checkpoint: it has to recover when it starts.
func (s *Server) Crash(t testing.TB) {
	t.Helper()
	check(t, s.command("crash"))
}

// Start starts a server that was stopped, and returns when it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	check(t, s.run())
}

func (s *Server) url(database string) string {
	return (&url.URL{
		Scheme: "postgres", Path: "/" + database,
		RawQuery: url.Values{"host": {s.dir}, "user": {"test"}}.Encode(),
	}).String()
}

func (s *Server) admin(statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // the statement has succeeded or failed already
	_, err = conn.Exec(ctx, statement)
	return err
}

func start(settings []string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	args := []string{"-c", supervisor, "supervise.sh", bin}
	for _, setting := range append([]string{
		"fsync=off", "listen_addresses=", "max_connections=200", "shared_buffers=64MB", "deadlock_timeout=100ms",
	}, settings...) {
		args = append(args, "-c", setting)
	}
	cmd := exec.Command("sh", args...)
	cmd.Dir = "/" // the tests' own need not be open to the server's user
	if err := apart(cmd); err != nil {
		return nil, err
	}
	s := &Server{ended: cmd.Wait}
	if s.commands, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.answers = bufio.NewScanner(answers)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the shell that runs PostgreSQL: %w", err)
	}
	if !s.answers.Scan() {
		return nil, errors.Join(errors.New("PostgreSQL's shell made no temporary directory"), s.close())
	}
	s.dir = s.answers.Text()
	if err := s.command("init"); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := s.run(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// run starts the server and waits until it answers.
func (s *Server) run() error {
	if err := s.command("start"); err != nil {
		return err
	}
	var err error
	for began := time.Now(); time.Since(began) < startTime; time.Sleep(10 * time.Millisecond) {
		if err = s.admin("SELECT"); err == nil {
			return nil
		}
	}
	return fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, s.log())
}

func (s *Server) command(command string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := fmt.Fprintln(s.commands, command); err != nil {
		return fmt.Errorf("PostgreSQL's shell: %s: %w", command, err)
	}
	if !s.answers.Scan() || s.answers.Text() != "0" {
		return fmt.Errorf("PostgreSQL's shell: %s: answer %q, %w\n%s", command, s.answers.Text(), s.answers.Err(), s.log())
	}
	return nil
}

func (s *Server) log() []byte {
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return []byte(err.Error())
	}
	return b
}

func (s *Server) close() error {
	err := s.commands.Close()
	if e := s.ended(); e != nil {
		err = errors.Join(err, fmt.Errorf("PostgreSQL's shell: %w", e))
	}
	return err
}

// binaries returns the directory of initdb and postgres.
func binaries() (string, error) {
	var dirs []string
	if found, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(found))
	}
	// Debian keeps each version apart and only its wrappers in PATH.
	versions, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well-formed
	slices.SortFunc(versions, func(a, b string) int { return major(b) - major(a) })
	dirs = append(dirs, versions...)
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, dir := range dirs {
		if _, err := exec.LookPath(filepath.Join(dir, "initdb")); err != nil {
			continue
		}
		if _, err := exec.LookPath(filepath.Join(dir, "postgres")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%w: initdb and postgres are neither in PATH nor where distributions put them", errNoServer)
}

func major(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin))) // 0 for what is no version
	return n
}
