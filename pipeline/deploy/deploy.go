// Package deploy puts a stack of OpenTofu on a cluster and sees it run. What it
// does may be done again at any time, and stopped at any time: a run that was
// killed leaves at most a lock, which the next one names.
package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/environment"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/kubeconfig"
)

// Defaults of Options.
const (
	DefaultStack       = "attic"
	DefaultTimeout     = 10 * time.Minute
	DefaultLockTimeout = 2 * time.Minute
)

// Options say what is deployed where.
type Options struct {
	Environment environment.Environment
	Stack       string
	// Sources is a directory with modules and stacks, in place of those that the
	// program was built with; empty for these.
	Sources string
	Tofu    string // the program; tofu in PATH when empty
	Image   string // of the server; the stack's default when empty
	// Vars are further variables of OpenTofu, as name=value.
	Vars []string
	// AllowDestroy lets a plan destroy what holds data.
	AllowDestroy bool
	// ForceUnlock is the ID of the lock to release first; empty for none.
	ForceUnlock string
	// PlanFile is where Plan saves the plan, and which Deploy applies; Deploy
	// makes one when it is empty.
	PlanFile string
	// Timeout is how long rollouts may take.
	Timeout time.Duration
	// LockTimeout is how long another run is waited for.
	LockTimeout time.Duration
	// Getenv tells the state's address and the variables of the project.
	Getenv func(string) string
	Out    io.Writer

	connect func(context string) (kubernetes.Interface, error) // nil: by the kubeconfig
}

// InputError is a fault of what was asked for. Nothing was done.
type InputError struct{ Err error }

func (e *InputError) Error() string { return e.Err.Error() }
func (e *InputError) Unwrap() error { return e.Err }

func inputf(format string, args ...any) error { return &InputError{fmt.Errorf(format, args...)} }

// run is one command's work on one stack.
type run struct {
	Options
	cluster kubernetes.Interface
	state   *state
	stack   *stack
	tofu    *tofu
}

// Result is what became of a deployment.
type Result struct {
	Plan    Summary
	Outputs Outputs
}

// Plan says what Deploy would do. It takes no lock, which is more than a
// developer's rights in GitLab allow, and changes nothing.
func Plan(ctx context.Context, o Options) (Summary, error) {
	r, end, err := begin(ctx, o)
	if err != nil {
		return Summary{}, err
	}
	defer end()
	summary, err := r.plan(ctx, r.planFile(), "-lock=false")
	if err == nil {
		r.tell("plan", "%s", summary)
	}
	return summary, err
}

// Deploy applies a plan and waits until everything runs. The plan is the one that
// it shows, whatever the configuration becomes meanwhile.
func Deploy(ctx context.Context, o Options) (Result, error) { return apply(ctx, o, false) }

// Destroy removes the environment's stack. What is gone already is no error.
func Destroy(ctx context.Context, o Options) (Result, error) {
	// A review's data is a branch's, and goes with it.
	o.AllowDestroy = o.AllowDestroy || o.Environment.Kind == environment.Review
	return apply(ctx, o, true)
}

func apply(ctx context.Context, o Options, destroy bool) (Result, error) {
	var result Result
	r, end, err := begin(ctx, o)
	if err != nil {
		return result, err
	}
	defer end()
	if err := r.unlocked(ctx); err != nil {
		return result, err
	}
	file := r.planFile()
	switch {
	case destroy:
		result.Plan, err = r.plan(ctx, file, r.lockTimeout(), "-destroy")
	case o.PlanFile != "":
		result.Plan, err = r.tofu.show(ctx, file)
	default:
		result.Plan, err = r.plan(ctx, file, r.lockTimeout())
	}
	if err != nil {
		return result, err
	}
	r.tell("plan", "%s", result.Plan)
	if guarded := result.Plan.Guarded(); len(guarded) > 0 && !r.AllowDestroy {
		return result, inputf("the plan destroys what holds data (%s): if that is meant, say --allow-destroy; nothing was applied", strings.Join(guarded, ", "))
	}
	if result.Plan.Changes() > 0 || result.Plan.OutputsChange {
		began := time.Now()
		if err := r.tofu.stream(ctx, "apply", r.lockTimeout(), file); err != nil {
			return result, errors.Join(r.explain(ctx, applying, err), r.rescue(ctx))
		}
		r.tell("apply", "done in %v", time.Since(began).Round(100*time.Millisecond))
	} else {
		r.tell("apply", "nothing to do")
	}
	if destroy {
		r.forget(ctx)
		return result, nil
	}
	if result.Outputs, err = r.tofu.outputs(ctx); err != nil {
		return result, err
	}
	return result, r.rollout(ctx, cmp.Or(result.Outputs.Namespace, result.Plan.Namespace), result.Outputs.Workloads)
}

// begin checks everything that can be checked before something is done, and makes
// the working directory, which end removes.
func begin(ctx context.Context, o Options) (*run, func(), error) {
	r := &run{Options: o}
	var err error
	if r.stack, err = openStack(o.Stack, o.Environment, o.Sources); err != nil {
		return nil, nil, err
	}
	end := func() { _ = os.RemoveAll(r.stack.root) } // it is in the temporary directory
	if err := r.preflight(ctx); err != nil {
		end()
		return nil, nil, err
	}
	if err := r.tofu.init(ctx); err != nil {
		end()
		return nil, nil, r.explain(ctx, "preparing", err)
	}
	return r, end, nil
}

// preflight looks at each thing that a deployment needs, and asks it whether it
// works, so that a fault is one sentence and not a half-done apply.
func (r *run) preflight(ctx context.Context) error {
	var err error
	if r.state, err = stateOf(r.Getenv, r.stack.stateName(r.Environment)); err != nil {
		return err
	}
	if r.tofu, err = findTofu(ctx, r); err != nil {
		return err
	}
	if r.connect == nil {
		r.connect = kubeconfig.Connect
	}
	name := r.Environment.KubeContext
	if r.cluster, err = r.connect(name); err != nil {
		return &InputError{err}
	}
	if err := checkRights(ctx, r.cluster, name, r.stack.rights(r.Environment)); err != nil {
		return err
	}
	r.tell("cluster", "context %s, with the rights to deploy", name)
	if r.ForceUnlock != "" {
		if err := r.state.release(ctx, r.ForceUnlock); err != nil {
			return err
		}
		r.tell("state", "released the lock %s", r.ForceUnlock)
	}
	found, err := r.state.check(ctx)
	if err != nil {
		return err
	}
	r.tell("state", "%s, %s", r.state.name, found)
	return nil
}

// unlocked waits until nobody else works on the state.
func (r *run) unlocked(ctx context.Context) error {
	deadline := time.Now().Add(r.LockTimeout)
	told := false
	for {
		err := r.state.probeLock(ctx)
		var locked *LockedError
		if !errors.As(err, &locked) || time.Now().After(deadline) {
			return err
		}
		if !told {
			r.tell("state", "%v; waiting for %v", locked.who(), r.LockTimeout)
			told = true
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(2*time.Second, max(time.Until(deadline), 100*time.Millisecond))):
		}
	}
}

// forget drops the state of a review that was removed: its branch does not come
// back, and states would pile up.
func (r *run) forget(ctx context.Context) {
	if r.Environment.Kind != environment.Review {
		return
	}
	if err := r.state.remove(ctx); err != nil {
		r.tell("state", "left behind: %v", err)
		return
	}
	r.tell("state", "removed")
}

// tell writes a line of what is done.
func (r *run) tell(step, format string, args ...any) {
	_, _ = fmt.Fprintf(r.Out, "%-10s %s\n", step, fmt.Sprintf(format, args...))
}

func (r *run) planFile() string {
	if r.PlanFile != "" {
		return r.PlanFile
	}
	return r.stack.root + "/deploy.tfplan"
}

func (r *run) lockTimeout() string { return "-lock-timeout=" + r.LockTimeout.String() }

func (r *run) plan(ctx context.Context, file string, args ...string) (Summary, error) {
	args = append(args, "-out="+file, "-var-file="+r.stack.varFile)
	for _, v := range r.stack.variables(r.Environment, r.Image, r.Getenv("CI_PROJECT_ID")) {
		args = append(args, "-var="+v)
	}
	for _, v := range r.Vars {
		args = append(args, "-var="+v)
	}
	if err := r.tofu.stream(ctx, "plan", args...); err != nil {
		return Summary{}, r.explain(ctx, "planning", err)
	}
	return r.tofu.show(ctx, file)
}

// applying is what is done when explain is asked for it: what OpenTofu refuses then
// is no longer about what it was given, and something may have been applied.
const applying = "applying"

// explain makes one sentence of what OpenTofu ended with.
func (r *run) explain(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var failed *tofuError
	if !errors.As(err, &failed) {
		return err
	}
	for _, d := range failed.diagnostics {
		switch {
		case strings.Contains(d.Summary, "state lock"):
			if err := r.state.probeLock(ctx); err != nil {
				return err
			}
		case strings.Contains(d.Summary, "plan is stale"):
			return inputf("the state has changed since the plan was made: plan again; nothing was applied")
		case doing != applying && d.input():
			return inputf("%s: nothing was applied", d)
		}
	}
	err = fmt.Errorf("%s %s: %w", doing, r.Stack, err)
	if doing == applying {
		err = fmt.Errorf("%w\nwhat was applied before that stays: mend the cause and deploy again%s", err, r.leftLock(ctx))
	}
	return err
}

// leftLock says what an OpenTofu that was killed leaves behind; nothing where there
// is no lock, or nobody knows.
func (r *run) leftLock(ctx context.Context) string {
	var locked *LockedError
	if !errors.As(r.state.probeLock(ctx), &locked) {
		return ""
	}
	return fmt.Sprintf("; %s: if no other run goes on, release it with --force-unlock %s", locked.who(), cmp.Or(locked.Lock.ID, "ID"))
}
