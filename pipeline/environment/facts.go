package environment

import (
	"errors"
	"fmt"
	"regexp"
)

// Facts are what a CI job knows of the ref that it runs for.
type Facts struct {
	MergeRequest bool
	Fork         string // project of a merge request's branch, where it is another than this one
	Branch       string // of a merge request its source
	Tag          string
	// DefaultBranch is needed for a branch without a merge request.
	DefaultBranch string
	// Slug is GitLab's CI_COMMIT_REF_SLUG; made from the branch when empty.
	Slug      string
	Scheduled bool // the pipeline was started by a schedule
}

// ErrNoCI is returned where no CI says what the ref is.
var ErrNoCI = errors.New("this is no job of GitLab or GitHub that says which ref it is for")

// OfBranch are the facts of a branch without a merge request.
func OfBranch(branch, defaultBranch string) Facts {
	return Facts{Branch: branch, DefaultBranch: defaultBranch}
}

// OfMergeRequest are the facts of a merge request from a branch of this project.
func OfMergeRequest(branch string) Facts { return Facts{MergeRequest: true, Branch: branch} }

// OfTag are the facts of a tag.
func OfTag(tag string) Facts { return Facts{Tag: tag} }

// FromCI reads what the CI service says that this process runs in. The error is
// ErrNoCI where it runs in none.
func FromCI(getenv func(string) string) (Facts, error) {
	// GitHub first: it always names itself, while GITLAB_CI cannot be relied
	// upon, gitlab-ci-local sets it to "false".
	if getenv("GITHUB_ACTIONS") == "true" {
		return FromGitHub(getenv)
	}
	return FromGitLab(getenv)
}

// fork returns the project of a merge request's branch if it is not its target.
// CI names no source once that was deleted.
func fork(source, target string) string {
	switch source {
	case target:
		return ""
	case "":
		return "one that was deleted"
	}
	return source
}

// String names the ref.
func (f Facts) String() string {
	switch {
	case f.MergeRequest:
		return fmt.Sprintf("merge request of branch %q", f.Branch)
	case f.Tag != "":
		return fmt.Sprintf("tag %q", f.Tag)
	}
	return fmt.Sprintf("branch %q", f.Branch)
}

var slugPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// refSlug returns the slug that GitLab gave, or would give. It may be empty.
func (f Facts) refSlug() (string, error) {
	if f.Slug == "" {
		return RefSlug(f.Branch), nil
	}
	if !slugPattern.MatchString(f.Slug) {
		return "", fmt.Errorf("slug %q of %v: want at most 63 of a-z, 0-9 and -, with no - at the ends", f.Slug, f)
	}
	return f.Slug, nil
}
