package setup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	soon  = 2 * time.Minute       // bounds what these tests wait for on a busy machine
	brief = 50 * time.Millisecond // a delay that is to pass
	never = 10 * soon             // a delay that is not to pass
)

func shell(why, script string) Step { return Step{Why: why, Command: []string{"sh", "-c", script}} }

func TestRun(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	steps := []Step{
		{Why: "greet", Command: []string{"echo", "it's me"}},
		{Why: "pass a variable", Command: []string{"sh", "-c", `echo "$GREETING" >&2`}, Env: []string{"GREETING=good day"}},
		shell("read nothing", `read -r line || echo "no input"`),
	}
	if err := Run(t.Context(), steps, &out); err != nil {
		t.Fatal(err)
	}
	want := `setup: greet: echo 'it'\''s me'
it's me
setup: pass a variable: GREETING='good day' sh -c 'echo "$GREETING" >&2'
good day
setup: read nothing: sh -c 'read -r line || echo "no input"'
no input
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestRunEndsAtFailure(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := Run(t.Context(), []Step{
		{Why: "fail", Command: []string{"false"}},
		{Why: "go on", Command: []string{"echo", "unreached"}},
	}, &out)
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("got error %v", err)
	}
	if want := "setup could not fail: exit status 1"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if want := "setup: fail: false\n"; out.String() != want {
		t.Errorf("got output %q, want %q", out.String(), want)
	}
}

func TestRunMissingProgram(t *testing.T) {
	t.Parallel()
	err := Run(t.Context(), []Step{{Why: "try", Command: []string{"no-such-program-here"}}}, io.Discard)
	if !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("got error %v", err)
	}
}

// brokenWriter fails as a closed pipe does.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestRunNothingUnannounced(t *testing.T) {
	t.Parallel()
	mark := t.TempDir() + "/mark"
	err := Run(t.Context(), []Step{{Why: "leave a mark", Command: []string{"touch", mark}}}, brokenWriter{})
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got error %v", err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("a step ran that was not announced")
	}
}

func TestRunCancelledBefore(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("no longer wanted")
	cancel(cause)
	var out bytes.Buffer
	if err := Run(ctx, []Step{{Why: "greet", Command: []string{"echo"}}}, &out); !errors.Is(err, cause) {
		t.Errorf("got error %v", err)
	}
	if out.Len() > 0 {
		t.Errorf("got output %q", out.String())
	}
}

// startRun runs step and returns the process id it prints as its first line,
// once it has, with the functions that cancel the run and await its error.
func startRun(t *testing.T, step Step, delay time.Duration) (pid int, cancel context.CancelFunc, wait func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, []Step{step}, w, delay)
		_ = w.Close()
		done <- err
	}()
	lines := bufio.NewReader(r)
	if _, err := lines.ReadString('\n'); err != nil { // the announcement
		t.Fatal(err)
	}
	if _, err := fmt.Fscanln(lines, &pid); err != nil {
		t.Fatalf("reading the process id: %v", err)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return pid, cancel, func() error {
		select {
		case err := <-done:
			return err
		case <-time.After(soon):
			t.Fatal("the run goes on")
			return nil
		}
	}
}

// stat is the state of process pid and its parent, as in proc_pid_stat(5); there is
// no state of one that is gone.
func stat(pid int) (state string, parent int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	_, _ = fmt.Sscan(rest, &state, &parent)
	return state, parent
}

// running reports whether process pid is there and no zombie.
func running(pid int) bool {
	state, _ := stat(pid)
	return state != "" && state != "Z" && state != "X"
}

// awaitSleep waits until process pid waits for something: a signal that arrives
// before that, while it has signals blocked, would not end it at once.
func awaitSleep(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(soon); ; time.Sleep(5 * time.Millisecond) {
		state, _ := stat(pid)
		if state == "S" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is in state %q", pid, state)
		}
	}
}

func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(soon); running(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d outlived the run", pid)
		}
	}
}

func TestRunCancelled(t *testing.T) {
	t.Parallel()
	// Each script prints the process id of a child that is past its own
	// beginnings: a signal in between fork and exec would be lost to it.
	const child = `sh -c 'echo $$; exec sleep 600' & wait`
	for _, tt := range []struct {
		name, script string
		delay        time.Duration
		want         string
	}{
		{"polite", child, never, "signal: terminated"},
		{"cleans up", `trap 'exit 3' TERM; ` + child, never, "exit status 3"},
		{"deaf", `trap '' TERM; ` + child, brief, "signal: killed"},
		{"deaf child", `sh -c 'trap "" TERM; echo $$; exec sleep 600' & wait`, brief, "signal: terminated"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pid, cancel, wait := startRun(t, shell("wait", tt.script), tt.delay)
			_, parent := stat(pid)
			awaitSleep(t, parent) // a shell has signals blocked while it forks
			cancel()
			err := wait()
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got error %v", err)
			}
			if want := "setup could not wait: context canceled: " + tt.want; err == nil || err.Error() != want {
				t.Errorf("got error %q, want %q", err, want)
			}
			awaitEnd(t, pid)
		})
	}
}

// A package may start a service, which keeps the output open for good.
func TestRunService(t *testing.T) {
	t.Parallel()
	// The step ends when its output was read, which is read for delay at most then.
	read := t.TempDir() + "/read"
	pid, _, wait := startRun(t, shell("wait", `sleep 600 & echo $!; until [ -e `+read+` ]; do sleep 0.01; done`), brief)
	t.Cleanup(func() {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	})
	if err := os.WriteFile(read, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := wait(); err != nil {
		t.Errorf("got error %v", err)
	}
	if !running(pid) {
		t.Error("the service was killed")
	}
}

// sudo reads a password from the terminal, which only the foreground process
// group may; being root's, it may also be out of reach of our signals.
func TestRunSudo(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(bin+"/sudo", []byte("#!/bin/sh\nexec \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	group := func(step Step) string {
		var out bytes.Buffer
		if err := Run(t.Context(), []Step{step}, &out); err != nil {
			t.Fatal(err)
		}
		_, stat, _ := strings.Cut(strings.TrimSpace(out.String()), "\n")
		return strings.Fields(stat)[4] // pgrp of proc_pid_stat(5)
	}
	ours := fmt.Sprint(syscall.Getpgrp())
	if got := group(Step{Why: "look", Command: []string{"sudo", "cat", "/proc/self/stat"}}); got != ours {
		t.Errorf("sudo runs in group %s, not in ours, %s", got, ours)
	}
	if got := group(Step{Why: "look", Command: []string{"cat", "/proc/self/stat"}}); got == ours {
		t.Errorf("a step runs in our group, %s", ours)
	}

	pid, cancel, wait := startRun(t, Step{Why: "wait", Command: []string{"sudo", "sh", "-c", "echo $$; exec sleep 600"}}, never)
	cancel()
	err := wait()
	if want := "setup could not wait: context canceled: signal: terminated"; err == nil || err.Error() != want {
		t.Errorf("got error %q, want %q", err, want)
	}
	awaitEnd(t, pid)
}
