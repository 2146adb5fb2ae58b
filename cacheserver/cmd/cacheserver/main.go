// Command cacheserver is the bundled cache server.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	// The image has no certificates but these.
	_ "golang.org/x/crypto/x509roots/fallback"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/commandline"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/config"
)

// Exit statuses.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a fault in what the command was given.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process
	root := &cobra.Command{
		Use:           "cacheserver",
		Short:         "A Nix binary cache over one deduplicating store",
		Version:       commandline.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(serveCommand(), healthCommand(), gcCommand(), fsckCommand(), pinCommand(), pathCommand(), cacheCommand(), tokenCommand(), configCommand())
	commandline.Strict(root, func(err error) error { return usageError{err} })
	root.SetArgs(args)
	out := &commandline.Output{To: os.Stdout}
	root.SetOut(out)
	root.SetErr(os.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	var faults config.Faults
	switch {
	case err == nil && out.Err() == nil:
		return 0
	case err == nil:
		err = out.Err()
	case errors.As(err, &faults):
		for _, f := range faults {
			fmt.Fprintf(os.Stderr, "cacheserver: %v\n", f)
		}
		return exitUsage
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "cacheserver: %v\nRun '%s --help' for usage.\n", err, cmd.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(os.Stderr, "cacheserver: %v\n", err)
	if errors.Is(err, errDamage) || errors.Is(err, errDropped) {
		return exitDamage
	}
	return exitFailed
}
