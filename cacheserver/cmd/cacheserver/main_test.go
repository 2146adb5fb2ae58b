package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"cacheserver": main})
}

var commands = map[string]func(*testscript.TestScript, bool, []string){
	"status": status,
	"start":  start,
	"signal": kill,
	"get":    get,
	// They fill a store, and age and damage it.
	"push":    pushPath,
	"age":     ageStore,
	"packs":   changePacks,
	"lock":    lockStore,
	"noindex": emptyIndex,
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:         "testdata",
		WorkdirRoot: t.TempDir(), // its own is left behind when not all scripts are run
		Setup: func(env *testscript.Env) error {
			env.Values[serversKey{}] = map[string]*server{}
			env.Setenv("XDG_CACHE_HOME", env.WorkDir+"/cache")
			return nil
		},
		Cmds:                commands,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// status N CMD ARG… runs a command and wants that exit status.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N CMD [ARG…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// server is a cacheserver in the background.
type server struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr bytes.Buffer
}

var (
	servingAt = regexp.MustCompile(`^serving cache "main" at http://(\S+), data in `)
	keyLine   = regexp.MustCompile(`^  extra-trusted-public-keys = (\S+)$`)
)

// start NAME ARG… runs `cacheserver serve` on a free port, in the background. It
// goes on as soon as the server has said where it is, and puts that in
// $NAME_ADDR and $NAME_KEY.
func start(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: start NAME [ARG…]")
	}
	self, err := os.Executable()
	ts.Check(err)
	s := &server{cmd: exec.Command(self)}
	s.cmd.Args = append([]string{"cacheserver", "serve", "--listen", "127.0.0.1:0"}, args[1:]...)
	s.cmd.Dir = ts.MkAbs(".")
	s.cmd.Env = os.Environ()
	for _, name := range []string{"HOME", "XDG_CACHE_HOME", "CACHESERVER_DATA", "CACHESERVER_GC_INTERVAL", "CACHESERVER_VERBOSE", "CACHESERVER_CONFIG"} {
		if value := ts.Getenv(name); value != "" {
			s.cmd.Env = append(s.cmd.Env, name+"="+value)
		}
	}
	s.cmd.Stderr = &s.stderr
	out, err := s.cmd.StdoutPipe()
	ts.Check(err)
	s.stdout = bufio.NewReader(out)
	ts.Check(s.cmd.Start())
	ts.Defer(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	for {
		line, err := s.stdout.ReadString('\n')
		if err != nil {
			_ = s.cmd.Wait()
			ts.Fatalf("it ended before it served: %v\n%s", err, s.stderr.Bytes())
		}
		line = strings.TrimSuffix(line, "\n")
		if m := servingAt.FindStringSubmatch(line); m != nil {
			ts.Setenv(args[0]+"_ADDR", m[1])
		}
		if m := keyLine.FindStringSubmatch(line); m != nil {
			ts.Setenv(args[0]+"_KEY", m[1])
			break
		}
	}
	servers(ts)[args[0]] = s
}

type serversKey struct{}

// servers are those that a script started, by their names.
func servers(ts *testscript.TestScript) map[string]*server {
	m, _ := ts.Value(serversKey{}).(map[string]*server)
	return m
}

// signal NAME SIGNAL ends a server with it; its exit status, or the signal that ended
// it, is then in $NAME_STATUS, and what it wrote to stderr is the stderr; to stdout, what came after its key.
func kill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: signal NAME TERM|INT|KILL")
	}
	s := servers(ts)[args[0]]
	sig, ok := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}[args[1]]
	if s == nil || !ok {
		ts.Fatalf("no server %s or no signal %s", args[0], args[1])
	}
	ts.Check(s.cmd.Process.Signal(sig))
	_, err := io.Copy(ts.Stdout(), s.stdout)
	ts.Check(err)
	_ = s.cmd.Wait() // its outcome is in ProcessState
	ts.Setenv(args[0]+"_STATUS", s.cmd.ProcessState.String())
	_, _ = ts.Stderr().Write(s.stderr.Bytes())
}

// get URL prints the body that the URL answers with, and wants it to be a 200.
func get(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] get URL")
	}
	resp, err := http.Get(args[0])
	if err == nil {
		defer resp.Body.Close()
		_, err = io.Copy(ts.Stdout(), resp.Body)
	}
	if ok := err == nil && resp.StatusCode == http.StatusOK; ok == neg {
		ts.Fatalf("%s: ok %v, error %v", args[0], ok, err)
	}
}
