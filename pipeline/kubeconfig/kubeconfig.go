// Package kubeconfig finds a cluster in the kubeconfig, as kubectl would.
package kubeconfig

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// requestTime bounds one request, so that a cluster that hangs is named.
const requestTime = 30 * time.Second

// UnknownContextError says that the kubeconfig has no such context.
type UnknownContextError struct {
	Context string
	Known   []string // those that it has, sorted
}

func (e *UnknownContextError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("there is no context %q, for there is no kubeconfig: set KUBECONFIG; in a job, the agent's ci_access must name this project", e.Context)
	}
	return fmt.Sprintf("the kubeconfig has no context %q; it has %s", e.Context, strings.Join(e.Known, ", "))
}

// Connect returns a client of the context's cluster; of the current context when
// name is empty. Nothing is asked yet. The kubeconfig is the one of KUBECONFIG or
// ~/.kube/config, and inside a pod without one, the pod's own account. The error
// is an *UnknownContextError for a context that is not there.
func Connect(name string) (kubernetes.Interface, error) {
	config, err := restConfig(name)
	if err != nil {
		return nil, err
	}
	config.Timeout, config.UserAgent = requestTime, "flywheel"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("context %q of the kubeconfig: %w", name, err)
	}
	return client, nil
}

func restConfig(name string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	raw, err := rules.Load()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	if name == "" && len(raw.Contexts) == 0 {
		config, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, &UnknownContextError{}
		}
		if err != nil {
			return nil, fmt.Errorf("the pod's own account: %w", err)
		}
		return config, nil
	}
	if _, ok := raw.Contexts[name]; name != "" && !ok {
		return nil, &UnknownContextError{Context: name, Known: slices.Sorted(maps.Keys(raw.Contexts))}
	}
	config, err := clientcmd.NewNonInteractiveClientConfig(*raw, name, &clientcmd.ConfigOverrides{}, rules).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("context %q of the kubeconfig: %w", name, err)
	}
	return config, nil
}
