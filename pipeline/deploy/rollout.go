package deploy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// rolloutPause is between two looks at a workload.
const rolloutPause = 2 * time.Second

// progress is how far a workload is.
type progress struct {
	done  bool
	stuck string // why it will not go on; empty while it may
	text  string
	pods  labels.Selector
}

// rollout waits until each workload, as kind/name, runs what was applied.
func (r *run) rollout(ctx context.Context, namespace string, workloads []string) error {
	if len(workloads) > 0 && namespace == "" {
		return fmt.Errorf("the stack %s does not say in which namespace %s are", r.Stack, strings.Join(workloads, ", "))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.Timeout, errSlowRollout)
	defer cancel()
	for _, workload := range workloads {
		if err := r.await(ctx, namespace, workload); err != nil {
			return err
		}
	}
	return nil
}

var errSlowRollout = errors.New("the time for it is over")

func (r *run) await(ctx context.Context, namespace, workload string) error {
	began, told := time.Now(), ""
	var seen progress
	for {
		p, err := r.progressOf(ctx, namespace, workload)
		switch {
		case ctx.Err() != nil:
			p = seen // the last question may have been cut off
			p.stuck = context.Cause(ctx).Error()
		case err != nil:
			return err
		}
		seen = p
		if p.text != told && p.text != "" {
			r.tell("rollout", "%s: %s", workload, p.text)
			told = p.text
		}
		switch {
		case p.done:
			r.tell("rollout", "%s is complete after %v", workload, time.Since(began).Round(100*time.Millisecond))
			return nil
		case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errSlowRollout):
			return context.Cause(ctx)
		case p.stuck != "":
			return r.failure(context.WithoutCancel(ctx), namespace, workload, p)
		}
		select {
		case <-ctx.Done():
		case <-time.After(rolloutPause):
		}
	}
}

func (r *run) progressOf(ctx context.Context, namespace, workload string) (progress, error) {
	kind, name, _ := strings.Cut(workload, "/")
	var p progress
	var selector *meta.LabelSelector
	var err error
	switch kind {
	case "deployment":
		var d *apps.Deployment
		if d, err = r.cluster.AppsV1().Deployments(namespace).Get(ctx, name, meta.GetOptions{}); err == nil {
			p, selector = deploymentProgress(d), d.Spec.Selector
		}
	case "statefulset":
		var s *apps.StatefulSet
		if s, err = r.cluster.AppsV1().StatefulSets(namespace).Get(ctx, name, meta.GetOptions{}); err == nil {
			p, selector = statefulSetProgress(s), s.Spec.Selector
		}
	default:
		return p, fmt.Errorf("the stack's output workloads has %q: want deployment/NAME or statefulset/NAME", workload)
	}
	if apierrors.IsNotFound(err) {
		return p, fmt.Errorf("%s is not in the namespace %s though it was applied: has somebody deleted it?", workload, namespace)
	}
	if err != nil {
		return p, clusterFault(r.Environment.KubeContext, err)
	}
	if p.pods, err = meta.LabelSelectorAsSelector(selector); err != nil {
		return p, fmt.Errorf("the selector of %s: %w", workload, err)
	}
	return p, nil
}

func replicas(n *int32) int32 {
	if n == nil {
		return 1 // Kubernetes' default
	}
	return *n
}

func deploymentProgress(d *apps.Deployment) progress {
	want, s := replicas(d.Spec.Replicas), d.Status
	p := progress{text: fmt.Sprintf("%d of %d replicas are new, %d available", s.UpdatedReplicas, want, s.AvailableReplicas)}
	if s.ObservedGeneration < d.Generation {
		p.text = "waiting for the controller"
		return p
	}
	for _, c := range s.Conditions {
		if c.Type == apps.DeploymentProgressing && c.Status == core.ConditionFalse {
			p.stuck = c.Message
		}
	}
	p.done = s.UpdatedReplicas >= want && s.Replicas == s.UpdatedReplicas && s.AvailableReplicas >= want
	return p
}

func statefulSetProgress(d *apps.StatefulSet) progress {
	want, s := replicas(d.Spec.Replicas), d.Status
	p := progress{text: fmt.Sprintf("%d of %d replicas are new, %d ready", s.UpdatedReplicas, want, s.ReadyReplicas)}
	if s.ObservedGeneration < d.Generation {
		p.text = "waiting for the controller"
		return p
	}
	p.done = s.ReadyReplicas >= want && s.UpdatedReplicas >= want && s.CurrentRevision == s.UpdateRevision
	return p
}
