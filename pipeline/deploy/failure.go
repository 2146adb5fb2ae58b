package deploy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	lookTime  = time.Minute // for finding out why
	maxPods   = 3           // that are explained: the others fail for the same reason
	maxEvents = 8
	logLines  = int64(20)
	maxLog    = int64(64 << 10)
)

// RolloutError says why what was applied does not run.
type RolloutError struct {
	Workload string
	Reason   string
	Details  string // pods, events and logs, in lines
	Back     string // how to go back
}

func (e *RolloutError) Error() string {
	return fmt.Sprintf("%s was not rolled out: %s\n%s%s", e.Workload, e.Reason, e.Details, e.Back)
}

// failure asks the cluster why. What it does not tell is left out: the failure
// itself must be told in any case.
func (r *run) failure(ctx context.Context, namespace, workload string, p progress) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var details strings.Builder
	broken := map[string]bool{}
	if p.pods != nil {
		pods, err := r.cluster.CoreV1().Pods(namespace).List(ctx, meta.ListOptions{LabelSelector: p.pods.String()})
		if err != nil {
			fmt.Fprintf(&details, "  the pods cannot be listed: %v\n", err)
		} else {
			for _, pod := range pods.Items {
				if !ready(pod) {
					broken[pod.Name] = true
					if len(broken) <= maxPods {
						r.explainPod(ctx, &details, pod)
					}
				}
			}
		}
	}
	_, name, _ := strings.Cut(workload, "/")
	for _, line := range r.events(ctx, namespace, name) {
		fmt.Fprintf(&details, "  event %s\n", line)
	}
	kubectl := "kubectl"
	if name := r.Environment.KubeContext; name != "" {
		kubectl += " --context " + name
	}
	return &RolloutError{
		Workload: workload, Reason: p.stuck, Details: details.String(),
		Back: fmt.Sprintf("to go back: %s -n %s rollout undo %s; then deploy the version before, or the next deployment brings this one back", kubectl, namespace, workload),
	}
}

func ready(pod core.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c core.PodCondition) bool {
		return c.Type == core.PodReady && c.Status == core.ConditionTrue
	})
}

// explainPod writes why a pod does not run, and the last that it said.
func (r *run) explainPod(ctx context.Context, w io.Writer, pod core.Pod) {
	fmt.Fprintf(w, "  pod %s is %s", pod.Name, pod.Status.Phase)
	for _, c := range pod.Status.Conditions {
		if c.Status == core.ConditionFalse && c.Message != "" && c.Type == core.PodScheduled {
			fmt.Fprintf(w, ": %s: %s", c.Reason, c.Message)
		}
	}
	fmt.Fprintln(w)
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if c.Ready || c.State.Terminated != nil && c.State.Terminated.ExitCode == 0 {
			continue
		}
		fmt.Fprintf(w, "    container %s", c.Name)
		switch {
		case c.State.Waiting != nil:
			fmt.Fprintf(w, " waits: %s %s", c.State.Waiting.Reason, c.State.Waiting.Message)
		case c.State.Terminated != nil:
			fmt.Fprintf(w, " ended: %s, exit status %d", c.State.Terminated.Reason, c.State.Terminated.ExitCode)
		default:
			fmt.Fprint(w, " runs, but is not ready")
		}
		if last := c.LastTerminationState.Terminated; last != nil {
			fmt.Fprintf(w, " (before: %s, exit status %d, %d restarts)", last.Reason, last.ExitCode, c.RestartCount)
		}
		fmt.Fprintln(w)
		// Of a container that starts again, the one before has said why.
		r.lastLog(ctx, w, pod, c.Name, c.RestartCount > 0 && c.State.Running == nil)
	}
}

func (r *run) lastLog(ctx context.Context, w io.Writer, pod core.Pod, container string, previous bool) {
	lines, limit := logLines, maxLog
	stream, err := r.cluster.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &core.PodLogOptions{
		Container: container, Previous: previous, TailLines: &lines, LimitBytes: &limit,
	}).Stream(ctx)
	if err != nil {
		return // it has never run
	}
	defer stream.Close()
	scan := bufio.NewScanner(io.LimitReader(stream, maxLog))
	for scan.Scan() {
		fmt.Fprintf(w, "      %s\n", printable(scan.Text()))
	}
}

// events are the last warnings about what is named after the workload: itself, its
// ReplicaSets and pods.
func (r *run) events(ctx context.Context, namespace, name string) []string {
	list, err := r.cluster.CoreV1().Events(namespace).List(ctx, meta.ListOptions{FieldSelector: "type=Warning"})
	if err != nil {
		return []string{fmt.Sprintf("(they cannot be listed: %v)", err)}
	}
	slices.SortStableFunc(list.Items, func(a, b core.Event) int { return when(a).Compare(when(b)) })
	var lines []string
	for _, e := range list.Items {
		about := e.InvolvedObject.Name
		if about != name && !strings.HasPrefix(about, name+"-") {
			continue
		}
		line := printable(fmt.Sprintf("%s/%s: %s: %s", strings.ToLower(e.InvolvedObject.Kind), about, e.Reason, e.Message))
		if e.Count > 1 {
			line += fmt.Sprintf(" (%d times)", e.Count)
		}
		lines = append(lines, line)
	}
	return lines[max(0, len(lines)-maxEvents):]
}

func when(e core.Event) time.Time {
	if !e.LastTimestamp.IsZero() {
		return e.LastTimestamp.Time
	}
	return e.EventTime.Time
}

// printable is a text that does nothing to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
