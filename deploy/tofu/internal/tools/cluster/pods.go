package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fate is what becomes of a container.
type fate int

const (
	runs     fate = iota
	crashes       // starts, writes crashLog and ends with status 1, again and again
	missing       // its image cannot be pulled
	unready       // runs, and its readiness probe fails
	restarts = 3  // of a container that crashes
)

// crashLog is the last that a container writes that crashes.
const crashLog = "starting\nerror: this container was told to crash, by the name of its image"

// fateOf reads the fate from the image's tag: v1-crashes, v1-missing, v1-unready.
// Every other container runs.
func fateOf(image string) fate {
	for suffix, f := range map[string]fate{"-crashes": crashes, "-missing": missing, "-unready": unready} {
		if strings.HasSuffix(image, suffix) {
			return f
		}
	}
	return runs
}

// pod writes the status of a pod that is on a node and has none yet, and removes
// one that is to go.
func (k *kubelet) pod(ctx context.Context, pod *core.Pod) error {
	switch {
	case pod.Spec.NodeName == "":
		return nil // the scheduler's
	case pod.DeletionTimestamp != nil:
		now := int64(0)
		return k.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, meta.DeleteOptions{
			GracePeriodSeconds: &now, Preconditions: &meta.Preconditions{UID: &pod.UID},
		})
	case pod.Status.StartTime != nil:
		return nil // done
	}
	pod = pod.DeepCopy()
	fates := k.fill(pod)
	if _, err := k.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, meta.UpdateOptions{}); err != nil {
		return err
	}
	for name, f := range fates {
		if err := k.warn(ctx, pod, name, f); err != nil {
			return err
		}
	}
	return nil
}

// fill writes the status and returns the fates of the containers that do not run.
func (k *kubelet) fill(pod *core.Pod) map[string]fate {
	now := meta.Now()
	s := &pod.Status
	s.StartTime, s.HostIP = &now, "127.0.0.1"
	n := k.ips.Add(1)
	s.PodIP = fmt.Sprintf("10.244.%d.%d", n>>8&255, n&255)
	s.PodIPs = []core.PodIP{{IP: s.PodIP}}
	s.Phase = core.PodRunning
	over := pod.Spec.RestartPolicy != core.RestartPolicyAlways // a job's, which is done at once
	ready, broken := core.ConditionTrue, map[string]fate{}
	done := core.ContainerState{Terminated: &core.ContainerStateTerminated{Reason: "Completed", StartedAt: now, FinishedAt: now}}
	started := true
	for _, c := range pod.Spec.InitContainers {
		status := core.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: "none", Ready: true, Started: &started, State: done}
		if c.RestartPolicy != nil {
			status.State = core.ContainerState{Running: &core.ContainerStateRunning{StartedAt: now}}
		}
		s.InitContainerStatuses = append(s.InitContainerStatuses, status)
	}
	for _, c := range pod.Spec.Containers {
		f := fateOf(c.Image)
		status := core.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: "none", Ready: f == runs, Started: &started}
		switch {
		case f == crashes:
			status.RestartCount = restarts
			status.State.Waiting = &core.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 40s restarting failed container"}
			status.LastTerminationState.Terminated = &core.ContainerStateTerminated{Reason: "Error", ExitCode: 1, StartedAt: now, FinishedAt: now}
		case f == missing:
			s.Phase = core.PodPending
			status.State.Waiting = &core.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "Back-off pulling image " + c.Image}
		case over:
			status.Ready, status.State = false, done
		default:
			status.State.Running = &core.ContainerStateRunning{StartedAt: now}
		}
		if f != runs {
			ready, broken[c.Name] = core.ConditionFalse, f
		}
		s.ContainerStatuses = append(s.ContainerStatuses, status)
	}
	if over && len(broken) == 0 {
		s.Phase, ready = core.PodSucceeded, core.ConditionFalse
	}
	for kind, status := range map[core.PodConditionType]core.ConditionStatus{
		core.PodInitialized: core.ConditionTrue, core.ContainersReady: ready, core.PodReady: ready,
	} {
		s.Conditions = append(s.Conditions, core.PodCondition{Type: kind, Status: status, LastProbeTime: now, LastTransitionTime: now})
	}
	return broken
}

// warn is the event that a kubelet sends.
func (k *kubelet) warn(ctx context.Context, pod *core.Pod, container string, f fate) error {
	reason, message := "BackOff", "Back-off restarting failed container "+container
	switch f {
	case missing:
		reason, message = "Failed", "Error: ImagePullBackOff"
	case unready:
		reason, message = "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503"
	}
	now := meta.Now()
	_, err := k.client.CoreV1().Events(pod.Namespace).Create(ctx, &core.Event{
		ObjectMeta: meta.ObjectMeta{GenerateName: pod.Name + ".", Namespace: pod.Namespace},
		InvolvedObject: core.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
			FieldPath: "spec.containers{" + container + "}",
		},
		Type: core.EventTypeWarning, Reason: reason, Message: message, Count: restarts,
		FirstTimestamp: now, LastTimestamp: now, Source: core.EventSource{Component: "kubelet", Host: pod.Spec.NodeName},
	}, meta.CreateOptions{})
	return err
}

// logs answers as a kubelet does when the API server asks for a container's log.
func (k *kubelet) logs() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		pod, err := k.client.CoreV1().Pods(r.PathValue("namespace")).Get(r.Context(), r.PathValue("pod"), meta.GetOptions{})
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		for _, c := range pod.Spec.Containers {
			if c.Name != r.PathValue("container") {
				continue
			}
			switch f := fateOf(c.Image); f {
			case missing:
				http.Error(w, fmt.Sprintf("container %q in pod %q is waiting to start: trying and failing to pull image", c.Name, pod.Name), http.StatusBadRequest)
			case crashes:
				fmt.Fprintln(w, crashLog)
			default:
				fmt.Fprintln(w, "starting")
			}
			return
		}
		http.Error(w, "there is no such container", http.StatusNotFound)
	})
	return mux
}
