package runners

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/gitlab"
)

// Checks look at each runner, in GitLab and in the cluster, and at what runs them.
// Those of the cluster are left out where there is none.
func (f *Fleet) Checks(before time.Duration) []check.Check {
	var known []gitlab.Runner
	var listed error
	checks := []check.Check{{Name: "gitlab", Run: func(ctx context.Context, out io.Writer) error {
		if known, listed = f.GitLab.Runners(ctx, f.Config.owner()); listed == nil {
			_, _ = fmt.Fprintf(out, "  %s has %d runners\n", f.Config.owner(), len(known))
		}
		return listed
	}}}
	for _, w := range f.Config.Runners {
		checks = append(checks, check.Check{Name: w.Name, Run: func(ctx context.Context, out io.Writer) error {
			if listed != nil {
				return fmt.Errorf("%w: GitLab does not say", check.ErrSkip)
			}
			return f.look(ctx, out, w, known, before)
		}})
	}
	if f.Cluster != nil {
		checks = append(checks, check.Check{Name: "deployments", Run: f.deployments})
	}
	return checks
}

// look says what is wrong with a runner: with the one of its secret, or, where that
// cannot be read, with all that could be it.
func (f *Fleet) look(ctx context.Context, out io.Writer, w Wanted, known []gitlab.Runner, before time.Duration) error {
	candidates, err := f.candidates(ctx, out, w, known, before)
	if err != nil {
		return err
	}
	if len(candidates) == 0 {
		return fmt.Errorf("GitLab has no runner for the tags %s\nrun flywheel runners rotate", strings.Join(w.Tags, ", "))
	}
	var faults []string
	for _, r := range candidates {
		switch {
		case r.Paused:
			faults = append(faults, fmt.Sprintf("runner %d is paused: it is given no jobs", r.ID))
		case r.Status != "online":
			faults = append(faults, fmt.Sprintf("runner %d is %s, %s", r.ID, r.Status, silence(f.Now(), r)))
		case !hasTags(r.Tags, w.Tags):
			faults = append(faults, fmt.Sprintf("runner %d has the tags %s, not %s", r.ID, strings.Join(r.Tags, ", "), strings.Join(w.Tags, ", ")))
		default:
			_, _ = fmt.Fprintf(out, "  runner %d is online\n", r.ID)
			return nil
		}
	}
	return fmt.Errorf("%s\nlook at its pods: kubectl -n %s get pods,events", strings.Join(faults, "; "), f.Namespace)
}

// candidates are the runner of the secret or, without a cluster or the right to read
// the secret, which viewers have not, those that were made for it.
func (f *Fleet) candidates(ctx context.Context, out io.Writer, w Wanted, known []gitlab.Runner, before time.Duration) ([]gitlab.Runner, error) {
	if f.Cluster != nil {
		secret, err := f.Cluster.CoreV1().Secrets(f.Namespace).Get(ctx, w.Secret, meta.GetOptions{})
		switch {
		case apierrors.IsForbidden(err):
			_, _ = fmt.Fprintf(out, "  the end of its token is not known: the secret %s may not be read here\n", w.Secret)
		case err != nil:
			return nil, fmt.Errorf("the secret %s: %w\nlook at the CronJob that runs flywheel runners rotate", w.Secret, err)
		default:
			current, reason := f.current(secret, known, before)
			if reason != "" {
				return nil, fmt.Errorf("it needs a new token: %s\nlook at the CronJob that runs flywheel runners rotate", reason)
			}
			return []gitlab.Runner{current}, nil
		}
	}
	var candidates []gitlab.Runner
	for _, r := range known {
		if r.Note == fleetNote(f.Namespace)+w.Name || f.Namespace == "" && hasTags(r.Tags, w.Tags) {
			candidates = append(candidates, r)
		}
	}
	return candidates, nil
}

// hasTags says whether a job with the tags can run on a runner that has some.
func hasTags(has, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(tag string) bool { return !slices.Contains(has, tag) })
}

// deployments are what runs the runners.
func (f *Fleet) deployments(ctx context.Context, out io.Writer) error {
	list, err := f.Cluster.AppsV1().Deployments(f.Namespace).List(ctx, meta.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing deployments: %w", err)
	}
	var faults []string
	for _, d := range list.Items {
		want := int32(1)
		if d.Spec.Replicas != nil {
			want = *d.Spec.Replicas
		}
		if d.Status.AvailableReplicas < want {
			faults = append(faults, fmt.Sprintf("%s has %d of %d replicas", d.Name, d.Status.AvailableReplicas, want))
			continue
		}
		_, _ = fmt.Fprintf(out, "  %s has %d replicas\n", d.Name, d.Status.AvailableReplicas)
	}
	if len(faults) > 0 {
		return fmt.Errorf("%s\nlook at kubectl -n %s get pods,events", strings.Join(faults, "; "), f.Namespace)
	}
	return nil
}
