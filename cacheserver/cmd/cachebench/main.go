// Command cachebench compares the cache server with what it could be replaced
// by, on the same machine and in the same run. BENCHMARKS.md, two directories
// up, tells what its figures mean.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
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
		Use:   "cachebench",
		Short: "Compare the cache server with what could stand in its place",
		Long: `Each comparison runs its sides in turn, A B A B, and prints the median of the
rounds' ratios, with the smallest and the largest of them behind it, as a
Markdown table. What it does meanwhile goes to stderr. Times are of this machine
and this hour, and are not printed where a ratio says the same.

Exit status: 0 done, 1 failed, 2 bad usage.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(dedupCommand(), pushCommand(), pullCommand(), loadCommand(), bazelCommand(), storeCommand(), scaleCommand())
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage) || cmd == root:
		fmt.Fprintf(os.Stderr, "cachebench: %v\nRun '%s --help' for usage.\n", err, cmd.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(os.Stderr, "cachebench: %v\n", err)
	return exitFailed
}
