package environment

import "cmp"

// FromGitLab reads the predefined variables of a GitLab job:
// https://docs.gitlab.com/ci/variables/predefined_variables. The error is
// ErrNoCI where they are missing. They hold for a stop job too, which runs after
// its branch is gone.
func FromGitLab(getenv func(string) string) (Facts, error) {
	f := Facts{
		DefaultBranch: getenv("CI_DEFAULT_BRANCH"),
		Scheduled:     getenv("CI_PIPELINE_SOURCE") == "schedule",
		Slug:          getenv("CI_COMMIT_REF_SLUG"),
	}
	// CI_COMMIT_REF_NAME is the name of whatever the pipeline runs for; in a
	// pipeline of a merge request, its source branch.
	name := getenv("CI_COMMIT_REF_NAME")
	switch {
	// A child pipeline's source is parent_pipeline, but the variables of the
	// merge request are handed down to it.
	case getenv("CI_MERGE_REQUEST_IID") != "" || getenv("CI_PIPELINE_SOURCE") == "merge_request_event":
		f.MergeRequest = true
		f.Branch = cmp.Or(getenv("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME"), name)
		// The merge request's project is its target's, also when the pipeline
		// runs in the fork.
		if target := getenv("CI_MERGE_REQUEST_PROJECT_PATH"); target != "" {
			f.Fork = fork(getenv("CI_MERGE_REQUEST_SOURCE_PROJECT_PATH"), target)
		}
	case getenv("CI_COMMIT_TAG") != "":
		f.Tag = getenv("CI_COMMIT_TAG")
	default:
		f.Branch = cmp.Or(getenv("CI_COMMIT_BRANCH"), name)
	}
	if f.Branch == "" && f.Tag == "" {
		return Facts{}, ErrNoCI
	}
	return f, nil
}
