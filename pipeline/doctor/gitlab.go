package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// lookAtGitLab looks at what a deployment from a job needs: a context of the
// GitLab Agent, and the state of OpenTofu.
func (e *examination) lookAtGitLab(ctx context.Context) {
	if e.Getenv("GITLAB_CI") != "true" {
		return
	}
	e.lookAtAgent()
	e.lookAtState(ctx)
}

func (e *examination) lookAtAgent() {
	const name = "agent"
	share := "in the agent's project, name this one under ci_access in .gitlab/agents/NAME/config.yaml; jobs that start after that have the context"
	file, wanted := e.Getenv("KUBECONFIG"), e.Getenv("KUBE_CONTEXT")
	if file == "" {
		if wanted != "" {
			e.problem(name, "KUBE_CONTEXT is "+wanted+", and there is no KUBECONFIG: no agent is shared with this project", share)
			return
		}
		e.skip(name, "no agent is shared with this project: nothing can be deployed through one")
		return
	}
	contexts, err := kubeContexts(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.problem(name, "KUBECONFIG names "+file+", which is not there", "let the job run where GitLab wrote it, or mount it")
	case err != nil:
		e.problem(name, err.Error(), "do not set KUBECONFIG by hand: GitLab does")
	case len(contexts) == 0:
		e.problem(name, "KUBECONFIG has no context: no agent is shared with this project", share)
	case wanted != "" && !slices.Contains(contexts, wanted):
		e.problem(name, "KUBE_CONTEXT is "+wanted+", which is none of "+strings.Join(contexts, ", "), "choose one of them, or "+share)
	default:
		e.ok(name, "contexts %s", strings.Join(contexts, ", "))
	}
}

func kubeContexts(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading KUBECONFIG: %w", err)
	}
	var config struct {
		Contexts []struct {
			Name string `yaml:"name"`
		} `yaml:"contexts"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return nil, fmt.Errorf("reading KUBECONFIG: %w", err)
	}
	var names []string
	for _, c := range config.Contexts {
		names = append(names, c.Name)
	}
	return names, nil
}

// lookAtState asks for the state, and neither locks nor changes it.
func (e *examination) lookAtState(ctx context.Context) {
	const name = "state"
	address := e.Getenv("TF_HTTP_ADDRESS")
	if address == "" {
		e.skip(name, "TF_HTTP_ADDRESS is not set: the job has no state of OpenTofu")
		return
	}
	user, password := e.Getenv("TF_HTTP_USERNAME"), e.Getenv("TF_HTTP_PASSWORD")
	if user == "" || password == "" {
		e.problem(name, "TF_HTTP_USERNAME or TF_HTTP_PASSWORD is not set", "set them to gitlab-ci-token and $CI_JOB_TOKEN")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		e.problem(name, "TF_HTTP_ADDRESS: "+err.Error(), "set it to $CI_API_V4_URL/projects/$CI_PROJECT_ID/terraform/state/NAME")
		return
	}
	req.SetBasicAuth(user, password)
	resp, err := e.http.Do(req)
	if err != nil {
		e.problem(name, plainly(ctx, err), unreachable(req.URL.Redacted(), err)...)
		return
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		e.ok(name, "there is one at %s", req.URL.Redacted())
	case http.StatusNoContent, http.StatusNotFound:
		e.ok(name, "none yet at %s: the first apply makes it", req.URL.Redacted())
	case http.StatusUnauthorized, http.StatusForbidden:
		e.problem(name, "HTTP "+resp.Status, "reading the state needs the role Developer, locking and applying Maintainer; the password is $CI_JOB_TOKEN")
	default:
		e.problem(name, "HTTP "+resp.Status, "ask whoever runs GitLab; the address is "+req.URL.Redacted())
	}
}
