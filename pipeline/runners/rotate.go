package runners

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/gitlab"
)

const (
	tokenKey = "runner-token"
	// emptyKey is wanted by the runner's chart, and is empty for tokens of this
	// kind.
	emptyKey = "runner-registration-token"

	idAnnotation  = "flywheel/runner-id"
	endAnnotation = "flywheel/token-expires"

	// cleanTime bounds the removal of a runner whose token could not be kept.
	cleanTime = 30 * time.Second
)

// Fleet is the runners of one namespace.
type Fleet struct {
	Config    *Config
	Namespace string
	GitLab    *gitlab.Client
	Cluster   kubernetes.Interface
	Out       io.Writer
	Now       func() time.Time
}

// Rotate sees to it that each runner is in GitLab as it is to be and has a token
// that lives for longer than before, and removes runners of this fleet that nobody
// wants and that have been silent for longer than stale. A runner whose token ends
// is replaced by a new one: resetting the token would stop the running one at
// once, while this way it goes on until it has read the new token. Doing it again
// changes nothing. All runners are looked at even when one fails.
func (f *Fleet) Rotate(ctx context.Context, before, stale time.Duration) error {
	known, err := f.GitLab.Runners(ctx, f.Config.owner())
	if err != nil {
		return err
	}
	var errs []error
	kept := map[int]bool{}
	for _, w := range f.Config.Runners {
		id, err := f.keep(ctx, w, known, before)
		if err != nil {
			errs = append(errs, fmt.Errorf("runner %s: %w", w.Name, err))
		}
		kept[id] = true
	}
	if len(errs) > 0 {
		// Which ones are in use is not known for sure.
		return errors.Join(errs...)
	}
	for _, r := range known {
		if kept[r.ID] || !strings.HasPrefix(r.Note, fleetNote(f.Namespace)) || r.Status == "online" || f.Now().Sub(r.Contacted) < stale {
			continue
		}
		if err := f.GitLab.RemoveRunner(ctx, r.ID); err != nil {
			errs = append(errs, err)
			continue
		}
		f.tell("removed %d (%s), %s", r.ID, r.Description, silence(f.Now(), r))
	}
	return errors.Join(errs...)
}

func silence(now time.Time, r gitlab.Runner) string {
	if r.Contacted.IsZero() {
		return "which never asked for jobs"
	}
	return fmt.Sprintf("silent for %d days", int(now.Sub(r.Contacted).Hours()/24))
}

// keep returns the ID of the runner that serves, 0 for none.
func (f *Fleet) keep(ctx context.Context, w Wanted, known []gitlab.Runner, before time.Duration) (int, error) {
	secret, err := f.Cluster.CoreV1().Secrets(f.Namespace).Get(ctx, w.Secret, meta.GetOptions{})
	if apierrors.IsNotFound(err) {
		secret, err = nil, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the secret %s: %w", w.Secret, err)
	}
	current, reason := f.current(secret, known, before)
	if reason != "" {
		return f.create(ctx, w, secret, reason)
	}
	if want := w.spec(f.Namespace); !same(current.Spec, want) {
		if err := f.GitLab.UpdateRunner(ctx, current.ID, want); err != nil {
			return current.ID, err
		}
		f.tell("%s: changed %d", w.Name, current.ID)
		return current.ID, nil
	}
	f.tell("%s: %d is as it is to be", w.Name, current.ID)
	return current.ID, nil
}

// current is the runner of a secret's token, or why there has to be a new one.
func (f *Fleet) current(secret *core.Secret, known []gitlab.Runner, before time.Duration) (gitlab.Runner, string) {
	if secret == nil {
		return gitlab.Runner{}, "there is no secret"
	}
	id, err := strconv.Atoi(secret.Annotations[idAnnotation])
	if err != nil || len(secret.Data[tokenKey]) == 0 {
		return gitlab.Runner{}, "the secret has no token of ours"
	}
	i := slices.IndexFunc(known, func(r gitlab.Runner) bool { return r.ID == id })
	if i < 0 {
		return gitlab.Runner{}, fmt.Sprintf("runner %d is gone", id)
	}
	if said := secret.Annotations[endAnnotation]; said != "" {
		end, err := time.Parse(time.RFC3339, said)
		if err != nil || end.Sub(f.Now()) < before {
			return gitlab.Runner{}, "its token ends on " + said
		}
	}
	return known[i], ""
}

func same(a, b gitlab.Spec) bool {
	return a.Description == b.Description && a.Untagged == b.Untagged && a.Protected == b.Protected && a.Note == b.Note &&
		(b.Timeout == 0 || a.Timeout == b.Timeout) &&
		slices.Equal(slices.Sorted(slices.Values(a.Tags)), b.Tags)
}

// create makes a runner and keeps its token, or neither.
func (f *Fleet) create(ctx context.Context, w Wanted, secret *core.Secret, reason string) (int, error) {
	made, err := f.GitLab.CreateRunner(ctx, f.Config.owner(), w.spec(f.Namespace))
	if err != nil {
		return 0, err
	}
	// From here on also when this is stopped: the token is told only once.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	if err := f.write(ctx, w, secret, made); err != nil {
		return 0, errors.Join(fmt.Errorf("writing the secret %s: %w", w.Secret, err), f.GitLab.RemoveRunner(ctx, made.ID))
	}
	f.tell("%s: created %d, because %s", w.Name, made.ID, reason)
	return made.ID, nil
}

func (f *Fleet) write(ctx context.Context, w Wanted, secret *core.Secret, made gitlab.NewRunner) error {
	there := secret != nil
	if !there {
		secret = &core.Secret{ObjectMeta: meta.ObjectMeta{
			Name: w.Secret, Namespace: f.Namespace, Labels: map[string]string{"app.kubernetes.io/managed-by": "flywheel"},
		}, Type: core.SecretTypeOpaque}
	}
	if secret.Annotations == nil {
		secret.Annotations = map[string]string{}
	}
	secret.Annotations[idAnnotation] = strconv.Itoa(made.ID)
	delete(secret.Annotations, endAnnotation)
	if !made.Expires.IsZero() {
		secret.Annotations[endAnnotation] = made.Expires.UTC().Format(time.RFC3339)
	}
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	secret.Data[tokenKey], secret.Data[emptyKey] = []byte(made.Token), []byte{}
	var err error
	if there {
		// With the version that was read, so that two that run at once do not
		// both believe to have written.
		_, err = f.Cluster.CoreV1().Secrets(f.Namespace).Update(ctx, secret, meta.UpdateOptions{})
	} else {
		_, err = f.Cluster.CoreV1().Secrets(f.Namespace).Create(ctx, secret, meta.CreateOptions{})
	}
	return err
}

func (f *Fleet) tell(format string, args ...any) {
	_, _ = fmt.Fprintf(f.Out, format+"\n", args...)
}
