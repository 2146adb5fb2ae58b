package environment

import (
	"encoding/json"
	"fmt"
	"os"
)

// githubEvent is the part that is used of the file at GITHUB_EVENT_PATH: the
// body of the webhook that started the workflow.
type githubEvent struct {
	Repository struct {
		DefaultBranch string `json:"default_branch"`
	} `json:"repository"`
	PullRequest struct {
		Head struct {
			Repo struct {
				FullName string `json:"full_name"`
			} `json:"repo"`
		} `json:"head"`
	} `json:"pull_request"`
}

// FromGitHub reads the variables and the event of a GitHub job:
// https://docs.github.com/en/actions/reference/workflows-and-actions/variables.
// The default branch is known only where the event names it. The error is
// ErrNoCI where the variables are missing.
func FromGitHub(getenv func(string) string) (Facts, error) {
	event, err := readGitHubEvent(getenv("GITHUB_EVENT_PATH"))
	if err != nil {
		return Facts{}, err
	}
	f := Facts{
		DefaultBranch: event.Repository.DefaultBranch,
		Scheduled:     getenv("GITHUB_EVENT_NAME") == "schedule",
	}
	switch {
	// Set for pull requests only, whose GITHUB_REF_NAME is "7/merge".
	case getenv("GITHUB_HEAD_REF") != "":
		f.MergeRequest, f.Branch = true, getenv("GITHUB_HEAD_REF")
		if getenv("GITHUB_EVENT_PATH") != "" {
			f.Fork = fork(event.PullRequest.Head.Repo.FullName, getenv("GITHUB_REPOSITORY"))
		}
	case getenv("GITHUB_REF_TYPE") == "tag":
		f.Tag = getenv("GITHUB_REF_NAME")
	default:
		f.Branch = getenv("GITHUB_REF_NAME")
	}
	if f.Branch == "" && f.Tag == "" {
		return Facts{}, ErrNoCI
	}
	return f, nil
}

func readGitHubEvent(file string) (event githubEvent, err error) {
	if file == "" {
		return event, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return event, fmt.Errorf("GITHUB_EVENT_PATH: %w", err)
	}
	if err := json.Unmarshal(text, &event); err != nil {
		return event, fmt.Errorf("GITHUB_EVENT_PATH: %s: %w", file, err)
	}
	return event, nil
}
