package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/queue"
)

func watchCommand() *cobra.Command {
	var o flywheel.WatchOptions
	var shown reporting
	cmd := &cobra.Command{
		Use:   "watch --cache URL",
		Short: "Push every store path as soon as it is valid, until told to stop",
		Long: `Follows Nix's own database, and pushes what becomes valid in the store, whoever
builds or fetches it. It begins with what becomes valid from then on.

SIGTERM and SIGINT let it push what is left, for at most --drain; a second one stops
it at once. What is not in the cache then, also when it was killed, is in a queue
(in XDG_STATE_HOME, else ~/.local/state), from which the next one goes on: no path
is lost. While the cache is away it is asked now and then whether it is back.

Where the database cannot be read, the store's locks are watched instead; what
comes while no watcher runs is not seen then.

Exit status:
  0    told to stop, and the cache holds everything
  1    the store cannot be watched, or another flywheel does so for this cache
  2    bad usage
  3    there is no nix that can be used
  21   told to stop, and something is left in the queue`,
		Example: `  flywheel watch --cache https://cache.example.org/main
  flywheel watch --cache https://attic.example.org/team --token-file /run/secrets/token
  flywheel watch --cache file:///mnt/cache --exclude '-source$' --max-nar-size 2GiB`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.NoArgs(cmd, args); err != nil {
				return usage(err)
			}
			if len(o.Caches) == 0 {
				return usage(errors.New("--cache is missing: say which cache is to hold what is built"))
			}
			if o.DrainTime < 0 {
				return usage(fmt.Errorf("--drain %v: is negative", o.DrainTime))
			}
			var err error
			if o.State == "" {
				o.State, err = queue.Dir()
			}
			return usageOf(errors.Join(err, checkCaches(&o.Options), shown.check()))
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			surroundings(cmd, &o.Options)
			watched, err := shown.begin(cmd, o.Credentials)
			if err != nil {
				return err
			}
			o.Observer = watched
			report, err := flywheel.Watch(cmd.Context(), o)
			if err = errors.Join(err, watched.finish(cmd.Context(), report)); err != nil {
				return err
			}
			if n := len(report.Missing); n > 0 {
				return &stopped{exitError{exitNoCache, fmt.Errorf("left in the queue: %d; the next flywheel watch goes on with it", n)}}
			}
			return &stopped{}
		},
	}
	cacheFlags(cmd, &o.Options)
	shown.screenFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&o.State, "state", "", "`directory` of the queue (default flywheel/watch in XDG_STATE_HOME)")
	f.DurationVar(&o.DrainTime, "drain", flywheel.DefaultDrainTime, "for how long what is left is pushed once it was told to stop")
	return cmd
}

// stopped is the end of what runs until a signal comes: the status is its own,
// not the signal's.
type stopped struct{ exitError }

func (s *stopped) Error() string {
	if s.err == nil {
		return ""
	}
	return s.exitError.Error()
}
