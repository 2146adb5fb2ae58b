package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/gitlab/gitlabtest"
)

type stateKey struct{}

// scriptState is what a script has running.
type scriptState struct {
	processes map[string]*scriptProcess
	servers   map[string]*scriptServer
	gates     map[string]*os.File
	gitlab    *gitlabtest.Server
}

func newState() *scriptState {
	return &scriptState{processes: map[string]*scriptProcess{}, servers: map[string]*scriptServer{}, gates: map[string]*os.File{}}
}

func stateOf(ts *testscript.TestScript) *scriptState { return ts.Value(stateKey{}).(*scriptState) }

// close ends what a script left running. A build that waits at a gate goes on
// when that is closed, so nix is not to be killed under it.
func (s *scriptState) close() {
	for _, p := range s.processes {
		_ = p.cmd.Process.Kill() // it may have ended
	}
	for _, g := range s.gates {
		_ = g.Close()
	}
	for _, srv := range s.servers {
		srv.close()
	}
	if s.gitlab != nil {
		s.gitlab.Close()
	}
	for _, p := range s.processes {
		<-p.done
	}
}

// scriptProcess is a program in the background.
type scriptProcess struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu             sync.Mutex
	grown          *sync.Cond
	stdout, stderr bytes.Buffer
	ended          bool
}

type processStream struct {
	p *scriptProcess
	b *bytes.Buffer
}

func (s processStream) Write(b []byte) (int, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.grown.Broadcast()
	return s.b.Write(b)
}

// cmdBegin starts a program in the background: begin NAME PROGRAM ARGUMENT…
func cmdBegin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: begin NAME PROGRAM [ARGUMENT…]")
	}
	s := stateOf(ts)
	if s.processes[args[0]] != nil {
		ts.Fatalf("%s runs already", args[0])
	}
	program, err := lookPathIn(ts, args[1])
	ts.Check(err)
	p := &scriptProcess{cmd: exec.Command(program, args[2:]...), done: make(chan struct{})}
	p.grown = sync.NewCond(&p.mu)
	p.cmd.Dir = ts.MkAbs(".")
	p.cmd.Env = environOf(ts)
	p.cmd.Stdout, p.cmd.Stderr = processStream{p, &p.stdout}, processStream{p, &p.stderr}
	// Of a program that was killed, children may keep the streams open.
	p.cmd.WaitDelay = 5 * time.Second
	ts.Check(p.cmd.Start())
	s.processes[args[0]] = p
	go func() {
		_ = p.cmd.Wait() // end looks at the status
		p.mu.Lock()
		p.ended = true
		p.grown.Broadcast()
		p.mu.Unlock()
		close(p.done)
	}()
}

// environOf is the script's environment, which testscript tells a variable at a
// time. As for exec, that of whoever runs the tests is no part of it: a job of
// GitLab would have another reporter.
func environOf(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{
		"WORK", "PATH", "HOME", "TMPDIR", "GORACE", "GOCOVERDIR", "DATA", "EXAMPLES",
		"NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_LOG_DIR", "NIX_CONF_DIR", "NIX_CONFIG",
		"XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME",
	} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

func lookPathIn(ts *testscript.TestScript, program string) (string, error) {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return exec.LookPath(program)
}

func (s *scriptState) process(ts *testscript.TestScript, name string) *scriptProcess {
	p := s.processes[name]
	if p == nil {
		ts.Fatalf("there is no process %s", name)
	}
	return p
}

// cmdAwait waits until a program has written what matches, and keeps the first
// group as a variable: await NAME PATTERN [VARIABLE]
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: await NAME PATTERN [VARIABLE]")
	}
	p := stateOf(ts).process(ts, args[0])
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	late := time.AfterFunc(patience, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.grown.Broadcast()
	})
	defer late.Stop()
	began := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		m := pattern.FindStringSubmatch(p.stdout.String() + "\n" + p.stderr.String())
		switch {
		case m != nil:
			if len(args) == 3 {
				ts.Setenv(args[2], m[1])
			}
			return
		case p.ended, time.Since(began) >= patience:
			ts.Fatalf("%s did not write %q:\n%s\n%s", args[0], args[1], p.stdout.String(), p.stderr.String())
		}
		p.grown.Wait()
	}
}

// cmdSignal sends a signal: signal NAME INT|TERM|KILL
func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}
	if neg || len(args) != 2 || signals[args[1]] == 0 {
		ts.Fatalf("usage: signal NAME INT|TERM|KILL")
	}
	ts.Check(stateOf(ts).process(ts, args[0]).cmd.Process.Signal(signals[args[1]]))
}

// cmdEnd waits until a program ends with a status; what it wrote is stdout and
// stderr then: end NAME STATUS
func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: end NAME STATUS")
	}
	s := stateOf(ts)
	p := s.process(ts, args[0])
	select {
	case <-p.done:
	case <-time.After(patience):
		ts.Fatalf("%s does not end:\n%s", args[0], p.stderr.String())
	}
	delete(s.processes, args[0])
	_, _ = p.stdout.WriteTo(ts.Stdout())
	_, _ = p.stderr.WriteTo(ts.Stderr())
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != args[1] {
		ts.Fatalf("%s ended with %s (%v), want %s", args[0], got, p.cmd.ProcessState, args[1])
	}
}

// cmdStatus runs a program that is to end with a status: status STATUS PROGRAM
// ARGUMENT…
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status STATUS PROGRAM [ARGUMENT…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s ended with %d, want %d", args[1], got, want)
	}
}

// cmdGate makes a FIFO at which a build and the script wait for each other: gate
// NAME. A builder writes or reads a line of $WORK/NAME.
func cmdGate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: gate NAME…")
	}
	for _, name := range args {
		file := filepath.Join(ts.Getenv("WORK"), name)
		ts.Check(syscall.Mkfifo(file, 0o600))
		// Open at both ends, it is always there for the builder; not blocking, it
		// has deadlines.
		f, err := os.OpenFile(file, os.O_RDWR|syscall.O_NONBLOCK, 0)
		ts.Check(err)
		stateOf(ts).gates[name] = f
	}
}

// cmdHear waits until a builder has written a line: hear NAME
func cmdHear(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 || stateOf(ts).gates[args[0]] == nil {
		ts.Fatalf("usage: hear GATE")
	}
	f := stateOf(ts).gates[args[0]]
	ts.Check(f.SetReadDeadline(time.Now().Add(patience)))
	var line []byte
	for b := make([]byte, 1); !bytes.HasSuffix(line, []byte("\n")); line = append(line, b...) {
		if _, err := f.Read(b); err != nil {
			ts.Fatalf("nothing is heard at %s: %v", args[0], err)
		}
	}
}

// cmdTell lets a builder that reads a line go on: tell NAME
func cmdTell(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 || stateOf(ts).gates[args[0]] == nil {
		ts.Fatalf("usage: tell GATE")
	}
	_, err := stateOf(ts).gates[args[0]].WriteString("go\n")
	ts.Check(err)
}

// cmdOutput sets variables to the base names of the output that an attribute of
// default.nix has, or will have, and of its derivation: output ATTRIBUTE…
//
// Whole store paths do not belong into an environment: Nix does not collect what
// a process has there.
func cmdOutput(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: output ATTRIBUTE…")
	}
	for _, attr := range args {
		ts.Check(ts.Exec("nix-instantiate", "--quiet", "default.nix", "-A", attr))
		drv := strings.TrimSpace(ts.ReadFile("stdout"))
		ts.Check(ts.Exec("nix-store", "--query", "--outputs", drv))
		ts.Setenv(attr, filepath.Base(strings.TrimSpace(ts.ReadFile("stdout"))))
		ts.Setenv(attr+"_drv", filepath.Base(drv))
	}
}

// cmdRead sets a variable to what a file holds, but for the newline at its end:
// read FILE VARIABLE
func cmdRead(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: read FILE VARIABLE")
	}
	ts.Setenv(args[1], strings.TrimSuffix(ts.ReadFile(args[0]), "\n"))
}

// reportKeys are those of the report's first schema.
var reportKeys = []string{
	"built", "cache", "cacheErrors", "missing", "outcome", "pushed", "pushed.narBytes", "pushed.paths", "pushed.sentBytes",
	"results", "schema", "seconds", "substituted", "timeSaved",
}

// cmdReport reads a report and sees that its keys are those of the schema and
// that its values are: report FILE [KEY=VALUE | KEY:COUNT | KEY~PATTERN]…
// KEY:COUNT is the length of a list, KEY~PATTERN matches one of its elements,
// and KEY=VALUE compares what JSON has, a list with commas between.
func cmdReport(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: report FILE [KEY=VALUE | KEY:COUNT | KEY~PATTERN]…")
	}
	var all map[string]any
	text := ts.ReadFile(args[0])
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		ts.Fatalf("%s: %v\n%s", args[0], err, text)
	}
	nested, _ := all["pushed"].(map[string]any)
	for key, value := range nested {
		all["pushed."+key] = value
	}
	always := maps.Clone(all)
	for _, key := range []string{"outputs", "saved", "unpinned"} { // of some runs only
		delete(always, key)
	}
	if keys := slices.Sorted(maps.Keys(always)); !slices.Equal(keys, reportKeys) {
		ts.Fatalf("%s has the keys %q, want %q", args[0], keys, reportKeys)
	}
	for _, check := range args[1:] {
		i := strings.IndexAny(check, "=:~")
		if i < 0 {
			ts.Fatalf("%q is no check", check)
		}
		key, want := check[:i], check[i+1:]
		value, ok := all[key]
		if !ok {
			ts.Fatalf("%s has no %s", args[0], key)
		}
		var elements []string
		list, isList := value.([]any)
		for _, e := range list {
			elements = append(elements, fmt.Sprint(e))
		}
		switch check[i] {
		case '=':
			got := fmt.Sprint(value)
			if isList {
				got = strings.Join(elements, ",")
			}
			ok = got == want
		case ':':
			ok = isList && strconv.Itoa(len(list)) == want
		case '~':
			pattern, err := regexp.Compile(want)
			ts.Check(err)
			ok = slices.ContainsFunc(elements, pattern.MatchString)
		}
		if !ok {
			ts.Fatalf("%s: %s is %v, want %s", args[0], key, value, check)
		}
	}
}
