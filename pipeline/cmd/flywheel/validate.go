package main

import (
	"errors"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/validate"
)

func validateCommand() *cobra.Command {
	var o validate.Options
	var files checkFiles
	cmd := &cobra.Command{
		Use:   "validate [DIRECTORY]",
		Short: "Check sources before anything is deployed from them",
		Long: `Checks what the directory holds, "." when none is given:
  flake.nix           nix flake check, with the cache as in a build
  OpenTofu modules    tofu fmt and tofu validate of each, without a backend
  Bazel rules tagged  bazel test of them, in place of OpenTofu's modules; their
  flywheel-validate   remote cache is that of --cache, else one in this process
With --scan also what "flywheel test" looks for: security faults and secrets. All
checks run even when one fails.

With --affected BASE only those modules are checked that changed since the branch
left BASE, and those that use them, at any distance.

Exit status:
  0    nothing failed
  2    bad usage
  10   a check failed; the table names it
  130  interrupted by SIGINT (143 by SIGTERM)`,
		Example: `  flywheel validate
  flywheel validate --affected origin/main --scan --junit junit.xml
  flywheel validate ./infra --cache https://cache.example.org/main --report checks.json`,
		Args: func(_ *cobra.Command, args []string) error {
			_, err := sourceDir(args)
			return usageOf(errors.Join(err, checkCaches(&o.Build), files.check()))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			surroundings(cmd, &o.Build)
			var err error
			if o.Dir, err = sourceDir(args); err != nil {
				return usage(err)
			}
			return runChecks(cmd, files, validate.Checks(cmd.Context(), o))
		},
	}
	cacheFlags(cmd, &o.Build)
	files.flags(cmd)
	cmd.Flags().StringVar(&o.Base, "affected", "", "`revision` of git; check only what differs from where the branch left it, and what uses that")
	cmd.Flags().StringVar(&o.Tofu, "tofu", "", "`program` that is OpenTofu (default tofu in PATH)")
	cmd.Flags().StringVar(&o.Bazel, "bazel", "", "`program` that is Bazel (default bazelisk or bazel in PATH)")
	cmd.Flags().BoolVar(&o.Scan, "scan", false, "look for security faults and secrets, too")
	return cmd
}
