package deploy

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	agentID     = 7
	projectID   = 42
	agentPrefix = "/k8s-proxy"
)

// ciJob is what GitLab knows of the job that a token belongs to.
type ciJob struct {
	id          int
	group       int
	environment string // slug; empty for a job without one
	tier        string
}

// agent is the CI/CD tunnel, GitLab's server and the agent in the cluster in one:
// it lets in jobs by their token, and asks the cluster as access_as: ci_job does,
// with an account of its own that may impersonate and nothing else.
// https://docs.gitlab.com/user/clusters/agent/ci_cd_workflow/
type agent struct {
	*httptest.Server
	token string // of its account

	mu   sync.Mutex
	jobs map[string]ciJob // by token
}

func newAgent(t *testing.T, admin *kubernetes.Clientset, config *rest.Config) *agent {
	t.Helper()
	a := &agent{jobs: map[string]ciJob{}, token: agentAccount(t, admin)}
	transport, err := rest.TransportFor(rest.AnonymousClientConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Transport: transport, FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	a.Server = httptest.NewTLSServer(http.StripPrefix(agentPrefix, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if job := a.admit(w, r); job != nil {
			a.impersonate(r.Header, *job)
			proxy.ServeHTTP(w, r)
		}
	})))
	t.Cleanup(a.Close)
	return a
}

// agentAccount makes the agent's account and returns its token.
func agentAccount(t *testing.T, admin *kubernetes.Clientset) string {
	t.Helper()
	const name, namespace = "gitlab-agent", "gitlab-agent"
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	object := meta.ObjectMeta{Name: name}
	must(admin.CoreV1().Namespaces().Create(ctx, &core.Namespace{ObjectMeta: object}, meta.CreateOptions{}))
	must(admin.CoreV1().ServiceAccounts(namespace).Create(ctx, &core.ServiceAccount{ObjectMeta: object}, meta.CreateOptions{}))
	must(admin.RbacV1().ClusterRoles().Create(ctx, &rbac.ClusterRole{ObjectMeta: object, Rules: []rbac.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"users", "groups"}, Verbs: []string{"impersonate"}},
		{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"userextras/agent.gitlab.com/id", "userextras/agent.gitlab.com/ci_job_id"}, Verbs: []string{"impersonate"}},
	}}, meta.CreateOptions{}))
	must(admin.RbacV1().ClusterRoleBindings().Create(ctx, &rbac.ClusterRoleBinding{
		ObjectMeta: object,
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   []rbac.Subject{{Kind: "ServiceAccount", Name: name, Namespace: namespace}},
	}, meta.CreateOptions{}))
	token, err := admin.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, &authentication.TokenRequest{}, meta.CreateOptions{})
	must(token, err)
	return token.Status.Token
}

// admit checks a request as the tunnel does; it is answered where there is no job.
func (a *agent) admit(w http.ResponseWriter, r *http.Request) *ciJob {
	refuse := func(code int, reason meta.StatusReason, message string) *ciJob {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(meta.Status{
			TypeMeta: meta.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: meta.StatusFailure,
			Code: int32(code), Reason: reason, Message: "GitLab Agent Server: " + message,
		})
		return nil
	}
	said, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ci:")
	id, token, both := strings.Cut(said, ":")
	a.mu.Lock()
	job, known := a.jobs[token]
	a.mu.Unlock()
	switch {
	case !ok || !both || !known:
		return refuse(http.StatusUnauthorized, meta.StatusReasonUnauthorized, "Unauthorized: the CI job token")
	case id != strconv.Itoa(agentID):
		return refuse(http.StatusForbidden, meta.StatusReasonForbidden, "Forbidden: agentId is not allowed")
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "Impersonate-") {
			return refuse(http.StatusBadRequest, meta.StatusReasonBadRequest, "Nested impersonation is not supported - agent is already configured to impersonate an identity")
		}
	}
	return &job
}

// impersonate makes the request the agent's, on behalf of the job.
func (a *agent) impersonate(h http.Header, job ciJob) {
	h.Set("Authorization", "Bearer "+a.token)
	h.Set("Impersonate-User", fmt.Sprintf("gitlab:ci_job:%d", job.id))
	groups := []string{"gitlab:ci_job", fmt.Sprintf("gitlab:group:%d", job.group), fmt.Sprintf("gitlab:project:%d", projectID)}
	if job.environment != "" {
		groups = append(groups, fmt.Sprintf("gitlab:project_env:%d:%s", projectID, job.environment),
			fmt.Sprintf("gitlab:project_env_tier:%d:%s", projectID, job.tier))
	}
	h["Impersonate-Group"] = groups
	h.Set("Impersonate-Extra-Agent.gitlab.com%2fid", strconv.Itoa(agentID))
	h.Set("Impersonate-Extra-Agent.gitlab.com%2fci_job_id", strconv.Itoa(job.id))
}

// start begins a job and returns its token.
func (a *agent) start(job ciJob) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	token := fmt.Sprintf("glcbt-%d", job.id)
	a.jobs[token] = job
	return token
}

// end makes a job's token of no more use.
func (a *agent) end(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.jobs, token)
}

// kubeconfig is the file that a job with this token has as KUBECONFIG.
func (a *agent) kubeconfig(t *testing.T, token string) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	user := fmt.Sprintf("agent:%d", agentID)
	config.Clusters["gitlab"] = &clientcmdapi.Cluster{
		Server:                   a.URL + agentPrefix,
		CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}),
	}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: fmt.Sprintf("ci:%d:%s", agentID, token)}
	return writeContexts(t, config, clientcmdapi.Context{Cluster: "gitlab", AuthInfo: user})
}

// writeContexts gives both of our agents' contexts to one cluster.
func writeContexts(t *testing.T, config *clientcmdapi.Config, c clientcmdapi.Context) string {
	t.Helper()
	for _, name := range []string{"beehive", "rigel"} {
		config.Contexts["bates-ils/projects/kubernetes/gitlab-agents:"+name] = &c
	}
	file := t.TempDir() + "/kubeconfig"
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// client is the job's, without flywheel.
func (a *agent) client(t *testing.T, token string) *kubernetes.Clientset {
	t.Helper()
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: a.kubeconfig(t, token)},
		&clientcmd.ConfigOverrides{CurrentContext: "bates-ils/projects/kubernetes/gitlab-agents:rigel"},
	).ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// The tunnel itself must refuse what GitLab's does, or tests that pass through it
// prove nothing.
func (a *agent) check(ctx context.Context, t *testing.T, token string) {
	t.Helper()
	for _, tt := range []struct {
		name, authorization, user string
		want                      int
	}{
		{"a job", fmt.Sprintf("Bearer ci:%d:%s", agentID, token), "", http.StatusOK},
		{"no token", "", "", http.StatusUnauthorized},
		{"another job's token", fmt.Sprintf("Bearer ci:%d:glcbt-0", agentID), "", http.StatusUnauthorized},
		{"a token that is no job's", "Bearer " + token, "", http.StatusUnauthorized},
		{"another agent", "Bearer ci:8:" + token, "", http.StatusForbidden},
		{"somebody else", fmt.Sprintf("Bearer ci:%d:%s", agentID, token), "administrator", http.StatusBadRequest},
	} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL+agentPrefix+"/version", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", tt.authorization)
		if tt.user != "" {
			req.Header.Set("Impersonate-User", tt.user)
		}
		resp, err := a.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s: HTTP %d, want %d", tt.name, resp.StatusCode, tt.want)
		}
	}
}
