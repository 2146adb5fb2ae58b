package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/gitlab"
)

// fleetTypes are the runners of the fleet, as the stack bates-ils-runners tags
// them.
var fleetTypes = []struct {
	name, use string
	tags      []string
}{
	{"docker", "anything in a container", []string{"docker", "linux", "amd64"}},
	{"dind", "building images", []string{"docker", "dind", "privileged"}},
	{"rocky8", "RHEL 8", []string{"rocky8", "rhel8", "linux"}},
	{"rocky9", "RHEL 9", []string{"rocky9", "rhel9", "linux"}},
	{"nix", "Nix builds with the cache configured", []string{"nix", "flakes"}},
}

func enrollCommand() *cobra.Command {
	var server string
	cmd := &cobra.Command{
		Use:   "enroll [PROJECT]",
		Short: "Say what a project must do to use the runners",
		Long: `Prints what a project needs for the fleet's runners. With GITLAB_TOKEN, it looks
at the project (the one of the CI job, or PROJECT), says what is missing there, and
which types are online for it. It changes nothing. The token needs the scope
read_api, and its user the role Maintainer in the project.

Exit status:
  0    the project can use the runners, or none was looked at
  1    GitLab could not be asked; the message says why
  2    bad usage, a project that is not there, or a token that is expired or lacks
       rights
  10   something is missing; it is said what`,
		Example: `  flywheel enroll
  GITLAB_TOKEN=… flywheel enroll bates-ils/projects/app
  GITLAB_TOKEN=… flywheel enroll bates-ils/projects/app --gitlab https://gitlab.example.org`,
		Args: func(cmd *cobra.Command, args []string) error { return usageOf(cobra.MaximumNArgs(1)(cmd, args)) },
		RunE: func(cmd *cobra.Command, args []string) error {
			project := os.Getenv("CI_PROJECT_PATH")
			if len(args) == 1 {
				project = args[0]
			}
			if os.Getenv(gitlabTokenVariable) == "" || project == "" {
				return steps(cmd.OutOrStdout(), project, nil)
			}
			return enroll(cmd, cmp.Or(server, os.Getenv("CI_SERVER_URL"), "https://gitlab.com"), project)
		},
	}
	cmd.Flags().StringVar(&server, "gitlab", "", "`URL` of the GitLab (default CI_SERVER_URL, then https://gitlab.com)")
	return cmd
}

// enroll looks at what the project has, and tells what it lacks.
func enroll(cmd *cobra.Command, server, path string) error {
	client, err := gitlabClient(os.Getenv, server, "the scope read_api")
	if err != nil {
		return err
	}
	project, err := client.Project(cmd.Context(), path)
	if err != nil {
		return enrollStatus(err)
	}
	online := map[string]bool{}
	for _, t := range fleetTypes {
		there, err := client.Online(cmd.Context(), project, t.tags)
		if err != nil {
			return enrollStatus(err)
		}
		if there {
			online[t.name] = true
		}
	}
	if err := steps(cmd.OutOrStdout(), project.Path, online); err != nil {
		return err
	}
	var missing []error
	if project.Archived {
		missing = append(missing, errors.New("it is archived, and runs no jobs: Settings > General > Advanced > Unarchive project"))
	}
	if !project.Jobs {
		missing = append(missing, errors.New("CI/CD is off: Settings > General > Visibility, project features, permissions > CI/CD"))
	}
	switch {
	case !project.GroupRunners:
		missing = append(missing, errors.New("it takes no runners of its group: Settings > CI/CD > Runners > Group"))
	case len(online) == 0:
		missing = append(missing, errors.New("no runner of the fleet is online for it: is it in the fleet's group, or in one below? Otherwise move it, or look at the fleet with flywheel health runners"))
	}
	if len(missing) > 0 {
		return &exitError{exitChecks, fmt.Errorf("%s: %w", project.Path, errors.Join(missing...))}
	}
	return nil
}

// enrollStatus makes usage of what whoever asks can mend: the project's name, or
// the token.
func enrollStatus(err error) error {
	var answer *gitlab.Error
	if errors.As(err, &answer) && slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound}, answer.Status) {
		return usage(err)
	}
	return err
}

// steps writes what to do; online are the types that have a runner, and is nil where
// nobody knows.
func steps(w io.Writer, project string, online map[string]bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s uses the fleet by tags, if it is in the fleet's group and takes group runners\n(Settings > CI/CD > Runners). In .gitlab-ci.yml, one of:\n\n", cmp.Or(project, "A project"))
	for _, t := range fleetTypes {
		state := ""
		if online != nil {
			state = "  none online"
			if online[t.name] {
				state = "  online"
			}
		}
		fmt.Fprintf(&b, "  %-32s # %s: %s%s\n", "tags: ["+strings.Join(t.tags, ", ")+"]", t.name, t.use, state)
	}
	b.WriteString(`
A job that wants more sets KUBERNETES_CPU_REQUEST, KUBERNETES_MEMORY_REQUEST and
KUBERNETES_MEMORY_LIMIT. Nothing else is needed: builds on nix find the cache.
`)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing what to do: %w", err)
	}
	return nil
}
