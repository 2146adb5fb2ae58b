package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/config"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check, show and explain the configuration",
		Long: `Every setting is a flag of serve, an environment variable and a key of a TOML
file, and is taken from the first of these that has it: --max-size,
CACHESERVER_MAX_SIZE, max_size.`,
	}
	cmd.AddCommand(configCheckCommand(), configShowCommand(), configExampleCommand())
	return cmd
}

func configCheckCommand() *cobra.Command {
	s := config.New()
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say what is wrong with a configuration",
		Long: `Checks a configuration file, or that of --config, together with the environment and
the flags, as serve would before it starts, and names the line and the key of all
that is wrong. Nothing is opened but the files with keys of [auth].

Exit status: 0 it is good, 2 it is not.`,
		Example: `  cacheserver config check /etc/cacheserver.toml`,
		Args:    atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				s.File = args[0]
			}
			if err := load(cmd, s); err != nil {
				return err
			}
			if s.File == "" {
				return usageError{errors.New("which file? it is an argument, or that of --config or CACHESERVER_CONFIG")}
			}
			if err := s.CheckAuth(); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "ok")
			return nil
		},
	}
	s.AddFlags(cmd.Flags(), config.All)
	return cmd
}

func configShowCommand() *cobra.Command {
	s := config.New()
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the settings in effect, and where each comes from",
		Long: `Prints the settings that serve would have with the same flags, environment and
file, as TOML, each with where it comes from. Secrets are masked.

Exit status: 0 printed, 1 failed, 2 something is wrong with them.`,
		Example: `  cacheserver config show --config /etc/cacheserver.toml --max-size 200GB`,
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := load(cmd, s); err != nil {
				return err
			}
			return s.Show(cmd.OutOrStdout())
		},
	}
	s.AddFlags(cmd.Flags(), config.All)
	return cmd
}

func configExampleCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "example",
		Short:   "Print a file with every setting at its default",
		Long:    `Prints a configuration file with every setting, its default, and what it means.`,
		Example: `  cacheserver config example >cacheserver.toml`,
		Args:    exactly(0),
		RunE:    func(*cobra.Command, []string) error { return config.Example(os.Stdout) },
	}
}
