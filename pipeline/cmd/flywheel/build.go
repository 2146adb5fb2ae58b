package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

type buildOptions struct {
	flywheel.Options
	reporting
	report       string
	markdown     string
	requireCache bool
}

func buildCommand() *cobra.Command {
	var o buildOptions
	cmd := &cobra.Command{
		Use:   "build [INSTALLABLE…] [-- NIX BUILD ARGUMENT…]",
		Short: "Build, pulling from the cache and filling it meanwhile",
		Long: `Builds what "nix build" would build: flake references with or without #attr,
attributes of a file (-f), store paths, derivations; "." when none is given.
Every store path goes to the cache as soon as it is valid, so a build that fails
leaves its work to the next one; at the end the closure of the results is pushed.

Arguments behind -- go to "nix build", and to all that evaluates for it (--all,
--skip-cached, --keep-going, --bootstrap) as far as they concern that.

Without --cache, a cache server starts in this process, on a free port of the
loopback interface, and keeps its data for the next run.

No fault of a cache changes how the build ends: it is told in the summary. The
results' store paths go to standard output, everything else to standard error.

Exit status:
  0    built
  1    built, but what was to be written then could not be
  2    bad usage
  3    there is no nix that can be used (--setup installs it)
  20   the build failed; nix's message is the last on the screen
  21   built, but the cache had a fault and --require-cache was given
  130  interrupted by SIGINT (143 by SIGTERM); what was built is pushed for at
       most 30 s, a second signal stops at once`,
		Example: `  flywheel build --setup ./pipeline/examples/chain
  flywheel build .#app .#tests --cache https://cache.example.org/main
  flywheel build -f default.nix app --report report.json
  flywheel build . --all --skip-cached --keep-going --out ./artifacts
  flywheel build . -- --print-build-logs
  flywheel build . --all -- --impure --override-input nixpkgs path:../nixpkgs`,
		Args: func(cmd *cobra.Command, args []string) error {
			if i := cmd.ArgsLenAtDash(); i >= 0 {
				args, o.NixArgs = args[:i], args[i:]
			}
			o.Installables = args
			return usageOf(o.check())
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			surroundings(cmd, &o.Options)
			return build(cmd, o)
		},
	}
	cacheFlags(cmd, &o.Options)
	o.flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.File, "file", "f", "", "Nix `file` whose attributes the installables are")
	f.BoolVar(&o.All, "all", false, "build all packages, checks, development shells and NixOS configurations of the flakes, for this system")
	f.BoolVar(&o.SkipCached, "skip-cached", false, "neither fetch nor build what the cache holds already; with --out, --out-link or --gc-root it is fetched")
	f.BoolVarP(&o.KeepGoing, "keep-going", "k", false, "when something fails, build what can be built all the same")
	f.IntVar(&o.Parallel, "parallel", 0, "how many installables to build at a time, each by itself, while others are evaluated (default with --all, --skip-cached or --keep-going 2)")
	f.StringVar(&o.GCRoot, "gc-root", "", "`directory` of links to the results, which keep them from being collected")
	f.StringVarP(&o.OutLink, "out-link", "o", "", "`symlink` to make to the results")
	f.StringVar(&o.CopyOut, "out", "", "`directory` to copy the results to, as files that need no Nix")
	f.StringVar(&o.Bootstrap, "bootstrap", "", "`installable` to fetch from the caches first; it is never built")
	f.StringVar(&o.report, "report", "", "`file` to write a report to, as JSON")
	f.StringVar(&o.markdown, "summary", "", "`file` to write the summary to, as Markdown")
	f.BoolVar(&o.NoWatch, "no-watch", false, "push at the end only, not while the build runs")
	f.BoolVar(&o.requireCache, "require-cache", false, "end with 21 when the cache had a fault")
	return cmd
}

// check finds out before the build what would go wrong after it.
func (o *buildOptions) check() error {
	for _, i := range o.Installables {
		if strings.HasPrefix(i, "-") || i == "" {
			return fmt.Errorf("%q is no installable; arguments for nix stand behind --", i)
		}
	}
	if o.All && o.File != "" {
		return errors.New("--all is about flakes, --file about a file")
	}
	if name := nix.LooksUp(o.NixArgs); o.All && name != "" {
		return fmt.Errorf("--all is about flakes, which %s behind -- is not", name)
	}
	if o.Parallel < 0 {
		return fmt.Errorf("--parallel %d: want 1 or more", o.Parallel)
	}
	return errors.Join(checkCaches(&o.Options), checkFile("report", o.report), checkFile("summary", o.markdown),
		checkDir("out", o.CopyOut), checkDir("gc-root", o.GCRoot), checkLink("out-link", o.OutLink), o.reporting.check())
}

func build(cmd *cobra.Command, o buildOptions) error {
	watched, err := o.begin(cmd, o.Credentials)
	if err != nil {
		return err
	}
	o.Observer = watched
	report, err := flywheel.Build(cmd.Context(), o.Options)
	if e := watched.finish(cmd.Context(), report); e != nil && err == nil {
		err = e
	}
	if report == nil {
		return err
	}
	unwritten := o.write(report)
	// Last: whoever reads the results may have gone, which ends the process.
	for _, path := range report.Results {
		fmt.Fprintln(cmd.OutOrStdout(), path)
	}
	var failed *nix.BuildError
	switch {
	case errors.As(err, &failed):
		return &exitError{exitFailed, errors.Join(unwritten, lastMessage{err, report.Message})}
	case err != nil && report.Outcome != flywheel.Built:
		return &exitError{exitFailed, errors.Join(unwritten, err)}
	case err != nil || unwritten != nil:
		return errors.Join(unwritten, err) // what comes after the build
	case o.requireCache && (len(report.CacheErrors) > 0 || len(report.Missing) > 0):
		return &exitError{exitNoCache, errors.New("built, but the cache had faults and --require-cache was given")}
	}
	return nil
}

// write writes the files that the flags name.
func (o *buildOptions) write(report *flywheel.Report) (err error) {
	if o.report != "" {
		err = report.Write(o.report)
	}
	if o.markdown != "" {
		if e := os.WriteFile(o.markdown, []byte(report.Markdown()), 0o644); e != nil {
			err = errors.Join(err, fmt.Errorf("writing the summary: %w", e))
		}
	}
	return err
}

// lastMessage is printed as nix's own words.
type lastMessage struct {
	error
	message string
}

func (l lastMessage) Error() string { return "the build failed:\n" + l.message }
func (l lastMessage) Unwrap() error { return l.error }
