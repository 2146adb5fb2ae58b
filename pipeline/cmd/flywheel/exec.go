package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/bazel"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/credential"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/queue"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/target"
)

// Exit statuses of a shell for a command that cannot be started.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

type execOptions struct {
	bazelFlags
	reporting
	cache, data string
}

func execCommand() *cobra.Command {
	o := execOptions{reporting: reporting{shared: true}}
	cmd := &cobra.Command{
		Use:   "exec [--cache URL] -- COMMAND [ARGUMENT…]",
		Short: "Run any command with the cache around it",
		Long: `Runs a command, such as nix develop or nixos-rebuild, and pushes meanwhile what
becomes valid in the Nix store; the command's own nix pulls from the cache. When it
has ended, what is left is pushed. What was not, since the cache was away or flywheel
was killed, is in the queue of flywheel watch; the next exec or watch goes on with it.

A command of Bazel (bazel or bazelisk) pulls from the cache and fills it as Bazel does.
What flywheel bazelrc prints is given to it in a temporary file that only the
caller can read, with the token for the cache (` + tokenVariable + `, netrc, the job's own
identity) when there is one. It counts for more than the workspace's .bazelrc, and
for less than the command's own flags.

Without --cache, a cache server starts in this process, on a free port of the
loopback interface, and keeps its data for the next run.

A cache that does not answer costs one line on standard error; the command then
runs without any, whatever the .bazelrc says. One that dies meanwhile costs Bazel's
warnings, or a line in the summary.

Exit status: the command's own; 128 and the signal's number when a signal ended it.
Signals are passed on to it. Where it was not run:
  2    bad usage
  126  the command cannot be executed
  127  there is no such command`,
		Example: `  flywheel exec --cache https://cache.example.org/main -- nix develop
  flywheel exec --cache https://cache.example.org/main -- nixos-rebuild switch --flake .
  flywheel exec -- bazel build //...
  flywheel exec --cache https://cache.example.org/team -- bazel test //... --keep_going
  flywheel exec --cache grpc://localhost:9090 --download minimal -- bazelisk build //app`,
		Args: func(_ *cobra.Command, args []string) error {
			return usageOf(o.check(args))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := exec.LookPath(args[0])
			if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
				return &exitError{exitNotFound, fmt.Errorf("%s: there is no such command", args[0])}
			}
			if err != nil {
				return &exitError{exitNotExecutable, err}
			}
			if !bazel.Runs(args) {
				return o.watched(cmd, path, args)
			}
			stderr := cmd.ErrOrStderr()
			supplied, end := o.around(stderr).Supply(cmd.Context(), args, func(err error) { fmt.Fprintf(stderr, "flywheel: %v\n", err) })
			status, err := foreground(cmd.Context(), path, supplied, nil)
			end()
			if err != nil {
				return err
			}
			return ended(status)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVar(&o.cache, "cache", "", "`URL[/INSTANCE]` of the cache: http, https, grpc or grpcs (default one in this process)")
	f.StringVar(&o.data, "data", defaultData(), "`directory` of the data of the server in this process")
	o.screenFlag(cmd)
	o.add(f, bazel.TopLevel)
	return cmd
}

func (o *execOptions) check(args []string) error {
	if len(args) == 0 {
		return errors.New("which command? It stands behind --, as in: flywheel exec -- nix build")
	}
	check := bazel.CheckURL
	if !bazel.Runs(args) {
		check = target.Check
	}
	if o.cache != "" {
		if err := check(o.cache); err != nil {
			return fmt.Errorf("--cache: %w", err)
		}
	} else if o.data == "" {
		return errors.New("neither XDG_CACHE_HOME nor HOME is set: say with --data where the cache is to be kept, or with --cache which to use")
	}
	return errors.Join(o.bazelFlags.check(), o.reporting.check())
}

// around is the cache for a command of Bazel.
func (o *execOptions) around(stderr io.Writer) bazel.Around {
	a := bazel.Around{
		Data: o.data, Credentials: credential.New("", ""), Version: o.given(), Download: bazel.Download(o.download),
		Log: slog.New(slog.NewTextHandler(stderr, nil)),
	}
	if o.cache != "" {
		a.Caches = []string{o.cache}
	}
	return a
}

// watched runs a command with the store watched around it: what becomes valid
// meanwhile goes to the cache, and its own nix pulls from there. Nothing about the
// cache, or about nix, changes how it ends.
func (o *execOptions) watched(cmd *cobra.Command, path string, args []string) error {
	build := flywheel.AroundOptions{Options: flywheel.Options{
		Data: o.data, Selection: flywheel.Selection{UpstreamKeys: []string{flywheel.DefaultUpstreamKey}}, DrainTime: flywheel.DefaultDrainTime,
	}}
	if o.cache != "" {
		build.Caches = []string{o.cache}
	}
	surroundings(cmd, &build.Options)
	build.State, _ = queue.Dir() // without one, nothing is remembered
	shown, err := o.begin(cmd, build.Credentials)
	if err != nil {
		return err
	}
	build.Observer = shown
	var status int
	var failed error
	report, err := flywheel.Around(cmd.Context(), build, func(env []string) {
		status, failed = foreground(cmd.Context(), path, args, env)
	})
	if err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "flywheel: %v; %s ran without the cache\n", err, filepath.Base(args[0]))
	}
	if err := shown.finish(cmd.Context(), report); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "flywheel: %v\n", err)
	}
	if failed != nil {
		return failed
	}
	return ended(status)
}

// foreground runs a program as if it stood in this process's place, and returns
// the status that a shell would see.
func foreground(ctx context.Context, path string, args, env []string) (status int, err error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	// From here on signals are the program's affair, which may take its time.
	passed := []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT}
	signal.Reset(passed...)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, passed...)
	defer signal.Stop(signals)

	// Of variables that stand twice, the later counts.
	cmd := &exec.Cmd{Path: path, Args: args, Env: append(os.Environ(), env...), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if err := cmd.Start(); err != nil {
		return 0, &exitError{exitNotExecutable, err}
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if s == unix.SIGTERM || s == unix.SIGHUP || !hasTerminal() {
				_ = cmd.Process.Signal(s) // it may have ended
			}
		case err := <-done:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 0, fmt.Errorf("running %s: %w", path, err)
			}
			if w, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() {
				return 128 + int(w.Signal()), nil
			}
			return cmd.ProcessState.ExitCode(), nil
		}
	}
}

// hasTerminal says whether this process is in the foreground of a terminal. What is
// typed there, such as Ctrl-C, has reached the programs that it runs already; a
// second SIGINT would make Bazel stop at once.
func hasTerminal() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// ended makes a program's status this one's. The program has said itself why.
func ended(status int) error {
	if status == exitOK {
		return nil
	}
	return &exitError{status, nil}
}
