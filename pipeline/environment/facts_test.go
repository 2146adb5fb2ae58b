package environment_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/environment"
)

// variables is an environment of "NAME=value" lines.
func variables(lines string) func(string) string {
	values := map[string]string{}
	for line := range strings.Lines(lines) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[name] = value
	}
	return func(name string) string { return values[name] }
}

func TestFromGitLab(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, variables string
		want            environment.Facts
	}{
		{
			"branch", `CI_PIPELINE_SOURCE=push
			CI_COMMIT_BRANCH=main
			CI_COMMIT_REF_NAME=main
			CI_COMMIT_REF_SLUG=main
			CI_DEFAULT_BRANCH=main`,
			environment.Facts{Branch: "main", DefaultBranch: "main", Slug: "main"},
		},
		{
			"merge request", `CI_PIPELINE_SOURCE=merge_request_event
			CI_MERGE_REQUEST_IID=7
			CI_MERGE_REQUEST_SOURCE_BRANCH_NAME=Feature/X
			CI_MERGE_REQUEST_PROJECT_PATH=bates/cache
			CI_MERGE_REQUEST_SOURCE_PROJECT_PATH=bates/cache
			CI_COMMIT_REF_NAME=Feature/X
			CI_COMMIT_REF_SLUG=feature-x
			CI_DEFAULT_BRANCH=main`,
			environment.Facts{MergeRequest: true, Branch: "Feature/X", DefaultBranch: "main", Slug: "feature-x"},
		},
		{
			"merge request by its source alone", `CI_PIPELINE_SOURCE=merge_request_event
			CI_COMMIT_REF_NAME=x`,
			environment.Facts{MergeRequest: true, Branch: "x"},
		},
		{
			"child pipeline of a merge request", `CI_PIPELINE_SOURCE=parent_pipeline
			CI_MERGE_REQUEST_IID=7
			CI_MERGE_REQUEST_SOURCE_BRANCH_NAME=x
			CI_COMMIT_REF_NAME=refs/merge-requests/7/head`,
			environment.Facts{MergeRequest: true, Branch: "x"},
		},
		{
			"fork, in the target's project", `CI_PIPELINE_SOURCE=merge_request_event
			CI_MERGE_REQUEST_IID=7
			CI_PROJECT_PATH=bates/cache
			CI_MERGE_REQUEST_PROJECT_PATH=bates/cache
			CI_MERGE_REQUEST_SOURCE_PROJECT_PATH=eve/cache
			CI_MERGE_REQUEST_SOURCE_BRANCH_NAME=main`,
			environment.Facts{MergeRequest: true, Branch: "main", Fork: "eve/cache"},
		},
		{
			"fork, in its own project", `CI_PIPELINE_SOURCE=merge_request_event
			CI_MERGE_REQUEST_IID=7
			CI_PROJECT_PATH=eve/cache
			CI_MERGE_REQUEST_PROJECT_PATH=bates/cache
			CI_MERGE_REQUEST_SOURCE_PROJECT_PATH=eve/cache
			CI_MERGE_REQUEST_SOURCE_BRANCH_NAME=x`,
			environment.Facts{MergeRequest: true, Branch: "x", Fork: "eve/cache"},
		},
		{
			"fork that is gone", `CI_MERGE_REQUEST_IID=7
			CI_MERGE_REQUEST_PROJECT_PATH=bates/cache
			CI_MERGE_REQUEST_SOURCE_BRANCH_NAME=x`,
			environment.Facts{MergeRequest: true, Branch: "x", Fork: "one that was deleted"},
		},
		{
			"tag", `CI_PIPELINE_SOURCE=push
			CI_COMMIT_TAG=v1.2.3
			CI_COMMIT_REF_NAME=v1.2.3
			CI_COMMIT_REF_SLUG=v1-2-3
			CI_DEFAULT_BRANCH=main`,
			environment.Facts{Tag: "v1.2.3", DefaultBranch: "main", Slug: "v1-2-3"},
		},
		{
			"schedule", `CI_PIPELINE_SOURCE=schedule
			CI_COMMIT_BRANCH=main
			CI_DEFAULT_BRANCH=main`,
			environment.Facts{Branch: "main", DefaultBranch: "main", Scheduled: true},
		},
		{
			"gitlab-ci-local", `GITLAB_CI=false
			CI_COMMIT_BRANCH=x
			CI_DEFAULT_BRANCH=main`,
			environment.Facts{Branch: "x", DefaultBranch: "main"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := environment.FromCI(variables(tt.variables))
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v\nwant %+v", got, err, tt.want)
			}
		})
	}
}

func TestFromGitHub(t *testing.T) {
	t.Parallel()
	const repository = `"repository": {"default_branch": "main"}`
	for _, tt := range []struct {
		name, variables, event string
		want                   environment.Facts
	}{
		{
			"branch", `GITHUB_EVENT_NAME=push
			GITHUB_REF_TYPE=branch
			GITHUB_REF_NAME=main`, `{` + repository + `}`,
			environment.Facts{Branch: "main", DefaultBranch: "main"},
		},
		{
			"pull request", `GITHUB_EVENT_NAME=pull_request
			GITHUB_REPOSITORY=bates/cache
			GITHUB_REF_TYPE=branch
			GITHUB_REF_NAME=7/merge
			GITHUB_HEAD_REF=feature/x`, `{` + repository + `, "pull_request": {"head": {"repo": {"full_name": "bates/cache"}}}}`,
			environment.Facts{MergeRequest: true, Branch: "feature/x", DefaultBranch: "main"},
		},
		{
			"fork", `GITHUB_EVENT_NAME=pull_request_target
			GITHUB_REPOSITORY=bates/cache
			GITHUB_REF_NAME=main
			GITHUB_HEAD_REF=main`, `{` + repository + `, "pull_request": {"head": {"repo": {"full_name": "eve/cache"}}}}`,
			environment.Facts{MergeRequest: true, Branch: "main", DefaultBranch: "main", Fork: "eve/cache"},
		},
		{
			"fork that is gone", `GITHUB_REPOSITORY=bates/cache
			GITHUB_HEAD_REF=x`, `{"pull_request": {"head": {"repo": null}}}`,
			environment.Facts{MergeRequest: true, Branch: "x", Fork: "one that was deleted"},
		},
		{
			"tag", `GITHUB_EVENT_NAME=push
			GITHUB_REF_TYPE=tag
			GITHUB_REF_NAME=v1.2.3`, `{` + repository + `}`,
			environment.Facts{Tag: "v1.2.3", DefaultBranch: "main"},
		},
		{
			"schedule", `GITHUB_EVENT_NAME=schedule
			GITHUB_REF_TYPE=branch
			GITHUB_REF_NAME=main`, `{"schedule": "0 0 * * *"}`,
			environment.Facts{Branch: "main", Scheduled: true},
		},
		{
			"no event", `GITHUB_REF_TYPE=branch
			GITHUB_REF_NAME=main`, "",
			environment.Facts{Branch: "main"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			lines := "GITHUB_ACTIONS=true\n" + tt.variables
			if tt.event != "" {
				file := filepath.Join(t.TempDir(), "event.json")
				if err := os.WriteFile(file, []byte(tt.event), 0o600); err != nil {
					t.Fatal(err)
				}
				lines += "\nGITHUB_EVENT_PATH=" + file
			}
			got, err := environment.FromCI(variables(lines))
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v\nwant %+v", got, err, tt.want)
			}
		})
	}
}

func TestFromCIWithoutOne(t *testing.T) {
	t.Parallel()
	for _, lines := range []string{"", "CI=true", "GITHUB_ACTIONS=true", "CI_DEFAULT_BRANCH=main", "CI_MERGE_REQUEST_IID=1"} {
		if f, err := environment.FromCI(variables(lines)); !errors.Is(err, environment.ErrNoCI) {
			t.Errorf("%q: got %+v, %v, want ErrNoCI", lines, f, err)
		}
	}
}

func TestFromGitHubWithABrokenEvent(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "event.json")
	lines := "GITHUB_ACTIONS=true\nGITHUB_REF_NAME=main\nGITHUB_EVENT_PATH=" + file
	for _, text := range []string{"", "[]", `{"repository": 3}`} {
		if text != "" {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := environment.FromCI(variables(lines)); err == nil || !strings.Contains(err.Error(), "GITHUB_EVENT_PATH") {
			t.Errorf("%q: got %v", text, err)
		}
	}
}
