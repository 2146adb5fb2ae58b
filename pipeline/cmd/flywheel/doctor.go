package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/credential"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/doctor"
)

// doctorReport is the JSON form of findings.
type doctorReport struct {
	Schema   int             `json:"schema"` // 1
	OK       bool            `json:"ok"`     // there is no problem
	Findings doctor.Findings `json:"findings"`
}

func doctorCommand() *cobra.Command {
	var o doctor.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor [URL[/NAME]]",
		Short: "Find out why Nix does not use a cache",
		Long: `Looks at Nix, at those of its settings that make it pass over a cache, and at the
cache: whether it answers, its clock, its key, the signature and the speed of a
path that it has, and whether pushes are taken. Without a URL, each substituter of
nix.conf is looked at. In a job of GitLab, the contexts of the agent (KUBECONFIG)
and the state of OpenTofu (TF_HTTP_ADDRESS) are, too. Nothing is changed anywhere.

Each line is ok, a problem, a hint (it works, and could be better) or skipped; what
to do stands below. A URL's token is looked for as in a build; substituters of
nix.conf are shown none but netrc's.

Exit status:
  0    no problem
  2    bad usage
  5    a problem was found
  130  interrupted by SIGINT (143 by SIGTERM)`,
		Example: `  flywheel doctor
  flywheel doctor https://cache.example.org/main
  flywheel doctor https://cache.example.org/main --path /nix/store/…-app --json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage(fmt.Errorf("one cache is looked at, not %d", len(args)))
			}
			if len(args) == 1 {
				o.Cache = args[0]
				if _, err := push.NewClient(o.Cache); err != nil {
					return usage(err)
				}
			}
			if base := o.Path[strings.LastIndex(o.Path, "/")+1:]; o.Path != "" {
				if _, _, err := storepath.Split(base); err != nil {
					return usage(fmt.Errorf("--path: %w", err))
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Credentials, o.Getenv = credential.New(o.Credentials.File, ""), os.Getenv
			o.Tell = func(f doctor.Finding) {
				if !asJSON {
					fmt.Fprint(cmd.OutOrStdout(), f)
				}
			}
			findings, err := doctor.Examine(cmd.Context(), o)
			if err != nil {
				return err
			}
			if asJSON {
				text, err := json.MarshalIndent(doctorReport{Schema: 1, OK: findings.OK(), Findings: findings}, "", "  ")
				if err != nil {
					return fmt.Errorf("writing the findings: %w", err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s\n", text)
			}
			if !findings.OK() {
				return &exitError{exitProblem, errors.New("there are problems")}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON, at the end")
	cmd.Flags().StringVar(&o.Credentials.File, "token-file", "", "`file` with the token for the cache (default "+credential.TokenVariable+", netrc, the job's own identity)")
	cmd.Flags().StringVar(&o.Path, "path", "", "store `path` to fetch from the cache (default one of the store's newest that it has)")
	return cmd
}
