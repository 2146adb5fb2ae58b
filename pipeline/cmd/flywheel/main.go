// Command flywheel builds with Nix against a cache that it fills while it
// builds.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	// The image has no certificates but these.
	_ "golang.org/x/crypto/x509roots/fallback"
	"golang.org/x/sys/unix"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/commandline"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
)

// Exit statuses. Those of 20 and above tell of the build, those of 30 and above
// of what is deployed, those below 20 of everything before. An interrupted run
// ends with 128 and the signal's number.
const (
	exitOK            = 0
	exitInternal      = 1 // the command itself failed
	exitUsage         = 2
	exitNotReady      = 3 // no nix that can be used
	exitNoEnvironment = 4 // the ref is deployed nowhere
	exitProblem       = 5 // doctor found one
	exitChecks        = 10
	exitFailed        = 20
	exitNoCache       = 21 // built, but with --require-cache and a fault of the cache
	exitDeploy        = 30 // a plan, an apply or a rollout failed
	exitUnhealthy     = 40 // the cache that was deployed
)

// exitError is an error with the status that the process is to end with. It has no
// err where a command that was run has told why.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usage(err error) error { return &exitError{exitUsage, err} }

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// interrupted is the cause of a context that a signal has ended.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string { return "interrupted by " + unix.SignalName(i.signal) }

// status is what a shell would report.
func (i interrupted) status() int { return 128 + int(i.signal) }

// untilSignal returns a context that SIGINT or SIGTERM ends; a second one ends
// the process.
func untilSignal(parent context.Context, stderr io.Writer) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-parent.Done():
				return
			case s := <-signals:
				number, _ := s.(syscall.Signal) // all that Notify was asked for are
				if n > 0 {
					os.Exit(interrupted{number}.status())
				}
				fmt.Fprintf(stderr, "flywheel: %v: coming to an end (again to stop at once)\n", interrupted{number})
				cancel(interrupted{number})
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

func run(args []string, stdout, stderr io.Writer) int {
	parent, end := context.WithCancel(context.Background())
	defer end()
	around := &screen{out: stderr}
	ctx, stop := untilSignal(around.in(parent), around)
	defer stop()
	root := &cobra.Command{
		Use:           "flywheel",
		Short:         "Build with Nix, pull from the cache, and fill it while building",
		Version:       commandline.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.SetArgs(args)
	out := &commandline.Output{To: stdout}
	root.SetOut(out)
	root.SetErr(stderr)
	root.AddCommand(buildCommand(), pushCommand(), watchCommand(), validateCommand(), testCommand(), environmentCommand(), verifyCommand(), bazelrcCommand(), execCommand(), useCommand(), doctorCommand(), warmCommand(),
		planCommand(), deployCommand(), destroyCommand(), runnersCommand(), healthCommand(), enrollCommand())
	commandline.Strict(root, usage)
	cmd, err := root.ExecuteContextC(ctx)
	ended := status(ctx, cmd, err, stderr)
	if err := out.Err(); err != nil && ended == exitOK {
		fmt.Fprintf(stderr, "flywheel: %v\n", err)
		return exitInternal
	}
	return ended
}

// status says what an error means to whoever called the command.
func status(ctx context.Context, cmd *cobra.Command, err error, stderr io.Writer) int {
	var end *stopped
	if errors.As(err, &end) {
		if end.err != nil {
			fmt.Fprintf(stderr, "flywheel: %v\n", end)
		}
		return end.status
	}
	var signalled interrupted
	if errors.As(context.Cause(ctx), &signalled) {
		return signalled.status()
	}
	var exit *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		if exit.err == nil {
			return exit.status
		}
	case errors.Is(err, flywheel.ErrNotReady):
		exit = &exitError{exitNotReady, err}
	default:
		exit = &exitError{exitInternal, err}
	}
	fmt.Fprintf(stderr, "flywheel: %v\n", exit)
	if exit.status == exitUsage {
		fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
	return exit.status
}
