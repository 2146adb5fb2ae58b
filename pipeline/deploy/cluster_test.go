package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	authorization "k8s.io/api/authorization/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	// patience bounds what is waited for here on a busy machine.
	patience = 5 * time.Minute
	// brief is how long a rollout may take that never ends.
	brief = "30s"

	goodImage = "registry.example.org/attic-cache:v1"
)

// realCluster is a control plane that deploy/tofu/internal/tools/cluster runs, an
// agent before it, and flywheel as jobs have it.
type realCluster struct {
	config   *rest.Config // the administrator's
	admin    *kubernetes.Clientset
	agent    *agent
	flywheel string
	tofurc   string
}

// newRealCluster is skipped where its parts are not there: deploy/tofu/cluster-test
// builds them.
func newRealCluster(t *testing.T) *realCluster {
	t.Helper()
	program, mirror := os.Getenv("CLUSTERTEST"), os.Getenv("TOFU_MIRROR")
	if program == "" {
		t.Skip("there is no control plane: run deploy/tofu/cluster-test, which builds it and sets CLUSTERTEST")
	}
	if mirror == "" {
		t.Skip("the providers are not there: set TOFU_MIRROR to a file system mirror, as deploy/tofu/cluster-test does")
	}
	tofu, err := filepath.Abs(needTofu(t))
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	// A job finds it by its name, whatever TOFU calls it.
	if err := os.Symlink(tofu, filepath.Join(bin, "tofu")); err != nil {
		t.Fatal(err)
	}
	c := &realCluster{flywheel: filepath.Join(bin, "flywheel"), tofurc: filepath.Join(t.TempDir(), "tofurc")}
	rc := fmt.Sprintf("provider_installation {\n  filesystem_mirror {\n    path = %q\n  }\n}\n", mirror)
	if err := os.WriteFile(c.tofurc, []byte(rc), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", c.flywheel, "gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/cmd/flywheel").CombinedOutput(); err != nil {
		t.Fatalf("building flywheel: %v\n%s", err, out)
	}
	kubeconfig := startCluster(t, program)
	if c.config, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
		t.Fatal(err)
	}
	c.config.QPS = -1
	if c.admin, err = kubernetes.NewForConfig(c.config); err != nil {
		t.Fatal(err)
	}
	c.agent = newAgent(t, c.admin, c.config)
	return c
}

// startCluster returns the administrator's kubeconfig.
func startCluster(t *testing.T, program string) string {
	t.Helper()
	args := []string{"-until-eof"}
	for _, dir := range filepath.SplitList(os.Getenv("CLUSTERTEST_CRDS")) {
		args = append(args, "-crds", dir)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	var said bytes.Buffer
	cmd.Stderr = &said
	// Held open: it ends when this process does, however that ends.
	alive, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = alive.Close()
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the control plane: %v\n%s", err, &said)
		}
	})
	var ready struct {
		Kubeconfig, Version string
		Seconds             float64
	}
	if err := json.NewDecoder(out).Decode(&ready); err != nil {
		t.Fatalf("the control plane did not start: %v", err)
	}
	t.Logf("Kubernetes %s was ready after %.0f s", ready.Version, ready.Seconds)
	return ready.Kubeconfig
}

// outcome is how flywheel ended.
type outcome struct {
	status         int
	stdout, stderr string
}

func (o outcome) String() string {
	return fmt.Sprintf("exit status %d\n%s%s", o.status, o.stdout, o.stderr)
}

// run runs flywheel as a job does that has this kubeconfig and this state.
func (c *realCluster) run(t *testing.T, kubeconfig string, state *gitlabState, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.flywheel, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	cmd.Dir = t.TempDir()
	cmd.Env = []string{
		"PATH=" + filepath.Dir(c.flywheel) + ":" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "TMPDIR=" + cmd.Dir,
		"KUBECONFIG=" + kubeconfig, "TF_CLI_CONFIG_FILE=" + c.tofurc,
		"CI_API_V4_URL=" + state.URL + "/api/v4", "CI_PROJECT_ID=" + strconv.Itoa(projectID), "CI_JOB_TOKEN=job",
	}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	began := time.Now()
	err := cmd.Run()
	t.Logf("flywheel %s: %.0f s", strings.Join(args, " "), time.Since(began).Seconds())
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(cmd.Dir, "flywheel-*")); len(left) > 0 {
		t.Errorf("flywheel %s left behind %v", args[0], left)
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), said.String()}
}

// want fails at an outcome that is not this one, as what comes after depends on it.
func (o outcome) want(t *testing.T, status int, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(o.stdout+o.stderr, text) {
			t.Errorf("no %q", text)
		}
	}
	if o.status != status || t.Failed() {
		t.Fatalf("want status %d: %v", status, o)
	}
}

// kinds are the variables without which a deployment needs definitions that the
// cluster does not have.
func (c *realCluster) kinds(t *testing.T) []string {
	t.Helper()
	var vars []string
	for group, v := range map[string]string{"minio.min.io/v2": "object_store=seaweedfs", "monitoring.coreos.com/v1": "monitoring={enabled=false}"} {
		if _, err := c.admin.Discovery().ServerResourcesForGroupVersion(group); apierrors.IsNotFound(err) {
			t.Logf("without %s: deployed with %s", group, v)
			vars = append(vars, "--var", v)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return vars
}

func (c *realCluster) adminKubeconfig(t *testing.T) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["cluster"] = &clientcmdapi.Cluster{Server: c.config.Host, CertificateAuthorityData: c.config.CAData}
	config.AuthInfos["administrator"] = &clientcmdapi.AuthInfo{ClientCertificateData: c.config.CertData, ClientKeyData: c.config.KeyData}
	return writeContexts(t, config, clientcmdapi.Context{Cluster: "cluster", AuthInfo: "administrator"})
}

// The steps of a cluster's life, each of which needs those before it.
func TestOnARealCluster(t *testing.T) {
	t.Parallel()
	c := newRealCluster(t)
	step := func(name string, do func(*testing.T, *realCluster)) {
		if !t.Run(name, func(t *testing.T) { do(t, c) }) {
			t.FailNow()
		}
	}
	step("the administrator gives the rights", giveRights)
	step("what jobs may do", checkTable)
	step("the agent refuses what is no job's", refuseStrangers)
	step("a review environment's life", liveReview)
	step("staging is deployed with its own rights only", deployStaging)
	step("every object of every stack is valid", validateObjects)
}

func giveRights(t *testing.T, c *realCluster) {
	state := newState(t)
	args := []string{"deploy", "--stack", "cluster", "--environment", "staging", "--var", "project_id=" + strconv.Itoa(projectID), "--var", "review={}"}
	c.run(t, c.adminKubeconfig(t), state, args...).want(t, 0, "apply      done")
	c.run(t, c.adminKubeconfig(t), state, args...).want(t, 0, "nothing to do")
}

// The jobs that there are.
var (
	reviewJob     = ciJob{id: 101, group: 3, environment: "review-feature-x-1a2b3c", tier: "development"}
	stagingJob    = ciJob{id: 102, group: 3, environment: "staging", tier: "staging"}
	productionJob = ciJob{id: 103, group: 3, environment: "production", tier: "production"}
	plainJob      = ciJob{id: 104, group: 3}
)

func checkTable(t *testing.T, c *realCluster) {
	const (
		review, staging, production = "attic-cache-review-feature-x", "attic-cache-staging", "attic-cache"
		all                         = ""
	)
	rows := []struct {
		verb, resource, namespace string
		may                       []ciJob
	}{
		// What the stack attic is made of, in one's own namespace.
		{"create", "deployments.apps", staging, []ciJob{stagingJob}},
		{"delete", "deployments.apps", production, []ciJob{productionJob}},
		{"get", "secrets", production, []ciJob{productionJob}},
		{"get", "secrets", staging, []ciJob{stagingJob}},
		{"patch", "clusters.postgresql.cnpg.io", production, []ciJob{productionJob}},
		{"create", "tenants.minio.min.io", staging, []ciJob{stagingJob}},
		{"patch", "objectstores.barmancloud.cnpg.io", staging, []ciJob{stagingJob}},
		{"get", "pods/log", staging, []ciJob{stagingJob}},
		{"list", "events", production, []ciJob{productionJob}},
		// Rights inside a review's namespace come with it.
		{"create", "namespaces", all, []ciJob{reviewJob}},
		{"create", "rolebindings.rbac.authorization.k8s.io", review, []ciJob{reviewJob}},
		{"create", "deployments.apps", review, nil},
		{"get", "secrets", review, nil},
		// What nobody may who deploys.
		{"get", "secrets", "kube-system", nil},
		{"list", "secrets", all, nil},
		{"create", "pods", production, nil},
		{"create", "pods/exec", production, nil},
		{"create", "serviceaccounts/token", production, nil},
		{"create", "roles.rbac.authorization.k8s.io", production, nil},
		{"escalate", "clusterroles.rbac.authorization.k8s.io", all, nil},
		{"create", "clusterroles.rbac.authorization.k8s.io", all, nil},
		{"create", "clusterrolebindings.rbac.authorization.k8s.io", all, nil},
		{"impersonate", "users", all, nil},
		{"impersonate", "groups", all, nil},
		{"list", "nodes", all, nil},
		{"delete", "persistentvolumes", all, nil},
		{"patch", "customresourcedefinitions.apiextensions.k8s.io", all, nil},
		{"delete", "validatingadmissionpolicies.admissionregistration.k8s.io", all, nil},
		{"delete", "validatingadmissionpolicybindings.admissionregistration.k8s.io", all, nil},
	}
	for _, job := range []ciJob{reviewJob, stagingJob, productionJob, plainJob} {
		client := c.agent.client(t, c.agent.start(job))
		for _, row := range rows {
			resource, group, _ := strings.Cut(row.resource, ".")
			resource, subresource, _ := strings.Cut(resource, "/")
			answer, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorization.SelfSubjectAccessReview{
				Spec: authorization.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorization.ResourceAttributes{
					Verb: row.verb, Group: group, Resource: resource, Subresource: subresource, Namespace: row.namespace,
				}},
			}, meta.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if may := slices.Contains(row.may, job); answer.Status.Allowed != may {
				t.Errorf("a job of %q may %s %s in %q: %v, want %v", job.environment, row.verb, row.resource, row.namespace, answer.Status.Allowed, may)
			}
		}
	}
	refuseByPolicy(t, c)
}

// refuseByPolicy tries what RBAC cannot tell apart, as a review's job.
func refuseByPolicy(t *testing.T, c *realCluster) {
	t.Helper()
	ctx, client := t.Context(), c.agent.client(t, c.agent.start(reviewJob))
	namespace := func(name, level string) *core.Namespace {
		return &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: name, Labels: map[string]string{"pod-security.kubernetes.io/enforce": level}}}
	}
	bind := func(in, role string) error {
		_, err := client.RbacV1().RoleBindings(in).Create(ctx, &rbac.RoleBinding{
			ObjectMeta: meta.ObjectMeta{Name: "mine"},
			RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbac.Subject{{APIGroup: rbac.GroupName, Kind: "Group", Name: "gitlab:project_env_tier:42:development"}},
		}, meta.CreateOptions{})
		return err
	}
	create := func(n *core.Namespace) error {
		_, err := client.CoreV1().Namespaces().Create(ctx, n, meta.CreateOptions{})
		return err
	}
	const mine = "attic-cache-review-mine"
	for _, tt := range []struct {
		name    string
		do      func() error
		because string // empty where it may
	}{
		{"makes a namespace of another's", func() error { return create(namespace("somebody", "restricted")) }, "may only touch namespaces that begin with attic-cache-review-"},
		{"makes one without Pod Security", func() error { return create(namespace(mine, "privileged")) }, "enforces the Pod Security level restricted"},
		{"makes its own", func() error { return create(namespace(mine, "restricted")) }, ""},
		{"weakens its own", func() error {
			_, err := client.CoreV1().Namespaces().Update(ctx, namespace(mine, "privileged"), meta.UpdateOptions{})
			return err
		}, "enforces the Pod Security level restricted"},
		{"changes production's", func() error {
			_, err := client.CoreV1().Namespaces().Update(ctx, namespace("attic-cache", "restricted"), meta.UpdateOptions{})
			return err
		}, "may only touch namespaces"},
		{"deletes production's", func() error { return client.CoreV1().Namespaces().Delete(ctx, "attic-cache", meta.DeleteOptions{}) }, "may only touch namespaces"},
		{"takes rights in production's", func() error { return bind("attic-cache", "attic-cache-deployer") }, "may only touch namespaces"},
		{"takes more rights in its own", func() error { return bind(mine, "cluster-admin") }, "attempting to grant RBAC permissions not currently held"},
		{"takes its rights in its own", func() error { return bind(mine, "attic-cache-deployer") }, ""},
		{"deletes its own", func() error { return client.CoreV1().Namespaces().Delete(ctx, mine, meta.DeleteOptions{}) }, ""},
	} {
		err := awaitPolicy(ctx, tt.do, tt.because)
		if tt.because == "" && err != nil || tt.because != "" && (err == nil || !strings.Contains(err.Error(), tt.because)) {
			t.Errorf("a review's job that %s: %v, want %q", tt.name, err, tt.because)
		}
	}
}

// awaitPolicy does it again while the API server has not read the policy yet: it
// does so a moment after it was made.
func awaitPolicy(ctx context.Context, do func() error, because string) error {
	for end := time.Now().Add(2 * time.Minute); ; {
		err := do()
		if because == "" || err != nil || time.Now().After(end) || ctx.Err() != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func refuseStrangers(t *testing.T, c *realCluster) {
	token := c.agent.start(reviewJob)
	c.agent.check(t.Context(), t, token)
	state := newState(t)
	over := c.agent.start(ciJob{id: 99, environment: reviewJob.environment, tier: reviewJob.tier})
	c.agent.end(over)
	c.run(t, c.agent.kubeconfig(t, over), state, "deploy", "--environment", "review/feature/x").
		want(t, 2, "the cluster does not know who this is: the token has expired")
	c.run(t, c.agent.kubeconfig(t, c.agent.start(plainJob)), state, "deploy", "--environment", "review/feature/x").
		want(t, 2, "may not create namespaces in the namespace (all)", "does the job name the environment?")
	c.run(t, c.agent.kubeconfig(t, token), state, "deploy", "--environment", "production").
		want(t, 2, "may not get secrets in the namespace attic-cache")
	if state.written() || state.holder() != nil {
		t.Error("something was applied")
	}
}

func liveReview(t *testing.T, c *realCluster) {
	const name = "review/feature/x"
	namespace := named(t, name).Namespace
	state, kubeconfig := newState(t), c.agent.kubeconfig(t, c.agent.start(reviewJob))
	deploy := func(args ...string) outcome {
		t.Helper()
		return c.run(t, kubeconfig, state, slices.Concat([]string{"deploy", "--environment", name}, c.kinds(t), args)...)
	}
	image := func() string {
		t.Helper()
		d, err := c.admin.AppsV1().Deployments(namespace).Get(t.Context(), "attic-cache", meta.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return d.Spec.Template.Spec.Containers[0].Image
	}
	dotenv := filepath.Join(t.TempDir(), "deploy.env")
	deploy("--image", goodImage, "--dotenv", dotenv).want(t, 0, "to add, 0 to change, 0 to destroy", "deployment/attic-cache is complete", "https://attic-cache-review-")
	if text, err := os.ReadFile(dotenv); err != nil || !strings.Contains(string(text), "ENVIRONMENT_URL=https://"+namespace) {
		t.Errorf("%v: %s", err, text)
	}
	deploy("--image", goodImage).want(t, 0, "nothing to do", "deployment/attic-cache is complete")

	const changed = "registry.example.org/attic-cache:v2"
	deploy("--image", changed).want(t, 0, "0 to add, 1 to change, 0 to destroy", "deployment/attic-cache is complete")
	if got := image(); got != changed {
		t.Errorf("it runs %s", got)
	}

	for suffix, why := range map[string][]string{
		"crashes": {
			"container cacheserver waits: CrashLoopBackOff", "exit status 1, 3 restarts",
			"error: this container was told to crash", "BackOff: Back-off restarting failed container cacheserver (3 times)",
		},
		"missing": {"container cacheserver waits: ImagePullBackOff", "Failed: Error: ImagePullBackOff"},
		"unready": {"container cacheserver runs, but is not ready", "Unhealthy: Readiness probe failed"},
	} {
		failed := deploy("--image", "registry.example.org/attic-cache:v3-"+suffix, "--timeout", brief)
		failed.want(t, 30, append(why, "deployment/attic-cache was not rolled out: the time for it is over",
			"kubectl --context bates-ils/projects/kubernetes/gitlab-agents:beehive -n "+namespace+" rollout undo deployment/attic-cache")...)
		if d, err := c.admin.AppsV1().Deployments(namespace).Get(t.Context(), "attic-cache", meta.GetOptions{}); err != nil || d.Status.AvailableReplicas < 1 {
			t.Errorf("the version before does not serve meanwhile: %v", err)
		}
	}
	deploy("--image", changed).want(t, 0, "1 to change", "deployment/attic-cache is complete")

	destroy := func() outcome { return c.run(t, kubeconfig, state, "destroy", "--environment", name) }
	destroy().want(t, 0, "state      removed")
	if _, err := c.admin.CoreV1().Namespaces().Get(t.Context(), namespace, meta.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the namespace is still there: %v", err)
	}
	if state.written() || state.holder() != nil {
		t.Error("the state is still there, or locked")
	}
	destroy().want(t, 0, "nothing to do")
	// The branch comes back.
	deploy("--image", goodImage).want(t, 0, "deployment/attic-cache is complete")
	destroy().want(t, 0)
}

func deployStaging(t *testing.T, c *realCluster) {
	state, kubeconfig := newState(t), c.agent.kubeconfig(t, c.agent.start(stagingJob))
	args := append([]string{"--environment", "staging", "--image", goodImage}, c.kinds(t)...)
	c.run(t, kubeconfig, state, append([]string{"plan"}, args...)...).want(t, 0, "to add, 0 to change")
	c.run(t, kubeconfig, state, append([]string{"deploy"}, args...)...).want(t, 0, "deployment/attic-cache is complete")
	c.run(t, kubeconfig, state, append([]string{"deploy"}, args...)...).want(t, 0, "nothing to do")
	c.run(t, kubeconfig, state, "destroy", "--environment", "staging").want(t, 2, "Cluster attic-cache-db", "say --allow-destroy; nothing was applied")
	c.run(t, kubeconfig, state, "destroy", "--environment", "staging", "--allow-destroy").want(t, 0)
	if list, err := c.admin.AppsV1().Deployments("attic-cache-staging").List(t.Context(), meta.ListOptions{}); err != nil || len(list.Items) > 0 {
		t.Errorf("left behind: %v, %v", list.Items, err)
	}
}
