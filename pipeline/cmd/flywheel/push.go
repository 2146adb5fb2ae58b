package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
)

func pushCommand() *cobra.Command {
	var o flywheel.Options
	var report string
	cmd := &cobra.Command{
		Use:   "push STORE-PATH…",
		Short: "Push store paths, with all that they refer to",
		Long: `Pushes valid store paths and their closures to the first cache that answers.
What it holds already is not sent again. A token for caches that want one is
taken from ATTIC_TOKEN.

Exit status:
  0    the cache holds everything
  2    bad usage
  3    there is no nix that can be used
  21   something is missing in the cache; the summary names it
  130  interrupted by SIGINT (143 by SIGTERM)`,
		Example: `  flywheel push --cache https://cache.example.org/main $(readlink ./result)
  flywheel push --cache https://cache.example.org/main $(nix build --print-out-paths .#app)`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(errors.New("no store path was given"))
			}
			return usageOf(checkCaches(&o))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			surroundings(cmd, &o)
			return pushPaths(cmd, o, args, report)
		},
	}
	cacheFlags(cmd, &o)
	cmd.Flags().StringVar(&report, "report", "", "`file` to write a report to, as JSON")
	return cmd
}

func pushPaths(cmd *cobra.Command, o flywheel.Options, args []string, file string) error {
	report, err := flywheel.Push(cmd.Context(), o, args)
	if err != nil {
		return err
	}
	if file != "" {
		if err := report.Write(file); err != nil {
			return err
		}
	}
	if n := len(report.Missing); n > 0 || len(report.CacheErrors) > 0 {
		return &exitError{exitNoCache, fmt.Errorf("the push is not whole: %d missing; %s", n, strings.Join(report.CacheErrors, "; "))}
	}
	return nil
}
