package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/bazel"
)

// bazelFlags are the flags of commands that say how Bazel is to use a cache.
type bazelFlags struct {
	version  string
	download string
}

func (b *bazelFlags) add(f *pflag.FlagSet, download bazel.Download) {
	f.StringVar(&b.version, "bazel-version", "", "`version` of Bazel, such as 8.2 (default what bazel --version says, else the oldest that is known)")
	f.StringVar(&b.download, "download", string(download), "which `outputs` Bazel fetches: minimal, toplevel (those of the targets), or all")
}

// check finds what is wrong with the flags' values.
func (b *bazelFlags) check() (err error) {
	if _, wrong := bazel.ParseDownload(b.download); wrong != nil {
		err = fmt.Errorf("--download %w", wrong)
	}
	if b.version == "" {
		return err
	}
	if _, wrong := bazel.ParseVersion(b.version); wrong != nil {
		err = errors.Join(err, fmt.Errorf("--bazel-version: %w", wrong))
	}
	return err
}

// given is the version that --bazel-version names; the zero one where it does not.
func (b *bazelFlags) given() bazel.Version {
	v, _ := bazel.ParseVersion(b.version) // checked; empty is none
	return v
}

func bazelrcCommand() *cobra.Command {
	var b bazelFlags
	var cache string
	var withToken bool
	cmd := &cobra.Command{
		Use:   "bazelrc --cache URL",
		Short: "Print the lines with which a .bazelrc makes Bazel use a cache",
		Long: `Asks a cache what it speaks, gRPC or HTTP, whether it takes results, and whether
it knows zstd, and prints the lines of a .bazelrc that fit it and the version of
Bazel. The URL's path, if any, is the name of an instance, which has action results
of its own.

A token in ` + tokenVariable + ` is shown to the cache, and is not printed: Bazel reads
no variables in a .bazelrc. The lines say how else it gets the token. --with-token
prints it, for a file that nobody else can read.

Exit status:
  0    the lines were printed
  2    bad usage
  40   the cache does not answer as one that Bazel can use, or denies the token`,
		Example: `  flywheel bazelrc --cache https://cache.example.org >> .bazelrc
  flywheel bazelrc --cache grpc://cache.example.org:9090/team --bazel-version 8.2
  flywheel bazelrc --cache http://localhost:8080 --download toplevel
  (umask 077 && flywheel bazelrc --cache https://cache.example.org --with-token > ~/.bazelrc)`,
		Args: func(cmd *cobra.Command, args []string) error {
			err := errors.Join(cobra.NoArgs(cmd, args), b.check())
			if cache == "" {
				err = errors.Join(err, errors.New("--cache is missing: say which cache Bazel is to use"))
			} else if wrong := bazel.CheckURL(cache); wrong != nil {
				err = errors.Join(err, fmt.Errorf("--cache: %w", wrong))
			}
			if withToken && os.Getenv(tokenVariable) == "" {
				err = errors.Join(err, fmt.Errorf("--with-token: %s is not set", tokenVariable))
			}
			return usageOf(err)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			token := os.Getenv(tokenVariable)
			found, err := bazel.Probe(cmd.Context(), cache, token)
			if err != nil {
				return &exitError{exitUnhealthy, err}
			}
			s := bazel.Settings{Cache: found, Version: b.given(), Download: bazel.Download(b.download)}
			if b.version == "" {
				s.Version, _ = bazel.Detect(cmd.Context(), "", "bazel") // bazelrc says so
			}
			if withToken {
				s.Token = token
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), bazelrc(s, cache, token != "" && !withToken))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&cache, "cache", "", "`URL[/INSTANCE]` of the cache: http, https, grpc or grpcs")
	f.BoolVar(&withToken, "with-token", false, "print the token of "+tokenVariable+" as well")
	b.add(f, bazel.Minimal)
	return cmd
}

// bazelrc is the text for a .bazelrc. hidden is a token that it does not have.
func bazelrc(s bazel.Settings, url string, hidden bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# By flywheel bazelrc, for the cache %s and ", url)
	if s.Version == (bazel.Version{}) {
		fmt.Fprintf(&b, "any Bazel from %s on:\n# which one it is was not to be found out (--bazel-version tells).\n", bazel.Oldest)
	} else {
		fmt.Fprintf(&b, "Bazel %s.\n", s.Version)
	}
	b.WriteString(bazel.RC(s.Flags()))
	if !s.Cache.Writable {
		b.WriteString("# The cache takes no results of this caller.\n")
	}
	if !hidden {
		return b.String()
	}
	fmt.Fprintf(&b, `# The token of %s is not in this file. Give it to Bazel on the command line,
#   --remote_header="Authorization=Bearer $%[1]s"
# or run "flywheel exec --cache %s -- bazel …", which shows it to nobody else.
`, tokenVariable, url)
	if helper := s.CredentialFlag("%workspace%/tools/credential-helper"); helper != "" {
		fmt.Fprintf(&b, `# Or let Bazel ask a program, which prints
#   {"headers":{"Authorization":["Bearer TOKEN"]}}
# build %s
`, helper)
	}
	return b.String()
}
