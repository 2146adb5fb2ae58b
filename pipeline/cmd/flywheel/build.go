package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

type buildOptions struct {
	flywheel.Options
	report       string
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

Without --cache, a cache server starts in this process, on a free port of the
loopback interface, and keeps its data for the next run.

No fault of a cache changes how the build ends: it is told in the summary. The
results' store paths go to standard output, everything else to standard error.

Exit status:
  0    built
  2    bad usage
  3    there is no nix that can be used (--setup installs it)
  20   the build failed; nix's message is the last on the screen
  21   built, but the cache had a fault and --require-cache was given
  130  interrupted by SIGINT (143 by SIGTERM); what was built is pushed for at
       most 30 s, a second signal stops at once`,
		Example: `  flywheel build --setup ./pipeline/examples/chain
  flywheel build .#app .#tests --cache https://cache.example.org/main
  flywheel build -f default.nix app --report report.json
  flywheel build . -- --print-build-logs --keep-going`,
		Args: func(cmd *cobra.Command, args []string) error {
			if i := cmd.ArgsLenAtDash(); i >= 0 {
				args, o.NixArgs = args[:i], args[i:]
			}
			o.Installables = args
			return usageOf(o.check())
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out = cmd.ErrOrStderr()
			o.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return build(cmd, o)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.Caches, "cache", nil, "`URL[/NAME]` of a cache to pull from; the first that answers is pushed to (repeatable)")
	f.StringVar(&o.Data, "data", defaultData(), "`directory` of the embedded server's data")
	f.StringVarP(&o.File, "file", "f", "", "Nix `file` whose attributes the installables are")
	f.StringVarP(&o.OutLink, "out-link", "o", "", "`symlink` to make to the results")
	f.StringVar(&o.Bootstrap, "bootstrap", "", "`installable` to fetch from the caches first; it is never built")
	f.StringArrayVar(&o.PublicKeys, "trusted-public-key", nil, "`key` of a cache that does not tell its own (repeatable)")
	f.StringArrayVar(&o.UpstreamKeys, "upstream-key", []string{flywheel.DefaultUpstreamKey}, "`name` of a key; what it signed is not pushed (repeatable)")
	f.StringVar(&o.report, "report", "", "`file` to write a report to, as JSON")
	f.BoolVar(&o.NoWatch, "no-watch", false, "push at the end only, not while the build runs")
	f.BoolVar(&o.requireCache, "require-cache", false, "end with 21 when the cache had a fault")
	f.BoolVar(&o.Setup, "setup", false, "install Nix when it is missing")
	o.DrainTime = flywheel.DefaultDrainTime
	return cmd
}

func defaultData() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "attic-cache")
}

func usageOf(err error) error {
	if err == nil {
		return nil
	}
	return usage(err)
}

// check finds out before the build what would go wrong after it.
func (o *buildOptions) check() error {
	for _, c := range o.Caches {
		if _, err := push.NewClient(c); err != nil {
			return fmt.Errorf("--cache: %w", err)
		}
	}
	for _, i := range o.Installables {
		if strings.HasPrefix(i, "-") || i == "" {
			return fmt.Errorf("%q is no installable; arguments for nix stand behind --", i)
		}
	}
	if o.Data == "" && len(o.Caches) == 0 {
		return errors.New("neither XDG_CACHE_HOME nor HOME is set: say with --data where the cache is to be kept, or with --cache which to use")
	}
	if o.report != "" {
		if info, err := os.Stat(filepath.Dir(o.report)); err != nil || !info.IsDir() {
			return fmt.Errorf("--report %s: there is no directory %s", o.report, filepath.Dir(o.report))
		}
	}
	return nil
}

func build(cmd *cobra.Command, o buildOptions) error {
	report, err := flywheel.Build(cmd.Context(), o.Options)
	if report == nil {
		return err
	}
	for _, path := range report.Results {
		fmt.Fprintln(cmd.OutOrStdout(), path)
	}
	if o.report != "" {
		if err := report.Write(o.report); err != nil {
			return err
		}
	}
	var failed *nix.BuildError
	switch {
	case errors.As(err, &failed):
		return &exitError{exitFailed, lastMessage{err, report.Message}}
	case err != nil:
		return &exitError{exitFailed, err}
	case o.requireCache && (len(report.CacheErrors) > 0 || len(report.Missing) > 0):
		return &exitError{exitNoCache, errors.New("built, but the cache had faults and --require-cache was given")}
	}
	return nil
}

// lastMessage is printed as nix's own words.
type lastMessage struct {
	error
	message string
}

func (l lastMessage) Error() string { return "the build failed:\n" + l.message }
func (l lastMessage) Unwrap() error { return l.error }
