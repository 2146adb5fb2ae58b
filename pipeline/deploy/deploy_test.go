package deploy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/environment"
)

var lookPath = exec.LookPath

// screen is an output that may be read while it is written.
type screen struct {
	mu sync.Mutex
	bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Buffer.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Buffer.String()
}

// await waits until the screen shows a text.
func (s *screen) await(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(patience); !strings.Contains(s.String(), text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %q in\n%s", text, s)
		}
	}
}

func named(t *testing.T, name string) environment.Environment {
	t.Helper()
	e, err := environmentOf(name)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func environmentOf(name string) (environment.Environment, error) {
	c, err := environment.Default()
	if err != nil {
		return environment.Environment{}, err
	}
	return environment.ByName(c, name, environment.Facts{})
}

// job is a deployment to staging in a job of GitLab.
func job(t *testing.T, state *gitlabState, api *apiServer) Options {
	t.Helper()
	o := jobOf(state.URL, api.URL, needTofu(t), &screen{})
	o.Environment = named(t, "staging")
	return o
}

// jobOf is a job's deployment without its environment.
func jobOf(state, api, tofu string, out io.Writer) Options {
	variables := map[string]string{"CI_API_V4_URL": state + "/api/v4", "CI_PROJECT_ID": "42", "CI_JOB_TOKEN": "job"}
	return Options{
		Stack: "demo", Sources: "testdata/sources", Tofu: tofu, Out: out,
		Timeout: time.Minute, Getenv: func(name string) string { return variables[name] }, connect: connectTo(api),
	}
}

func shown(o Options) string { return o.Out.(*screen).String() }

func TestDeployTwiceChangeAndDestroy(t *testing.T) {
	t.Parallel()
	state, api := newState(t), newAPI(t)
	o := job(t, state, api)
	got, err := Deploy(t.Context(), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, shown(o))
	}
	if got.Plan.Create != 1 || got.Outputs.URL != "https://attic-cache-staging.rigel.bates.edu" || !state.written() || state.holder() != nil {
		t.Errorf("%+v, lock %v\n%s", got, state.holder(), shown(o))
	}
	for _, a := range api.asked {
		if a.Namespace != "attic-cache-staging" {
			t.Errorf("asked for rights in %q", a.Namespace)
		}
	}
	if got, err = Deploy(t.Context(), o); err != nil || got.Plan.Changes() != 0 || !strings.Contains(shown(o), "nothing to do") {
		t.Errorf("again: %+v, %v\n%s", got.Plan, err, shown(o))
	}
	o.Vars = []string{"text=two"}
	if plan, err := Plan(t.Context(), o); err != nil || plan.Update != 1 || state.holder() != nil {
		t.Errorf("plan of a change: %+v, %v", plan, err)
	}
	if got, err = Deploy(t.Context(), o); err != nil || got.Plan.Update != 1 {
		t.Errorf("change: %+v, %v", got.Plan, err)
	}
	for range 2 { // what is gone is no error
		if got, err = Destroy(t.Context(), o); err != nil {
			t.Fatalf("destroy: %v\n%s", err, shown(o))
		}
	}
	if got.Plan.Changes() != 0 {
		t.Errorf("destroyed twice: %+v", got.Plan)
	}
}

// What was reviewed is what is applied, or nothing is.
func TestAPlanIsAppliedAsItWasOrNotAtAll(t *testing.T) {
	t.Parallel()
	state, api := newState(t), newAPI(t)
	o := job(t, state, api)
	o.PlanFile = filepath.Join(t.TempDir(), "plan")
	if _, err := Plan(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if state.written() {
		t.Error("planning wrote the state")
	}
	o.Vars = []string{"text=later"} // of no effect on the plan
	if got, err := Deploy(t.Context(), o); err != nil || got.Plan.Create != 1 {
		t.Fatalf("%v\n%s", err, shown(o))
	}
	if text := string(state.state); !strings.Contains(text, `"one"`) || strings.Contains(text, "later") {
		t.Error("something else than the plan was applied")
	}
	if _, err := Deploy(t.Context(), o); err == nil || !strings.Contains(err.Error(), "plan again; nothing was applied") {
		t.Errorf("a stale plan: %v", err)
	}
}

func TestTwoDeploymentsAtOnce(t *testing.T) {
	t.Parallel()
	state, api := newState(t), newAPI(t)
	first := job(t, state, api)
	gate := filepath.Join(t.TempDir(), "gate")
	first.Vars = []string{"gate=" + gate}
	done := make(chan error, 1)
	go func() {
		_, err := Deploy(t.Context(), first)
		done <- err
	}()
	first.Out.(*screen).await(t, "Provisioning with 'local-exec'")

	// One that does not wait names who has the lock.
	second := job(t, state, api)
	_, err := Deploy(t.Context(), second)
	var locked *LockedError
	if !errors.As(err, &locked) || locked.Lock.ID == "" || locked.Lock.ID != state.holder().ID || !strings.Contains(err.Error(), "--force-unlock "+locked.Lock.ID) {
		t.Errorf("%v", err)
	}
	if _, err := Plan(t.Context(), second); err != nil {
		t.Errorf("a plan needs no lock: %v", err)
	}
	// One that waits comes after it.
	third := job(t, state, api)
	third.LockTimeout, third.Vars = patience, first.Vars
	waited := make(chan error, 1)
	go func() {
		_, err := Deploy(t.Context(), third)
		waited <- err
	}()
	third.Out.(*screen).await(t, "; waiting for 5m0s")
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the first: %v\n%s", err, shown(first))
	}
	if err := <-waited; err != nil || !strings.Contains(shown(third), "nothing to do") {
		t.Errorf("the one that waited: %v\n%s", err, shown(third))
	}
}

// An interrupted apply writes what it did and gives the lock back.
func TestInterruptedDeploymentsLeaveNoLock(t *testing.T) {
	t.Parallel()
	state, api := newState(t), newAPI(t)
	o := job(t, state, api)
	o.Vars = []string{"gate=" + filepath.Join(t.TempDir(), "gate")}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("interrupted")
	done := make(chan error, 1)
	go func() {
		_, err := Deploy(ctx, o)
		done <- err
	}()
	o.Out.(*screen).await(t, "Provisioning with 'local-exec'")
	cancel(stop)
	if err := <-done; !errors.Is(err, stop) {
		t.Errorf("%v\n%s", err, shown(o))
	}
	if state.holder() != nil || !state.written() {
		t.Errorf("lock %v, state written: %v", state.holder(), state.written())
	}
	o.Vars = nil
	if _, err := Deploy(t.Context(), o); err != nil {
		t.Errorf("the next: %v\n%s", err, shown(o))
	}
}

// A run that was killed cannot give it back.
func TestTheLockOfADeadRunIsReleasedByItsID(t *testing.T) {
	t.Parallel()
	state, api := newState(t), newAPI(t)
	state.lock = &Lock{ID: "6b3c", Who: "runner@node-3", Operation: "OperationTypeApply", Created: time.Now()}
	o := job(t, state, api)
	_, err := Deploy(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "locked by runner@node-3") || !strings.Contains(err.Error(), "--force-unlock 6b3c") || state.written() {
		t.Errorf("%v", err)
	}
	o.ForceUnlock = "another"
	if _, err = Deploy(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--force-unlock 6b3c") || state.holder() == nil {
		t.Errorf("another ID released it: %v", err)
	}
	o.ForceUnlock = "6b3c"
	if _, err = Deploy(t.Context(), o); err != nil || state.holder() != nil {
		t.Errorf("%v\n%s", err, shown(o))
	}
}

func TestBadInputAppliesNothing(t *testing.T) {
	t.Parallel()
	badFile := func(text string) func(*Options) {
		return func(o *Options) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS("testdata/sources")); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "stacks/demo/rigel.tfvars"), []byte(text), 0o600); err != nil {
				t.Error(err)
			}
			o.Sources = dir
		}
	}
	without := func(o *Options, name string) {
		get := o.Getenv
		o.Getenv = func(n string) string {
			if n == name {
				return ""
			}
			return get(n)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*Options)
		state  func(*gitlabState)
		api    func(*apiServer)
		want   string
	}{
		{"an unknown stack", func(o *Options) { o.Stack = "attik" }, nil, nil, `there is no stack "attik"; there are demo`},
		{"a path for a stack", func(o *Options) { o.Stack = "../demo" }, nil, nil, "there is no stack"},
		{"a stack of another cluster", func(o *Options) { o.Environment.VarFile, o.Environment.Cluster = "beehive.tfvars", "beehive" }, nil, nil, "the stack demo is not for the cluster beehive"},
		{"no OpenTofu", func(o *Options) { o.Tofu = "/none/tofu" }, nil, nil, "there is no OpenTofu (/none/tofu)"},
		{"no state", func(o *Options) { without(o, "CI_JOB_TOKEN") }, nil, nil, "set TF_HTTP_ADDRESS"},
		{"a missing variable", badFile(""), nil, nil, "No value for required variable"},
		{"a variable of the wrong type", badFile("text = \"x\"\nsize = \"big\"\n"), nil, nil, "a number is required"},
		{"no tfvars at all", badFile("text = \n"), nil, nil, "rigel.tfvars:1: "},
		{"a right that is missing", nil, nil, func(a *apiServer) { a.forbid = "delete" }, "may not delete secrets in the namespace attic-cache-staging, nor delete services"},
		{"an expired token of the cluster", nil, nil, func(a *apiServer) { a.token = "newer" }, "the token has expired"},
		{"an expired token of the state", nil, func(s *gitlabState) { s.refuse = http.StatusUnauthorized }, nil, "the token is not accepted (TF_HTTP_PASSWORD)"},
		{"a developer's token", nil, func(s *gitlabState) { s.refuse = http.StatusForbidden }, nil, "needs the role Maintainer"},
		{"a plan that is none", func(o *Options) { o.PlanFile = "deploy_test.go" }, nil, nil, "reading the plan"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			state, api := newState(t), newAPI(t)
			o := job(t, state, api)
			if tt.change != nil {
				tt.change(&o)
			}
			if tt.state != nil {
				tt.state(state)
			}
			if tt.api != nil {
				tt.api(api)
			}
			_, err := Deploy(t.Context(), o)
			var input *InputError
			if !errors.As(err, &input) || !strings.Contains(err.Error(), tt.want) || strings.Count(err.Error(), "\n") > 0 && tt.name != "a plan that is none" {
				t.Errorf("%v\n%s", err, shown(o))
			}
			if state.written() || state.holder() != nil {
				t.Error("something was applied")
			}
		})
	}
}

func TestAClusterThatIsDown(t *testing.T) {
	t.Parallel()
	state, api := newState(t), newAPI(t)
	api.Close()
	if _, err := Deploy(t.Context(), job(t, state, api)); err == nil || !strings.Contains(err.Error(), "the cluster cannot be reached") {
		t.Error(err)
	}
	api = newAPI(t)
	state.Close()
	if _, err := Deploy(t.Context(), job(t, state, api)); err == nil || !strings.Contains(err.Error(), "the state demo-staging cannot be reached") {
		t.Error(err)
	}
}

func TestAFailedRolloutSaysWhy(t *testing.T) {
	t.Parallel()
	state, api := newState(t), newAPI(t)
	api.deployment.Status = apps.DeploymentStatus{
		Replicas: 2, UpdatedReplicas: 1, AvailableReplicas: 1,
		Conditions: []apps.DeploymentCondition{{Type: apps.DeploymentProgressing, Status: core.ConditionFalse, Message: `ReplicaSet "demo-7d" has timed out progressing.`}},
	}
	api.pods.Items = []core.Pod{{
		ObjectMeta: meta.ObjectMeta{Name: "demo-7d-x", Namespace: "attic-cache-staging"},
		Status: core.PodStatus{Phase: core.PodRunning, ContainerStatuses: []core.ContainerStatus{{
			Name: "server", RestartCount: 4, State: core.ContainerState{Waiting: &core.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
			LastTerminationState: core.ContainerState{Terminated: &core.ContainerStateTerminated{Reason: "Error", ExitCode: 1}},
		}}},
	}}
	api.log = "cacheserver: opening the index: no such host \x1b[2J\n"
	about := func(name, reason string) core.Event {
		return core.Event{InvolvedObject: core.ObjectReference{Kind: "Pod", Name: name}, Reason: reason, Message: "m", Count: 9}
	}
	api.events.Items = []core.Event{about("demo-7d-x", "BackOff"), about("another", "Unrelated")}
	o := job(t, state, api)
	got, err := Deploy(t.Context(), o)
	var failed *RolloutError
	if !errors.As(err, &failed) {
		t.Fatalf("%v\n%s", err, shown(o))
	}
	for _, want := range []string{
		"deployment/demo was not rolled out: ReplicaSet", "pod demo-7d-x is Running", "container server waits: CrashLoopBackOff",
		"(before: Error, exit status 1, 4 restarts)", "opening the index: no such host  [2J", "event pod/demo-7d-x: BackOff: m (9 times)",
		"kubectl --context bates-ils/projects/kubernetes/gitlab-agents:rigel -n attic-cache-staging rollout undo deployment/demo",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "Unrelated") || got.Outputs.URL == "" {
		t.Errorf("%+v\n%v", got, err)
	}
	// One that hangs without a word ends, too.
	api.mu.Lock()
	api.deployment.Status.Conditions = nil
	api.mu.Unlock()
	o.Timeout = time.Millisecond
	if _, err = Deploy(t.Context(), o); !errors.As(err, &failed) || !strings.Contains(err.Error(), "the time for it is over") {
		t.Error(err)
	}
}

// The kernel kills OpenTofu where memory is short: nothing can give its lock back.
func TestOpenTofuThatIsKilledLeavesALockThatIsNamedAndReleased(t *testing.T) {
	t.Parallel()
	state, api := newState(t), newAPI(t)
	o := job(t, state, api)
	gate := filepath.Join(t.TempDir(), "gate")
	o.Vars = []string{"gate=" + gate}
	done := make(chan error, 1)
	go func() {
		_, err := Deploy(t.Context(), o)
		done <- err
	}()
	o.Out.(*screen).await(t, "Provisioning with 'local-exec'")
	if err := syscall.Kill(parentOf(t, gate), syscall.SIGKILL); err != nil {
		t.Fatalf("killing OpenTofu: %v", err)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil { // what it ran ends
		t.Fatal(err)
	}
	err, holder := <-done, state.holder()
	if holder == nil {
		t.Fatalf("it left no lock: %v", err)
	}
	for _, want := range []string{"signal: killed", "mend the cause and deploy again", "locked by " + holder.Who, "--force-unlock " + holder.ID} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
	o.Vars = nil
	if _, err := Deploy(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--force-unlock "+holder.ID) {
		t.Errorf("the next does not name the lock: %v", err)
	}
	o.ForceUnlock = holder.ID
	if _, err := Deploy(t.Context(), o); err != nil || state.holder() != nil {
		t.Errorf("the next does not release it: %v\n%s", err, shown(o))
	}
}
