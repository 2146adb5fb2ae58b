package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/warm"
)

type warmOptions struct {
	warm.Options
	reporting
	report string
}

// warmReport is the JSON form of results.
type warmReport struct {
	Schema  int           `json:"schema"` // 1
	OK      bool          `json:"ok"`     // the cache holds all
	Results []warm.Result `json:"results"`
}

func warmCommand() *cobra.Command {
	var o warmOptions
	cmd := &cobra.Command{
		Use:   "warm [FILE | - | INSTALLABLE…] [-- NIX BUILD ARGUMENT…]",
		Short: "Keep a list of installables in the cache",
		Long: `Builds what the cache lacks of a list, all of it even when one installable fails,
and pushes it. What the cache holds is neither fetched nor built. It is for
schedules: the builds of the day find everything there.

A file lists one installable a line; empty lines and # comments are passed over.
"-" is standard input. Arguments that name no file are installables themselves.

With --pin PREFIX each result is pinned as PREFIX/INSTALLABLE, so that it stays
whatever the cache's retention is, with the newest revisions that --keep says.

Exit status:
  0    the cache holds all
  2    bad usage
  3    there is no nix that can be used (--setup installs it)
  20   something was not built
  21   all was built, but the cache does not hold, or pin, all of it
  130  interrupted by SIGINT (143 by SIGTERM)`,
		Example: `  flywheel warm .ci/warm.txt --cache https://cache.example.org/main
  flywheel warm .#devShells.x86_64-linux.default .#app --pin warm --keep 2
  grep -v slow .ci/warm.txt | flywheel warm - --report warm.json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if i := cmd.ArgsLenAtDash(); i >= 0 {
				args, o.NixArgs = args[:i], args[i:]
			}
			return usageOf(o.check(cmd.InOrStdin(), args))
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			surroundings(cmd, &o.Options.Options)
			return runWarm(cmd, o)
		},
	}
	cacheFlags(cmd, &o.Options.Options)
	o.flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.File, "file", "f", "", "Nix `file` whose attributes the installables are")
	f.IntVar(&o.Parallel, "parallel", 0, "how many installables to build at a time (default 2)")
	f.StringVar(&o.Pin, "pin", "", "`prefix` of the names under which results are pinned")
	f.IntVar(&o.Keep, "keep", 1, "`number` of revisions of each pin that stay")
	f.StringVar(&o.report, "report", "", "`file` to write the results to, as JSON")
	return cmd
}

func (o *warmOptions) check(stdin io.Reader, args []string) (err error) {
	switch {
	case len(args) == 0:
		return errors.New("what is to be kept warm? A file that lists it, or installables")
	case o.Keep < 1:
		return fmt.Errorf("--keep %d: want 1 or more", o.Keep)
	case o.Keep > 1 && o.Pin == "":
		return errors.New("--keep says how many revisions of each pin stay: --pin PREFIX makes pins")
	case o.Parallel < 0:
		return fmt.Errorf("--parallel %d: want 1 or more", o.Parallel)
	}
	if o.File == "" && len(args) == 1 && meantAsFile(args[0]) {
		return fmt.Errorf("%s is not there: no file that lists what is to be kept warm, nor a flake", args[0])
	}
	if o.Installables, err = installables(stdin, args); err != nil {
		return err
	}
	return errors.Join(checkCaches(&o.Options.Options), checkFile("report", o.report), o.reporting.check())
}

// meantAsFile says whether an argument names a file that is not there. Nix would tell
// of a flake that is missing. A store path that is not there may be in the cache.
func meantAsFile(arg string) bool {
	if strings.ContainsAny(arg, "#?:") || (!strings.HasPrefix(arg, ".") && !strings.HasPrefix(arg, "/") && !strings.HasSuffix(arg, ".txt")) {
		return false
	}
	if _, _, err := storepath.Split(filepath.Base(arg)); err == nil {
		return false
	}
	_, err := os.Stat(arg)
	return errors.Is(err, os.ErrNotExist)
}

// installables reads the list that the only argument names, if it does.
func installables(stdin io.Reader, args []string) ([]string, error) {
	list := stdin
	switch info, err := os.Stat(args[0]); {
	case len(args) == 1 && args[0] == "-":
	case len(args) == 1 && err == nil && info.Mode().IsRegular() && !strings.HasSuffix(args[0], ".drv"):
		file, err := os.Open(args[0])
		if err != nil {
			return nil, fmt.Errorf("reading the list: %w", err)
		}
		defer file.Close()
		list = file
	default:
		list = strings.NewReader(strings.Join(args, "\n"))
	}
	found, err := warm.ReadList(list)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s lists no installable", args[0])
	}
	return found, nil
}

func runWarm(cmd *cobra.Command, o warmOptions) error {
	watched, err := o.begin(cmd, o.Credentials)
	if err != nil {
		return err
	}
	o.Observer = watched
	results, report, err := warm.Run(cmd.Context(), o.Options)
	err = errors.Join(err, watched.finish(cmd.Context(), report))
	if err := warm.Table(cmd.OutOrStdout(), results); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	if o.report != "" && err == nil {
		text, e := json.MarshalIndent(warmReport{Schema: 1, OK: warm.OK(results), Results: results}, "", "  ")
		if e == nil {
			e = os.WriteFile(o.report, append(text, '\n'), 0o644)
		}
		if e != nil {
			return fmt.Errorf("writing the report: %w", e)
		}
	}
	if err != nil {
		return err
	}
	var failed, cold []string
	for _, r := range results {
		switch r.Outcome {
		case warm.Failed:
			failed = append(failed, r.Installable)
		case warm.Cold:
			cold = append(cold, r.Installable)
		case warm.Warm, warm.Built:
		}
	}
	switch {
	case len(failed) > 0:
		return &exitError{exitFailed, fmt.Errorf("not built: %s", strings.Join(failed, ", "))}
	case len(cold) > 0:
		return &exitError{exitNoCache, fmt.Errorf("not in the cache: %s", strings.Join(cold, ", "))}
	case len(report.Missing) > 0:
		return &exitError{exitNoCache, fmt.Errorf("the cache lacks what they refer to: %s", strings.Join(report.Missing, ", "))}
	}
	return nil
}
