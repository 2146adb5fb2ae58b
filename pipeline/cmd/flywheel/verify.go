package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/verify"
)

func verifyCommand() *cobra.Command {
	var o verify.Options
	var files checkFiles
	var checks []check.Check
	cmd := &cobra.Command{
		Use:   "verify URL",
		Short: "Find out whether a deployed cache is healthy",
		Long: `Asks a cache for its nix-cache-info until the answer is right or the time is
over: status 200, the lines of a binary cache, and the store directory that
builds use. Each attempt that fails is a line with its reason; the pauses grow
from half a second to 15.

Exit status:
  0    the cache is healthy
  2    bad usage
  40   it is not; the last lines say why and what to look at
  130  interrupted by SIGINT (143 by SIGTERM)`,
		Example: `  flywheel verify https://attic-cache.beehive.bates.edu
  flywheel verify "$ENVIRONMENT_URL" --timeout 5m --report verify.json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(fmt.Errorf("want the URL of one cache, not %d arguments", len(args)))
			}
			o.URL = args[0]
			var err error
			checks, err = verify.Checks(o)
			return usageOf(errors.Join(err, files.check()))
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := runChecks(cmd, files, checks)
			var exit *exitError
			if errors.As(err, &exit) && exit.status == exitChecks {
				return &exitError{exitUnhealthy, exit.err}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.Timeout, "timeout", verify.DefaultTimeout, "`time` until which a check may go on failing; 0 for one attempt")
	f.StringVar(&o.StoreDir, "store-dir", storepath.DefaultDir, "store `directory` that the cache has to be for")
	files.flags(cmd)
	return cmd
}
