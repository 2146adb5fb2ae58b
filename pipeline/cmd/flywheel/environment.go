package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/environment"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/atomicfile"
)

// configVariable names the configuration file where --config does not: in
// GitLab a variable of the type File, which a stop job has too that runs after
// its branch, and so without a checkout.
const configVariable = "FLYWHEEL_ENVIRONMENTS"

type environmentOptions struct {
	config       string
	format       string
	output       string
	printConfig  bool
	branch       string
	tag          string
	mergeRequest string
	defaultName  string
}

func environmentCommand() *cobra.Command {
	var o environmentOptions
	cmd := &cobra.Command{
		Use:   "environment",
		Short: "Say which environment a ref is deployed to, and where that is",
		Long: `Maps a ref to its environment: a merge request to a review environment of its
own, the default branch to staging, the tag of a release to production. Without
--branch, --merge-request or --tag, the ref is that of the GitLab or GitHub job
that runs the command.

The tag of a release is v and three numbers, such as v1.2.3; a pre-release such
as v1.2.3-rc.1 has no environment. Nor have a branch without a merge request, a
schedule, and a merge request from a fork.

Names, clusters, contexts, domains and projects come from a TOML file, named by
--config or FLYWHEEL_ENVIRONMENTS; --print-config shows the one that is built in.

Exit status:
  0    the environment was written
  2    bad usage, or a fault in the configuration, told with line and key
  4    the ref has no environment; nothing was written`,
		Example: `  flywheel environment
  flywheel environment --merge-request feature/x
  flywheel environment --format dotenv --output environment.env
  flywheel environment --print-config > environments.toml`,
		Args: func(cmd *cobra.Command, args []string) error {
			return usageOf(errors.Join(cobra.NoArgs(cmd, args), o.check(cmd)))
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return printEnvironment(cmd, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "", "TOML `file` to use instead of the built-in configuration")
	f.StringVar(&o.format, "format", "text", "`form` to write: text, json, or dotenv for GitLab's artifacts:reports:dotenv")
	f.StringVarP(&o.output, "output", "o", "", "`file` to write to instead of standard output")
	f.StringVar(&o.branch, "branch", "", "`name` of a branch, instead of the CI's ref")
	f.StringVar(&o.mergeRequest, "merge-request", "", "`branch` of a merge request, instead of the CI's ref")
	f.StringVar(&o.tag, "tag", "", "`name` of a tag, instead of the CI's ref")
	f.StringVar(&o.defaultName, "default-branch", "", "`name` of the default branch (what CI says, else main)")
	f.BoolVar(&o.printConfig, "print-config", false, "print the built-in configuration, to begin another with")
	return cmd
}

func (o *environmentOptions) check(cmd *cobra.Command) error {
	var given []string
	for _, flag := range []string{"branch", "merge-request", "tag"} {
		if cmd.Flags().Changed(flag) {
			given = append(given, "--"+flag)
			if cmd.Flag(flag).Value.String() == "" {
				return fmt.Errorf("--%s is empty", flag)
			}
		}
	}
	if len(given) > 1 {
		return fmt.Errorf("%s: only one ref can be asked for", strings.Join(given, " and "))
	}
	if _, ok := environment.Formats[o.format]; !ok {
		forms := slices.Sorted(maps.Keys(environment.Formats))
		return fmt.Errorf("--format %q: want one of %s", o.format, strings.Join(forms, ", "))
	}
	return checkFile("output", o.output)
}

// facts are those of the flags, else of the CI.
func (o *environmentOptions) facts() (environment.Facts, error) {
	var f environment.Facts
	switch {
	case o.branch != "":
		f = environment.OfBranch(o.branch, cmp.Or(os.Getenv("CI_DEFAULT_BRANCH"), "main"))
	case o.mergeRequest != "":
		f = environment.OfMergeRequest(o.mergeRequest)
	case o.tag != "":
		f = environment.OfTag(o.tag)
	default:
		var err error
		if f, err = environment.FromCI(os.Getenv); err != nil {
			if errors.Is(err, environment.ErrNoCI) {
				err = fmt.Errorf("%w: say it with --branch, --merge-request or --tag", err)
			}
			return f, err
		}
	}
	f.DefaultBranch = cmp.Or(o.defaultName, f.DefaultBranch)
	return f, nil
}

func (o *environmentOptions) configuration() (*environment.Config, error) {
	if file := cmp.Or(o.config, os.Getenv(configVariable)); file != "" {
		return environment.ReadConfig(file)
	}
	return environment.Default()
}

func printEnvironment(cmd *cobra.Command, o environmentOptions) error {
	if o.printConfig {
		return write(cmd.OutOrStdout(), o.output, []byte(environment.DefaultText()))
	}
	config, err := o.configuration()
	if err != nil {
		return usage(err)
	}
	facts, err := o.facts()
	if err != nil {
		return usage(err)
	}
	e, err := environment.Map(config, facts)
	var none *environment.NoEnvironmentError
	switch {
	case errors.As(err, &none):
		return &exitError{exitNoEnvironment, err}
	case err != nil:
		return usage(err)
	}
	var text bytes.Buffer
	if err := environment.Formats[o.format](&text, e); err != nil {
		return err
	}
	return write(cmd.OutOrStdout(), o.output, text.Bytes())
}

// write puts text into a file, whole or not at all, or to out where none is
// named.
func write(out io.Writer, file string, text []byte) error {
	if file == "" {
		if _, err := out.Write(text); err != nil {
			return fmt.Errorf("writing the output: %w", err)
		}
		return nil
	}
	if err := atomicfile.Write(file, text, 0o644); err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	return nil
}
