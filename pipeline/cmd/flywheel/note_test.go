package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/deploy"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/environment"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/gitlab/gitlabtest"
)

// mergeRequest is a deployment in a job of merge request 7 of g/app, and the GitLab
// that takes its notes.
func mergeRequest(t *testing.T, token gitlabtest.Token) (*deployment, *gitlabtest.Server) {
	t.Helper()
	s := gitlabtest.New(gitlabtest.Contents{
		Tokens: map[string]gitlabtest.Token{"glpat": token}, Projects: map[string]gitlabtest.Project{"g/app": {ID: 3}},
	})
	t.Cleanup(s.Close)
	variables := map[string]string{
		"CI_SERVER_URL": s.URL, "CI_MERGE_REQUEST_PROJECT_PATH": "g/app", "CI_MERGE_REQUEST_IID": "7", gitlabTokenVariable: "glpat",
	}
	d := &deployment{note: true, Options: deploy.Options{
		Stack: "attic", Environment: environment.Environment{Name: "review/x"}, Getenv: func(name string) string { return variables[name] },
	}}
	return d, s
}

// tell writes the note of a plan, and returns what is said of it.
func tell(t *testing.T, d *deployment, plan deploy.Summary) string {
	t.Helper()
	var said bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	cmd.SetErr(&said)
	if err := d.files(cmd, plan, deploy.Outputs{}); err != nil {
		t.Errorf("a note is not to change how a deployment ends: %v", err)
	}
	return said.String()
}

func built(t *testing.T, name string, r flywheel.Report) string {
	t.Helper()
	r.Schema = 1
	file := filepath.Join(t.TempDir(), name)
	if err := r.Write(file); err != nil {
		t.Fatal(err)
	}
	return file
}

var plan = deploy.Summary{Schema: 1, Create: 1, Resources: []deploy.Change{{Address: `kubectl_manifest.this["a"]`, Actions: []string{"create"}, Object: "Service a"}}}

// Pipelines of a merge request change one note, which has the plan and what the
// cache was worth.
func TestPipelinesKeepOneNoteOfPlanAndCache(t *testing.T) {
	t.Parallel()
	d, s := mergeRequest(t, gitlabtest.Token{User: 1, Role: gitlabtest.Developer, Scopes: []string{"api"}})
	var missing []string
	for i := range notedLines + 2 {
		missing = append(missing, fmt.Sprintf("/nix/store/%d-x", i))
	}
	d.reports = []string{
		built(t, "build.json", flywheel.Report{
			Outcome: flywheel.Built, Seconds: 71.4, Built: 1, Substituted: 18, Pushed: flywheel.Pushed{Paths: 19, SentBytes: 3 << 20}, TimeSaved: 3725,
		}),
		built(t, "tests|2.json", flywheel.Report{Outcome: flywheel.Failed, Missing: missing, CacheErrors: []string{"HTTP 507: ```"}}),
	}
	if said := tell(t, d, plan); said != "" {
		t.Error(said)
	}
	notes := s.Notes("g/app", 7)
	if len(notes) != 1 {
		t.Fatalf("%+v", notes)
	}
	for _, want := range []string{
		"<!-- flywheel plan attic review/x -->\n**attic** on `review/x`: 1 to add, 0 to change, 0 to destroy\n",
		"```\n+   kubectl_manifest.this[\"a\"]  (Service a)\n",
		"| build | built in 1m11s | 1 | 18 | 94 % | 19 (3.0 MiB sent) | 0 | 1h2m5s |\n",
		"| tests\\|2 | failed in 0s | 0 | 0 | – | 0 (0 B sent) | 22 | – |\n",
		"/nix/store/19-x\nand 2 more\n```\n",
		"````\nHTTP 507: ```\n````\n",
	} {
		if !strings.Contains(notes[0].Body, want) {
			t.Errorf("no %q in\n%s", want, notes[0].Body)
		}
	}
	if strings.Contains(notes[0].Body, "build: missing") {
		t.Errorf("nothing is missing of it:\n%s", notes[0].Body)
	}

	// The next pipeline, and another stack.
	d.reports = d.reports[:1]
	next := plan
	next.Create = 0
	tell(t, d, next)
	d.Stack, d.reports = "runner-dashboard", nil
	tell(t, d, plan)
	notes = s.Notes("g/app", 7)
	if len(notes) != 2 || !strings.Contains(notes[0].Body, "no changes") || strings.Contains(notes[0].Body, "22") || strings.Contains(notes[1].Body, "hit rate") {
		t.Errorf("%+v", notes)
	}
	if faults := s.Faults(); len(faults) > 0 {
		t.Errorf("GitLab has no such requests: %q", faults)
	}
}

// What cannot be told is said, and changes nothing else.
func TestNotesThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	writer := gitlabtest.Token{User: 1, Role: gitlabtest.Developer, Scopes: []string{"api"}}
	other := filepath.Join(t.TempDir(), "other.json")
	if err := os.WriteFile(other, []byte(`{"schema": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	without := func(name string) func(*deployment) {
		return func(d *deployment) {
			get := d.Getenv
			d.Getenv = func(n string) string { return map[bool]string{false: get(n)}[n == name] }
		}
	}
	for _, tt := range []struct {
		name   string
		token  gitlabtest.Token
		change func(*deployment)
		want   string
		notes  int
	}{
		{"no report", writer, func(d *deployment) { d.reports = []string{"none.json"} }, "not in the note: reading a build's report: open none.json", 1},
		{"no report of a build", writer, func(d *deployment) { d.reports = []string{other} }, "other.json is no report of flywheel build", 1},
		{"no merge request", writer, without("CI_MERGE_REQUEST_IID"), "no note on the merge request: this is no job of a merge request", 0},
		{"no token", writer, without(gitlabTokenVariable), "GITLAB_TOKEN is not set: an access token of the group or project, with the scope api", 0},
		{"a reader's token", gitlabtest.Token{Role: gitlabtest.Developer, Scopes: []string{"read_api"}}, func(*deployment) {}, "!7 of g/app: HTTP 403: the token may not do this: it needs the scope api", 0},
		{"an expired token", gitlabtest.Token{Refused: "expired"}, func(*deployment) {}, "HTTP 401: the token has expired", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, s := mergeRequest(t, tt.token)
			tt.change(d)
			said := tell(t, d, plan)
			if !strings.Contains(said, tt.want) || strings.Count(said, "\n") != 1 {
				t.Errorf("%q, want %q", said, tt.want)
			}
			if notes := s.Notes("g/app", 7); len(notes) != tt.notes {
				t.Errorf("%+v", notes)
			}
		})
	}
}
