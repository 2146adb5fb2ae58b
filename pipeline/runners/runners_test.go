package runners

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/gitlab"
)

const fleetText = `
group = 7
[[runner]]
name = "nix"
description = "nix"
tags = ["nix", "flakes"]
secret = "runner-nix-token"
timeout = 3600
`

// world is a GitLab and a namespace's secrets, which check what they are sent.
type world struct {
	t       *testing.T
	mu      sync.Mutex
	runners map[int]map[string]any
	secrets map[string]*core.Secret
	next    int
	expires time.Time
	calls   []string // that change something
	noWrite bool     // secrets cannot be written
	noRead  bool     // nor read
	status  int      // of GitLab for everything; 0: it works
}

func (w *world) gitlab(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rw.Header().Set("Content-Type", "application/json")
	if w.status != 0 || r.Header.Get("Private-Token") != "glpat" {
		rw.WriteHeader(max(w.status, http.StatusUnauthorized))
		return
	}
	if r.Method != http.MethodGet {
		w.calls = append(w.calls, r.Method+" "+r.URL.Path)
	}
	var body map[string]any
	if r.Body != nil {
		_ = json.NewDecoder(r.Body).Decode(&body)
	}
	id := 0
	_, _ = fmt.Sscanf(r.URL.Path, "/api/v4/runners/%d", &id)
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/api/v4/groups/7/runners":
		if r.URL.Query().Get("type") != "group_type" {
			w.t.Errorf("asked for runners of %q", r.URL.RawQuery)
		}
		all := []any{}
		for _, runner := range w.runners {
			all = append(all, runner)
		}
		_ = json.NewEncoder(rw).Encode(all)
	case r.Method == http.MethodPost && r.URL.Path == "/api/v4/user/runners":
		if body["runner_type"] != "group_type" || body["group_id"] != 7.0 || body["description"] != "nix" || body["maximum_timeout"] != 3600.0 ||
			body["access_level"] != "not_protected" || body["maintenance_note"] != "flywheel runners: ns/nix" || fmt.Sprint(body["tag_list"]) != "[flakes nix]" {
			w.t.Errorf("created %v", body)
		}
		w.next++
		body["id"], body["status"] = w.next, "never_contacted"
		w.runners[w.next] = body
		_ = json.NewEncoder(rw).Encode(map[string]any{"id": w.next, "token": fmt.Sprintf("glrt-%d", w.next), "token_expires_at": w.expires})
	case w.runners[id] == nil:
		rw.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodGet:
		_ = json.NewEncoder(rw).Encode(w.runners[id])
	case r.Method == http.MethodPut:
		for k, v := range body {
			w.runners[id][k] = v
		}
		_ = json.NewEncoder(rw).Encode(w.runners[id])
	case r.Method == http.MethodDelete:
		delete(w.runners, id)
		rw.WriteHeader(http.StatusNoContent)
	}
}

func (w *world) cluster(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rw.Header().Set("Content-Type", "application/json")
	fail := func(code int, reason meta.StatusReason) {
		rw.WriteHeader(code)
		_ = json.NewEncoder(rw).Encode(meta.Status{TypeMeta: meta.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reason, Code: int32(code), Message: string(reason)})
	}
	base := "/api/v1/namespaces/ns/secrets"
	name := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, base), "/")
	switch {
	case w.noRead && strings.HasPrefix(r.URL.Path, base):
		fail(http.StatusForbidden, meta.StatusReasonForbidden)
	case !strings.HasPrefix(r.URL.Path, base):
		_, _ = rw.Write([]byte(`{"kind":"DeploymentList","apiVersion":"apps/v1","items":[{"metadata":{"name":"runner-nix"},"spec":{"replicas":2},"status":{"availableReplicas":1}}]}`))
	case r.Method == http.MethodGet && w.secrets[name] == nil:
		fail(http.StatusNotFound, meta.StatusReasonNotFound)
	case r.Method == http.MethodGet:
		_ = json.NewEncoder(rw).Encode(w.secrets[name])
	case w.noWrite:
		fail(http.StatusForbidden, meta.StatusReasonForbidden)
	default:
		var s core.Secret
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
			w.t.Error(err)
		}
		w.secrets[s.Name] = &s
		_ = json.NewEncoder(rw).Encode(s)
	}
}

func newWorld(t *testing.T) (*world, *Fleet) {
	t.Helper()
	w := &world{t: t, runners: map[int]map[string]any{}, secrets: map[string]*core.Secret{}, expires: time.Now().Add(90 * 24 * time.Hour)}
	lab, kube := httptest.NewServer(http.HandlerFunc(w.gitlab)), httptest.NewServer(http.HandlerFunc(w.cluster))
	t.Cleanup(lab.Close)
	t.Cleanup(kube.Close)
	c, err := ParseConfig("gitlab = \"" + lab.URL + "\"\n" + fleetText)
	if err != nil {
		t.Fatal(err)
	}
	f := &Fleet{Config: c, Namespace: "ns", Out: &bytes.Buffer{}, Now: time.Now}
	if f.GitLab, err = gitlab.New(lab.URL, "glpat"); err != nil {
		t.Fatal(err)
	}
	if f.Cluster, err = kubernetes.NewForConfig(&rest.Config{Host: kube.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}); err != nil {
		t.Fatal(err)
	}
	return w, f
}

const (
	before = 7 * 24 * time.Hour
	stale  = 30 * 24 * time.Hour
)

// rotate returns what changed.
func (w *world) rotate(t *testing.T, f *Fleet) []string {
	t.Helper()
	w.calls = nil
	if err := f.Rotate(t.Context(), before, stale); err != nil {
		t.Fatal(err)
	}
	return w.calls
}

func TestTokensLive(t *testing.T) {
	t.Parallel()
	w, f := newWorld(t)
	if got := w.rotate(t, f); !slices.Equal(got, []string{"POST /api/v4/user/runners"}) {
		t.Errorf("first: %v", got)
	}
	secret := w.secrets["runner-nix-token"]
	if _, ok := secret.Data[emptyKey]; string(secret.Data[tokenKey]) != "glrt-1" || !ok {
		t.Errorf("secret %v", secret.Data)
	}
	if got := w.rotate(t, f); len(got) > 0 {
		t.Errorf("again: %v", got)
	}
	// Somebody changed the runner in GitLab's pages.
	w.runners[1]["tag_list"] = []string{"nix"}
	if got := w.rotate(t, f); !slices.Equal(got, []string{"PUT /api/v4/runners/1"}) || fmt.Sprint(w.runners[1]["tag_list"]) != "[flakes nix]" {
		t.Errorf("changed: %v %v", got, w.runners[1])
	}
	// The token is about to end: a new runner, while the old one still serves.
	w.runners[1]["status"], w.runners[1]["contacted_at"] = "online", time.Now().Add(84*24*time.Hour)
	f.Now = func() time.Time { return time.Now().Add(84 * 24 * time.Hour) }
	w.expires = time.Now().Add(200 * 24 * time.Hour)
	if got := w.rotate(t, f); len(got) != 1 || string(w.secrets["runner-nix-token"].Data[tokenKey]) != "glrt-2" || w.runners[1] == nil {
		t.Errorf("rotated: %v", got)
	}
	// Once it is silent, it goes; runners of others stay.
	w.runners[1]["status"] = "stale"
	w.runners[9] = map[string]any{"id": 9, "description": "theirs", "status": "stale"}
	w.runners[10] = map[string]any{"id": 10, "status": "stale", "maintenance_note": "flywheel runners: another/nix"}
	f.Now = func() time.Time { return time.Now().Add(120 * 24 * time.Hour) }
	if got := w.rotate(t, f); !slices.Equal(got, []string{"DELETE /api/v4/runners/1"}) {
		t.Errorf("stale: %v", got)
	}
	// Somebody removed the runner.
	delete(w.runners, 2)
	if got := w.rotate(t, f); len(got) != 1 || string(w.secrets["runner-nix-token"].Data[tokenKey]) != "glrt-3" {
		t.Errorf("removed by hand: %v", got)
	}
}

// A runner without a secret would be there for ever, one more with each run.
func TestARunnerWhoseTokenCannotBeKeptIsRemoved(t *testing.T) {
	t.Parallel()
	w, f := newWorld(t)
	w.noWrite = true
	w.runners[5] = map[string]any{"id": 5, "status": "stale", "maintenance_note": "flywheel runners: ns/nix"}
	err := f.Rotate(t.Context(), before, stale)
	if err == nil || !strings.Contains(err.Error(), "runner nix: writing the secret runner-nix-token") {
		t.Error(err)
	}
	if !slices.Equal(w.calls, []string{"POST /api/v4/user/runners", "DELETE /api/v4/runners/1"}) {
		t.Errorf("%v", w.calls)
	}
}

func TestGitLabThatRefuses(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{
		http.StatusUnauthorized: "it has expired or was revoked", http.StatusForbidden: "needs the scopes create_runner", http.StatusNotFound: "the token may not see it",
	} {
		w, f := newWorld(t)
		w.status = status
		if err := f.Rotate(t.Context(), before, stale); err == nil || !strings.Contains(err.Error(), want) || len(w.calls) > 0 {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	w, f := newWorld(t)
	run := func() string {
		var out bytes.Buffer
		var b strings.Builder
		for _, r := range check.Run(t.Context(), &out, f.Checks(before)) {
			fmt.Fprintf(&b, "%s %s %s\n", r.Name, r.Outcome, r.Message)
		}
		return b.String()
	}
	has := func(want string) {
		t.Helper()
		if got := run(); !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	has("nix failed the secret runner-nix-token")
	w.rotate(t, f)
	has("nix failed runner 1 is never_contacted, which never asked for jobs")
	has("deployments failed runner-nix has 1 of 2 replicas")
	w.runners[1]["status"] = "online"
	has("nix passed")
	w.noRead = true // as it is for viewers
	has("nix passed")
	w.runners[1]["paused"] = true
	has("nix failed runner 1 is paused")
	w.noRead = false
	has("nix failed runner 1 is paused")
	delete(w.runners, 1)
	has("nix failed it needs a new token: runner 1 is gone")
	f.Cluster = nil
	has("nix failed GitLab has no runner for the tags nix, flakes")
	w.status = http.StatusUnauthorized
	has("nix skipped")
}

func TestConfigurationsThatAreWrong(t *testing.T) {
	t.Parallel()
	head := "gitlab = \"https://gitlab.example.org\"\n"
	for _, tt := range []struct{ text, want string }{
		{head, "want group or project"},
		{head + "group = 1\nproject = 2", "want group or project"},
		{"group = 1", `the GitLab "": want https://HOST`},
		{head + fleetText + "tagz = 1", "runner.tagz is not known"},
		{head + strings.Replace(fleetText, `"runner-nix-token"`, `"no/name"`, 1), `secret "no/name" is no name`},
		{head + strings.Replace(fleetText, `["nix", "flakes"]`, `[]`, 1), "would take no jobs"},
		{head + strings.Replace(fleetText, "3600", "60", 1), "at least 600 seconds"},
		{head + fleetText + strings.Replace(fleetText, "group = 7", "", 1), "another has its name"},
		{"=", "expected"},
	} {
		if _, err := ParseConfig(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v", tt.text, err)
		}
	}
}

// The file that the module renders is the one that is read here.
func TestTheModulesFileIsRead(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/tofu/modules/gitlab-user-runner/templates/runners.toml")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "%{") {
			lines = append(lines, line)
		}
	}
	rendered := strings.NewReplacer(
		"${jsonencode(url)}", `"https://gitlab.com"`, "group = ${group}\n", "group = 7\n", "project = ${project}\n", "",
		"${jsonencode(name)}", `"nix"`, `${jsonencode(r.description == "" ? name : r.description)}`, `"nix"`,
		"${jsonencode(r.tags)}", `["nix"]`, "${jsonencode(r.secret)}", `"s"`,
		"${r.run_untagged}", "false", "${r.protected}", "true", "${r.timeout}", "0",
	).Replace(strings.Join(lines, ""))
	c, err := ParseConfig(rendered)
	if err != nil || len(c.Runners) != 1 || !c.Runners[0].Protected {
		t.Errorf("%+v, %v in\n%s", c, err, rendered)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add("gitlab = \"https://gitlab.example.org\"\n" + fleetText)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConfig(text)
		if err == nil && (c.Group > 0) == (c.Project > 0) {
			t.Errorf("%+v", c)
		}
	})
}
