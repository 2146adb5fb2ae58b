package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
)

type pushOptions struct {
	flywheel.PushOptions
	reporting
	stdin  bool
	report string
}

func pushCommand() *cobra.Command {
	o := pushOptions{PushOptions: flywheel.PushOptions{Keep: 1, Retries: flywheel.DefaultRetries}}
	cmd := &cobra.Command{
		Use:   "push [PATH…|--stdin]",
		Short: "Push store paths, with all that they refer to",
		Long: `Pushes valid store paths and their closures to the first cache that takes pushes:
this project's server, an Attic server, or a store that "nix copy" writes to
(file://, s3://, an HTTP server that takes PUT). The URL is asked which it is.
Symlinks to store paths, such as ./result, are followed.

What the cache holds already is not sent again, so a push that broke off goes on
where it was: run it again. A failure is tried again after a while.

A token for caches that want one is taken from --token-file, ` + tokenVariable + `, netrc, or
the job's own identity (ATTIC_ID_TOKEN in GitLab; GitHub is asked for one).

Exit status:
  0    the cache holds everything
  1    a path is none of the store's, or is not valid: nothing was pushed
  2    bad usage
  3    there is no nix that can be used
  21   something is missing in the cache, or is not pinned; the summary says what
  130  interrupted by SIGINT (143 by SIGTERM)`,
		Example: `  flywheel push --cache https://cache.example.org/main ./result
  flywheel push --cache https://cache.example.org/main --pin release-1.4 --keep 5 ./result
  flywheel push --cache https://attic.example.org/team --include-build-closure ./result
  nix path-info --all | flywheel push --cache file:///mnt/cache --stdin --exclude -source$`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.stdin && len(args) > 0:
				return usage(errors.New("store paths come from arguments or, with --stdin, from standard input"))
			case !o.stdin && len(args) == 0:
				return usage(errors.New("no store path was given"))
			case o.NoClosure && o.BuildClosure:
				return usage(errors.New("--no-closure and --include-build-closure are opposites"))
			case o.Keep < 1:
				return usage(errors.New("--keep must be at least 1"))
			case cmd.Flags().Changed("keep") && o.Pin == "":
				return usage(errors.New("--keep says how many revisions of --pin NAME stay: which name?"))
			case o.Retries < 0:
				return usage(errors.New("--retries must be 0 or more"))
			}
			o.Paths = args
			return usageOf(errors.Join(checkCaches(&o.Options), checkFile("report", o.report), o.check()))
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			surroundings(cmd, &o.Options)
			if o.stdin {
				paths, err := lines(cmd.InOrStdin())
				if err != nil {
					return err
				}
				o.Paths = paths
			}
			return pushPaths(cmd, o)
		},
	}
	cacheFlags(cmd, &o.Options)
	o.screenFlag(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.stdin, "stdin", false, "read the paths from standard input, one a line")
	f.BoolVar(&o.NoClosure, "no-closure", false, "push the paths only, without what they refer to")
	f.BoolVar(&o.BuildClosure, "include-build-closure", false, "also push what building the paths needed, as far as it is there")
	f.IntVar(&o.Retries, "retries", o.Retries, "how many times a push that failed is tried again")
	f.StringVar(&o.Pin, "pin", "", "`name` under which the cache keeps the paths, whatever its retention; of several paths, each gets NAME/ITS-NAME")
	f.IntVar(&o.Keep, "keep", o.Keep, "how many revisions of the pin's name stay")
	f.StringVar(&o.report, "report", "", "`file` to write a report to, as JSON")
	return cmd
}

// lines reads a path a line; empty lines are passed over.
func lines(r io.Reader) ([]string, error) {
	var paths []string
	s := bufio.NewScanner(r)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" {
			paths = append(paths, line)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("reading paths from standard input: %w", err)
	}
	return paths, nil
}

func pushPaths(cmd *cobra.Command, o pushOptions) error {
	watched, err := o.begin(cmd, o.Credentials)
	if err != nil {
		return err
	}
	o.Observer = watched
	report, err := flywheel.Push(cmd.Context(), o.PushOptions)
	if err = errors.Join(err, watched.finish(cmd.Context(), report)); err != nil {
		return err
	}
	if o.report != "" {
		if err := report.Write(o.report); err != nil {
			return err
		}
	}
	// Faults that a retry made good are told, and are no failure.
	if len(report.Missing)+len(report.Unpinned) > 0 || report.Cache == "" {
		return &exitError{exitNoCache, fmt.Errorf("the push is not whole: %d missing, %d not pinned; %s",
			len(report.Missing), len(report.Unpinned), strings.Join(report.CacheErrors, "; "))}
	}
	return nil
}
