package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// killDelay is how long a cancelled step has from SIGTERM to SIGKILL: enough
// for a package manager to leave its database whole.
const killDelay = 10 * time.Second

// Run runs the steps in order and ends at the first that fails. Before each it
// writes "setup: <why>: <command line>" to out, and then all the step prints.
// Standard input is empty: nothing may wait for an answer but sudo, which asks
// for a password on the terminal.
//
// When ctx is done the running step and its children get SIGTERM, after
// killDelay SIGKILL, and Run returns an error that wraps ctx's cause. A user
// may not signal a step under sudo: Ctrl-C reaches that from the terminal, and
// Run returns when it ends.
func Run(ctx context.Context, steps []Step, out io.Writer) error {
	return run(ctx, steps, out, killDelay)
}

func run(ctx context.Context, steps []Step, out io.Writer, delay time.Duration) error {
	for _, step := range steps {
		if ctx.Err() != nil {
			return fmt.Errorf("setup did not %s: %w", step.Why, context.Cause(ctx))
		}
		if _, err := fmt.Fprintf(out, "setup: %s: %s\n", step.Why, step.CommandLine()); err != nil {
			return fmt.Errorf("setup did not %s, being unable to announce it: %w", step.Why, err)
		}
		if err := step.run(ctx, out, delay); err != nil {
			return fmt.Errorf("setup could not %s: %w", step.Why, err)
		}
	}
	return nil
}

func (s Step) run(ctx context.Context, out io.Writer, delay time.Duration) error {
	cmd := exec.CommandContext(ctx, s.Command[0], s.Command[1:]...)
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = delay
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }

	// A group of its own lets one signal reach all that a step has started. A
	// step under sudo stays in ours: only the terminal's foreground group may
	// read a password from it, any other is stopped.
	grouped := s.Command[0] != "sudo"
	if grouped {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return signalGroup(cmd.Process.Pid, syscall.SIGTERM) }
	}

	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() == nil {
		if errors.Is(err, exec.ErrWaitDelay) {
			// The step succeeded; a service its package started holds on to
			// our output.
			return nil
		}
		return err
	}
	if grouped && cmd.Process != nil {
		// exec kills the step alone. Its children may have outlived it, and
		// while one has, the group's number is not given anew.
		_ = signalGroup(cmd.Process.Pid, syscall.SIGKILL)
	}
	if cause := context.Cause(ctx); !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// signalGroup signals every process of the group pid leads. It returns
// os.ErrProcessDone when none is left, as exec.Cmd.Cancel wants it.
func signalGroup(pid int, signal syscall.Signal) error {
	err := syscall.Kill(-pid, signal)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}
