package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/gitlab"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/kubeconfig"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/runners"
)

const (
	gitlabTokenVariable = "GITLAB_TOKEN"

	defaultRotateBefore = 7 * 24 * time.Hour
	defaultStaleAfter   = 30 * 24 * time.Hour
)

// fleetFlags say which runners a command is about.
type fleetFlags struct {
	config, namespace, context string
	before                     time.Duration
}

func (o *fleetFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "", "TOML `file` with the runners (required)")
	f.StringVar(&o.namespace, "namespace", "", "`namespace` of the runners and their secrets")
	f.StringVar(&o.context, "context", "", "`context` of the kubeconfig (default the current one, or the pod's account)")
	f.DurationVar(&o.before, "rotate-before", defaultRotateBefore, "how `long` before its end a token is replaced")
}

// fleet connects to GitLab, and to the cluster where one is wanted.
func (o *fleetFlags) fleet(cmd *cobra.Command, withCluster bool) (*runners.Fleet, error) {
	if o.config == "" {
		return nil, usage(errors.New("--config is missing: the file with the runners"))
	}
	if o.before < 0 {
		return nil, usage(fmt.Errorf("--rotate-before %v: is negative", o.before))
	}
	config, err := runners.ReadConfig(o.config)
	if err != nil {
		return nil, usage(err)
	}
	f := &runners.Fleet{Config: config, Namespace: o.namespace, Out: cmd.OutOrStdout(), Now: time.Now}
	if f.GitLab, err = gitlabClient(os.Getenv, config.GitLab, "the scopes create_runner and manage_runner"); err != nil {
		return nil, err
	}
	if withCluster {
		if f.Cluster, err = kubeconfig.Connect(o.context); err != nil {
			return nil, usage(err)
		}
	}
	return f, nil
}

// gitlabClient says, where there is no token, which scopes it needs to have.
func gitlabClient(getenv func(string) string, base, scopes string) (*gitlab.Client, error) {
	token := getenv(gitlabTokenVariable)
	if token == "" {
		return nil, usage(fmt.Errorf("%s is not set: an access token of the group or project, with %s", gitlabTokenVariable, scopes))
	}
	c, err := gitlab.New(base, token)
	return c, usageOf(err)
}

func runnersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "runners",
		Short: "Keep the fleet's runners alive",
	}
	cmd.AddCommand(rotateCommand())
	return cmd
}

func rotateCommand() *cobra.Command {
	var o fleetFlags
	stale := defaultStaleAfter
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "See to it that each runner has a token that lives",
		Long: `Creates the runners of the file in GitLab, keeps their tokens in secrets of the
namespace (key runner-token), changes those that differ from the file, replaces
those whose token ends soon, and removes runners of this fleet that are not in the
file, or were replaced, and have been silent for --stale-after. A runner that is
replaced goes on until its pods have read the new token. Running it twice changes
nothing. GITLAB_TOKEN is an access token of the group (Owner) or project
(Maintainer) with the scopes create_runner and manage_runner.

Exit status:
  0    all runners are as they are to be
  1    GitLab or the cluster refused something; the message says which runner
  2    bad usage, or a fault in the file`,
		Example: `  flywheel runners rotate --config runners.toml --namespace bates-ils-runners
  flywheel runners rotate --config runners.toml --namespace runners --rotate-before 336h --stale-after 720h`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.NoArgs(cmd, args); err != nil {
				return usage(err)
			}
			switch {
			case o.namespace == "":
				return usage(errors.New("--namespace is missing: where the secrets are kept"))
			case stale < 0:
				return usage(fmt.Errorf("--stale-after %v: is negative", stale))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := o.fleet(cmd, true)
			if err != nil {
				return err
			}
			return f.Rotate(cmd.Context(), o.before, stale)
		},
	}
	o.flags(cmd)
	cmd.Flags().DurationVar(&stale, "stale-after", stale, "how `long` a runner that is not wanted has been silent when it is removed")
	return cmd
}

func healthCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Say how what was deployed is doing",
	}
	cmd.AddCommand(healthRunnersCommand())
	return cmd
}

func healthRunnersCommand() *cobra.Command {
	var o fleetFlags
	var files checkFiles
	cmd := &cobra.Command{
		Use:   "runners",
		Short: "Look at each runner, in GitLab and in the cluster",
		Long: `Looks whether each runner of the file is online in GitLab, takes jobs with its
tags and has a token that lives, and, with --namespace, at its secret and at the
deployments there. GITLAB_TOKEN is a token that may list the runners.

Exit status:
  0    the fleet is healthy
  2    bad usage, or a fault in the file
  40   it is not; the table says what to look at`,
		Example: `  flywheel health runners --config runners.toml --namespace bates-ils-runners --context of/agents:rigel
  flywheel health runners --config runners.toml`,
		Args: func(cmd *cobra.Command, args []string) error {
			return usageOf(errors.Join(cobra.NoArgs(cmd, args), files.check()))
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := o.fleet(cmd, o.namespace != "")
			if err != nil {
				return err
			}
			err = runChecks(cmd, files, f.Checks(o.before))
			var exit *exitError
			if errors.As(err, &exit) && exit.status == exitChecks {
				return &exitError{exitUnhealthy, exit.err}
			}
			return err
		},
	}
	o.flags(cmd)
	files.flags(cmd)
	return cmd
}
