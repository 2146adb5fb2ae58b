package main

import (
	"context"
	"errors"

	"dagger/attic-cache/internal/dagger"
)

// Deployment is what a deployment changed, or would change.
type Deployment struct {
	// What is added, changed and destroyed, and what the command said of it.
	Summary string
	// How many objects of the stack are added, changed and destroyed, as JSON: GitLab's report terraform.
	Plan *dagger.File
	// Where it is, as variables for later jobs: ENVIRONMENT_URL, CACHE_GRPC_HOST and CACHE_BAZEL_URL.
	Dotenv *dagger.File
	// Where it is.
	URL string
}

// target says what is deployed where.
type target struct {
	environment string
	kubeconfig  *dagger.Secret
	settings    *dagger.Secret
	config      *dagger.File
	stack       string
	image       string
	vars        []string
}

// withSettings runs a command with the variables of a file, of which a process list
// and the engine's own cache tell nothing.
const withSettings = `if [ -e /run/secrets/settings ]; then set -a; . /run/secrets/settings; set +a; fi; exec "$@"`

// onCluster runs a command of flywheel, whose stacks are in it, with OpenTofu and
// the rights of a kubeconfig.
func (m *AtticCache) onCluster(ctx context.Context, t target, command string, args ...string) (*dagger.Container, error) {
	if t.environment == "" {
		return nil, errors.New("say which environment: staging, production, or review/BRANCH")
	}
	c := dag.Container().From(m.TofuImage).
		WithUser("root"). // whom secrets belong to, whatever the image's user
		WithFile("/usr/local/bin/flywheel", m.Flywheel("")).
		WithDirectory("/out", dag.Directory().WithNewFile("plan.json", "").WithNewFile("deploy.env", "")).
		WithMountedSecret("/run/secrets/kubeconfig", t.kubeconfig).
		WithEnvVariable("KUBECONFIG", "/run/secrets/kubeconfig")
	if t.settings != nil {
		c = c.WithMountedSecret("/run/secrets/settings", t.settings)
	}
	run := append([]string{"sh", "-c", withSettings, "sh", "flywheel", command, "--environment", t.environment, "--summary", "/out/plan.json"}, args...)
	if t.config != nil {
		c = c.WithMountedFile("/etc/environments.toml", t.config)
		run = append(run, "--config", "/etc/environments.toml")
	}
	if t.stack != "" {
		run = append(run, "--stack", t.stack)
	}
	if t.image != "" {
		run = append(run, "--image", t.image)
	}
	for _, v := range t.vars {
		run = append(run, "--var", v)
	}
	done := everyTime(c).WithExec(run, anyExit)
	status, err := done.ExitCode(ctx)
	if err != nil {
		return nil, err
	}
	if status != exitOK {
		return nil, said(ctx, done, "flywheel "+command, status)
	}
	return done, nil
}

// Say what a deployment would change. Nothing changes, and no lock is taken.
// +cache="never"
func (m *AtticCache) Plan(
	ctx context.Context,
	// Where to: staging, production, or review/BRANCH.
	environment string,
	// Kubeconfig that has the environment's context, such as file://$KUBECONFIG.
	kubeconfig *dagger.Secret,
	// File of variables as a shell reads it: TF_HTTP_ADDRESS, TF_HTTP_USERNAME and TF_HTTP_PASSWORD of the state; S3_… and TF_VAR_… of the stack.
	// +optional
	settings *dagger.Secret,
	// Stack; attic when there is none.
	// +optional
	stack string,
	// The server's image, by version or digest; the stack's own when there is none.
	// +optional
	image string,
	// Variables of the stack, as name=value.
	// +optional
	vars []string,
	// TOML file with the names, clusters and domains of another organisation.
	// +optional
	config *dagger.File,
) (*Deployment, error) {
	done, err := m.onCluster(ctx, target{environment, kubeconfig, settings, config, stack, image, vars}, "plan")
	if err != nil {
		return nil, err
	}
	words, err := done.Stdout(ctx)
	if err != nil {
		return nil, err
	}
	return &Deployment{Summary: words, Plan: done.File("/out/plan.json"), Dotenv: done.File("/out/deploy.env")}, nil
}

// Put a stack on its cluster, and wait until it runs. To do it again changes nothing.
//
// A call that is broken off may leave the state locked: the next one says so, and by whom.
// +cache="never"
func (m *AtticCache) Deploy(
	ctx context.Context,
	// Where to: staging, production, or review/BRANCH.
	environment string,
	// Kubeconfig that has the environment's context, such as file://$KUBECONFIG.
	kubeconfig *dagger.Secret,
	// File of variables as a shell reads it: TF_HTTP_ADDRESS, TF_HTTP_USERNAME and TF_HTTP_PASSWORD of the state; S3_… and TF_VAR_… of the stack.
	// +optional
	settings *dagger.Secret,
	// Stack; attic when there is none.
	// +optional
	stack string,
	// The server's image, by version or digest; the stack's own when there is none.
	// +optional
	image string,
	// Variables of the stack, as name=value.
	// +optional
	vars []string,
	// TOML file with the names, clusters and domains of another organisation.
	// +optional
	config *dagger.File,
	// Let the plan destroy databases, buckets, volumes and namespaces.
	// +optional
	allowDestroy bool,
	// ID of a dead run's lock, to be released first.
	// +optional
	forceUnlock string,
	// How long rollouts may take, such as 10m.
	// +optional
	timeout string,
) (*Deployment, error) {
	args := append(destroyArgs(allowDestroy, forceUnlock), "--dotenv", "/out/deploy.env")
	if timeout != "" {
		args = append(args, "--timeout", timeout)
	}
	done, err := m.onCluster(ctx, target{environment, kubeconfig, settings, config, stack, image, vars}, "deploy", args...)
	if err != nil {
		return nil, err
	}
	d := &Deployment{Plan: done.File("/out/plan.json"), Dotenv: done.File("/out/deploy.env")}
	if d.Summary, err = done.Stderr(ctx); err != nil {
		return nil, err
	}
	if d.URL, err = done.WithExec([]string{"sed", "-n", "s/^ENVIRONMENT_URL=//p", "/out/deploy.env"}).Stdout(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

// Remove an environment's stack. What is gone already is no error.
// +cache="never"
func (m *AtticCache) Destroy(
	ctx context.Context,
	// Which: staging, production, or review/BRANCH.
	environment string,
	// Kubeconfig that has the environment's context, such as file://$KUBECONFIG.
	kubeconfig *dagger.Secret,
	// File of variables as a shell reads it: TF_HTTP_ADDRESS, TF_HTTP_USERNAME and TF_HTTP_PASSWORD of the state; S3_… and TF_VAR_… of the stack.
	// +optional
	settings *dagger.Secret,
	// Stack; attic when there is none.
	// +optional
	stack string,
	// TOML file with the names, clusters and domains of another organisation.
	// +optional
	config *dagger.File,
	// Destroy databases and object stores of environments other than reviews, too.
	// +optional
	allowDestroy bool,
	// ID of a dead run's lock, to be released first.
	// +optional
	forceUnlock string,
) (*Deployment, error) {
	done, err := m.onCluster(ctx, target{environment, kubeconfig, settings, config, stack, "", nil}, "destroy", destroyArgs(allowDestroy, forceUnlock)...)
	if err != nil {
		return nil, err
	}
	words, err := done.Stderr(ctx)
	if err != nil {
		return nil, err
	}
	return &Deployment{Summary: words, Plan: done.File("/out/plan.json"), Dotenv: done.File("/out/deploy.env")}, nil
}

func destroyArgs(allowDestroy bool, forceUnlock string) (args []string) {
	if allowDestroy {
		args = append(args, "--allow-destroy")
	}
	if forceUnlock != "" {
		args = append(args, "--force-unlock", forceUnlock)
	}
	return args
}
