package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/deploy"
)

// deployment are the flags that plan, deploy and destroy share, and the files they
// write.
type deployment struct {
	deploy.Options
	where   place
	summary string
	dotenv  string
	note    bool
	reports []string // of builds, which the note sums up
}

func (d *deployment) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	d.where.flags(cmd)
	f.StringVar(&d.Stack, "stack", deploy.DefaultStack, "`name` of the stack")
	f.StringVar(&d.Sources, "sources", "", "`directory` with modules and stacks, such as deploy/tofu (default those that flywheel was built with)")
	f.StringVar(&d.Tofu, "tofu", "", "`program` that is OpenTofu (default tofu in PATH)")
	f.StringVar(&d.Image, "image", "", "`image` of the server, by version or digest (default the stack's)")
	f.StringArrayVar(&d.Vars, "var", nil, "`name=value` of a variable of the stack (repeatable)")
	f.StringVar(&d.ForceUnlock, "force-unlock", "", "`ID` of a dead run's lock, to be released first")
	f.BoolVar(&d.note, "note", false, "write the plan as a note on the job's merge request, with the token in "+gitlabTokenVariable+"; the next job changes that note")
	f.StringArrayVar(&d.reports, "build-report", nil, "`file` that flywheel build --report wrote, to be summed up in the note (repeatable)")
	f.StringVar(&d.summary, "summary", "", "`file` to write what the plan changes to, as JSON; also GitLab's artifacts:reports:terraform")
}

func (d *deployment) applyFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&d.AllowDestroy, "allow-destroy", false, "let the plan destroy databases, buckets, volumes and namespaces")
	f.DurationVar(&d.LockTimeout, "lock-timeout", deploy.DefaultLockTimeout, "how `long` another run is waited for")
}

// check finds the environment and what is wrong with the flags.
func (d *deployment) check(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return usage(err)
	}
	var err error
	if d.Environment, err = d.where.environment(); err != nil {
		return err
	}
	if d.Timeout < 0 || d.LockTimeout < 0 {
		return usage(errors.New("a time is negative"))
	}
	if len(d.reports) > 0 && !d.note {
		return usage(errors.New("--build-report is for the note: say --note, too"))
	}
	d.Getenv, d.Out = os.Getenv, cmd.ErrOrStderr()
	return usageOf(errors.Join(checkFile("summary", d.summary), checkFile("dotenv", d.dotenv)))
}

// files writes what later jobs read.
func (d *deployment) files(cmd *cobra.Command, plan deploy.Summary, o deploy.Outputs) error {
	if d.note && plan.Schema != 0 {
		if err := d.tellMergeRequest(cmd, plan); err != nil {
			// What was deployed does not depend on who hears of it.
			fmt.Fprintf(cmd.ErrOrStderr(), "flywheel: no note on the merge request: %v\n", err)
		}
	}
	if d.summary != "" && plan.Schema != 0 { // it came so far
		text, err := json.MarshalIndent(plan, "", "  ")
		if err != nil {
			return fmt.Errorf("writing the summary: %w", err)
		}
		if err := write(cmd.OutOrStdout(), d.summary, append(text, '\n')); err != nil {
			return err
		}
	}
	if d.dotenv == "" || o.URL == "" {
		return nil
	}
	text := "ENVIRONMENT_URL=" + o.URL + "\n"
	for _, v := range [][2]string{{"CACHE_GRPC_HOST", o.GRPCHost}, {"CACHE_BAZEL_URL", o.BazelURL}} {
		if v[1] != "" {
			text += v[0] + "=" + v[1] + "\n"
		}
	}
	return write(cmd.OutOrStdout(), d.dotenv, []byte(text))
}

// deployStatus is the status of an error: what was asked for wrongly is usage.
func deployStatus(err error) error {
	var input *deploy.InputError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &input):
		return usage(err)
	}
	return &exitError{exitDeploy, err}
}

const deployStatuses = `

Exit status:
  0    done
  2    bad usage, a wrong context or variable, an expired token, missing rights;
       nothing was applied
  4    the ref has no environment
  30   it failed; the message says why, and how to go back
  130  interrupted by SIGINT (143 by SIGTERM): what was begun is ended, the state
       written and its lock released; a second signal stops at once`

const deploySurroundings = `

The kubeconfig (KUBECONFIG) has to have the environment's context, and the state
is where TF_HTTP_ADDRESS, TF_HTTP_USERNAME and TF_HTTP_PASSWORD say; in a job of
GitLab both are given. S3_ENDPOINT, S3_BUCKET_NAME, S3_ACCESS_KEY_ID and
S3_SECRET_ACCESS_KEY are handed on to the stack, as is every TF_VAR_….`

func planCommand() *cobra.Command {
	var d deployment
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Say what a deployment would change",
		Long: `Looks at the context, the rights on the cluster and the state, plans the stack and
prints what would be added, changed and destroyed. Nothing changes, and no lock is
taken. --out keeps the plan, for deploy --plan.` + deploySurroundings + deployStatuses,
		Example: `  flywheel plan --environment staging
  flywheel plan --environment production --out plan.bin --summary plan.json`,
		Args: func(cmd *cobra.Command, args []string) error {
			return cmp.Or(d.check(cmd, args), usageOf(checkFile("out", d.PlanFile)))
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			plan, err := deploy.Plan(cmd.Context(), d.Options)
			if err != nil {
				return deployStatus(err)
			}
			if err := plan.Table(cmd.OutOrStdout()); err != nil {
				return err
			}
			return d.files(cmd, plan, deploy.Outputs{})
		},
	}
	d.flags(cmd)
	cmd.Flags().StringVar(&d.PlanFile, "out", "", "`file` to keep the plan in; it holds secrets")
	return cmd
}

func deployCommand() *cobra.Command {
	var d deployment
	cmd := &cobra.Command{
		Use:   "deploy",
		Short: "Put a stack on its cluster, and wait until it runs",
		Long: `Plans the stack, applies exactly that plan, and waits for the rollouts. Doing it
again changes nothing. A plan that destroys a database, an object store, a volume
or a namespace is applied with --allow-destroy only. A rollout that fails is told
with its pods, events and last logs.` + deploySurroundings + deployStatuses,
		Example: `  flywheel deploy --environment staging --image registry.example.org/attic-cache:v1.2.3
  flywheel deploy --environment review/feature/x --dotenv deploy.env
  flywheel deploy --environment review/feature/x --note --build-report build.json
  flywheel deploy --environment production --plan plan.bin
  flywheel deploy --environment staging --force-unlock 6b3c2c5e-…`,
		Args: d.check,
		RunE: func(cmd *cobra.Command, _ []string) error {
			result, err := deploy.Deploy(cmd.Context(), d.Options)
			if e := d.files(cmd, result.Plan, result.Outputs); err == nil {
				err = e
			}
			if err != nil {
				return deployStatus(err)
			}
			if result.Outputs.URL != "" {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), result.Outputs.URL)
			}
			return err
		},
	}
	d.flags(cmd)
	d.applyFlags(cmd)
	cmd.Flags().StringVar(&d.PlanFile, "plan", "", "`file` with the plan to apply, of plan --out")
	cmd.Flags().DurationVar(&d.Timeout, "timeout", deploy.DefaultTimeout, "how `long` rollouts may take")
	cmd.Flags().StringVar(&d.dotenv, "dotenv", "", "`file` to write ENVIRONMENT_URL, CACHE_GRPC_HOST and CACHE_BAZEL_URL to")
	return cmd
}

func destroyCommand() *cobra.Command {
	var d deployment
	cmd := &cobra.Command{
		Use:   "destroy",
		Short: "Remove an environment's stack",
		Long: `Destroys all that the state has of a stack. It needs no checkout, so that a review
environment can be stopped after its branch is gone; a review's data goes with it,
and its state too. For other environments, databases and object stores are
destroyed with --allow-destroy only. What is gone already is no error.` + deploySurroundings + deployStatuses,
		Example: `  flywheel destroy --environment review/feature/x
  flywheel destroy --environment staging --allow-destroy`,
		Args: d.check,
		RunE: func(cmd *cobra.Command, _ []string) error {
			result, err := deploy.Destroy(cmd.Context(), d.Options)
			if e := d.files(cmd, result.Plan, deploy.Outputs{}); err == nil {
				err = e
			}
			return deployStatus(err)
		},
	}
	d.flags(cmd)
	d.applyFlags(cmd)
	return cmd
}
