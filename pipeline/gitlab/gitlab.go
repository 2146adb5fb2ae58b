// Package gitlab is all that the pipeline asks of GitLab's API. The library behind
// it is frozen; nothing else may import it, so that another can take its place.
package gitlab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	api "github.com/xanzy/go-gitlab"
)

// requestTime bounds one request.
const requestTime = 30 * time.Second

// pageSize is GitLab's largest.
const pageSize = 100

// What a token needs, by what is done with it.
const (
	needsRunners = "the scopes create_runner and manage_runner (or api), and the role Owner of the group or Maintainer of the project"
	needsProject = "the scope read_api (or api)"
	needsOnline  = "the scope read_api (or api), and the role Maintainer of the project"
	needsNote    = "the scope api, and the role Reporter of the project"
)

// Error is an answer that is not a success.
type Error struct {
	Doing  string
	Status int
	Reason string // GitLab's own words
	Needs  string // what a token needs for it
}

func (e *Error) Error() string {
	text := fmt.Sprintf("GitLab: %s: HTTP %d", e.Doing, e.Status)
	switch {
	case e.Status == http.StatusUnauthorized && strings.Contains(e.Reason, "expired"):
		return text + ": the token has expired: make another"
	case e.Status == http.StatusUnauthorized && strings.Contains(e.Reason, "revoked"):
		return text + ": the token was revoked: make another"
	case e.Status == http.StatusUnauthorized:
		return text + ": the token is not accepted: it has expired or was revoked"
	case e.Status == http.StatusForbidden:
		return text + ": the token may not do this: it needs " + e.Needs
	case e.Status == http.StatusNotFound:
		return text + ": there is none, or the token may not see it"
	}
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

// Client asks one GitLab. Its methods may be called at the same time.
type Client struct {
	api *api.Client
}

// New returns a client of the GitLab at base, such as https://gitlab.example.org,
// which shows a personal, project or group access token. Nothing is asked yet.
func New(base, token string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("the GitLab %q: want https://HOST", base)
	}
	c, err := api.NewClient(token, api.WithBaseURL(base), api.WithHTTPClient(&http.Client{Timeout: requestTime}), api.WithCustomRetryMax(3))
	if err != nil {
		return nil, fmt.Errorf("the GitLab %s: %w", base, err)
	}
	return &Client{c}, nil
}

// Owner is whom runners belong to: a group or a project, by number. One is 0.
type Owner struct{ Group, Project int }

func (o Owner) String() string {
	if o.Group != 0 {
		return fmt.Sprintf("group %d", o.Group)
	}
	return fmt.Sprintf("project %d", o.Project)
}

// Spec is what a runner is to be like.
type Spec struct {
	Description string
	Tags        []string
	Untagged    bool   // it takes jobs without tags
	Protected   bool   // it takes jobs of protected refs only
	Timeout     int    // of a job, in seconds; 0: the project's
	Note        string // by which it is known again
}

// Runner is one that GitLab knows.
type Runner struct {
	Spec
	ID        int
	Status    string    // online, offline, stale or never_contacted
	Paused    bool      // it is given no jobs
	Contacted time.Time // when it last asked for jobs; zero: never
}

// NewRunner is one that was just created: the only time that its token is told.
type NewRunner struct {
	ID      int
	Token   string
	Expires time.Time // zero: never
}

// fault makes an error of what the library returns.
func fault(ctx context.Context, doing, needs string, err error) error {
	var answer *api.ErrorResponse
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, api.ErrNotFound):
		return &Error{Doing: doing, Status: http.StatusNotFound, Needs: needs}
	case errors.As(err, &answer) && answer.Response != nil:
		return &Error{doing, answer.Response.StatusCode, answer.Message, needs}
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	return fmt.Errorf("GitLab: %s: %w", doing, err)
}

// Runners returns the owner's own runners, without those of groups above it.
func (c *Client) Runners(ctx context.Context, of Owner) ([]Runner, error) {
	doing := "listing the runners of " + of.String()
	var ids []int
	page := api.ListOptions{PerPage: pageSize, Page: 1}
	for page.Page != 0 {
		var found []*api.Runner
		var resp *api.Response
		var err error
		if of.Group != 0 {
			found, resp, err = c.api.Runners.ListGroupsRunners(of.Group, &api.ListGroupsRunnersOptions{ListOptions: page, Type: api.Ptr("group_type")}, api.WithContext(ctx))
		} else {
			found, resp, err = c.api.Runners.ListProjectRunners(of.Project, &api.ListProjectRunnersOptions{ListOptions: page, Type: api.Ptr("project_type")}, api.WithContext(ctx))
		}
		if err != nil {
			return nil, fault(ctx, doing, needsRunners, err)
		}
		for _, r := range found {
			ids = append(ids, r.ID)
		}
		page.Page = resp.NextPage
	}
	runners := make([]Runner, 0, len(ids))
	for _, id := range ids {
		d, _, err := c.api.Runners.GetRunnerDetails(id, api.WithContext(ctx))
		if errors.Is(err, api.ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fault(ctx, fmt.Sprintf("looking at runner %d", id), needsRunners, err)
		}
		r := Runner{ID: id, Status: d.Status, Paused: d.Paused, Spec: Spec{
			Description: d.Description, Tags: d.TagList, Untagged: d.RunUntagged,
			Protected: d.AccessLevel == "ref_protected", Timeout: d.MaximumTimeout, Note: d.MaintenanceNote,
		}}
		if d.ContactedAt != nil {
			r.Contacted = *d.ContactedAt
		}
		runners = append(runners, r)
	}
	return runners, nil
}

func accessLevel(s Spec) *string {
	if s.Protected {
		return api.Ptr("ref_protected")
	}
	return api.Ptr("not_protected")
}

// CreateRunner makes a runner. Its token is in the answer, and nowhere else.
func (c *Client) CreateRunner(ctx context.Context, of Owner, s Spec) (NewRunner, error) {
	o := &api.CreateUserRunnerOptions{
		Description: &s.Description, TagList: &s.Tags, RunUntagged: &s.Untagged, AccessLevel: accessLevel(s), MaintenanceNote: &s.Note,
	}
	if of.Group != 0 {
		o.RunnerType, o.GroupID = api.Ptr("group_type"), &of.Group
	} else {
		o.RunnerType, o.ProjectID = api.Ptr("project_type"), &of.Project
	}
	if s.Timeout > 0 {
		o.MaximumTimeout = &s.Timeout
	}
	made, _, err := c.api.Users.CreateUserRunner(o, api.WithContext(ctx))
	if err != nil {
		return NewRunner{}, fault(ctx, "creating the runner "+s.Description, needsRunners, err)
	}
	r := NewRunner{ID: made.ID, Token: made.Token}
	if made.TokenExpiresAt != nil {
		r.Expires = *made.TokenExpiresAt
	}
	return r, nil
}

// UpdateRunner makes a runner what it is to be like.
func (c *Client) UpdateRunner(ctx context.Context, id int, s Spec) error {
	o := &api.UpdateRunnerDetailsOptions{
		Description: &s.Description, TagList: &s.Tags, RunUntagged: &s.Untagged, AccessLevel: accessLevel(s), MaintenanceNote: &s.Note,
	}
	if s.Timeout > 0 {
		o.MaximumTimeout = &s.Timeout
	}
	_, _, err := c.api.Runners.UpdateRunnerDetails(id, o, api.WithContext(ctx))
	return fault(ctx, fmt.Sprintf("changing runner %d", id), needsRunners, err)
}

// RemoveRunner deletes a runner. One that is gone is no error.
func (c *Client) RemoveRunner(ctx context.Context, id int) error {
	_, err := c.api.Runners.RemoveRunner(id, api.WithContext(ctx))
	if errors.Is(err, api.ErrNotFound) {
		return nil
	}
	return fault(ctx, fmt.Sprintf("removing runner %d", id), needsRunners, err)
}

// Project is what enrolling looks at.
type Project struct {
	ID           int
	Path         string
	Archived     bool // it runs no jobs any more
	Jobs         bool // CI/CD is on
	GroupRunners bool // it takes the group's runners
}

// Project finds a project by its path or number.
func (c *Client) Project(ctx context.Context, path string) (Project, error) {
	p, _, err := c.api.Projects.GetProject(path, nil, api.WithContext(ctx))
	if err != nil {
		return Project{}, fault(ctx, "looking at the project "+path, needsProject, err)
	}
	return Project{
		ID: p.ID, Path: p.PathWithNamespace, Archived: p.Archived,
		Jobs: p.BuildsAccessLevel != api.DisabledAccessControl, GroupRunners: p.GroupRunnersEnabled,
	}, nil
}

// Online says whether a runner is there, for a job of the project, that has all of
// the tags. GitLab is asked for runners by their tags: it tells the tags of a
// group's runner to the group's owners only.
func (c *Client) Online(ctx context.Context, project Project, tags []string) (bool, error) {
	found, _, err := c.api.Runners.ListProjectRunners(project.ID, &api.ListProjectRunnersOptions{
		ListOptions: api.ListOptions{PerPage: 1}, Status: api.Ptr("online"), Paused: api.Ptr(false), TagList: &tags,
	}, api.WithContext(ctx))
	return len(found) > 0, fault(ctx, "listing the runners of "+project.Path, needsOnline, err)
}

// Note writes a note on a merge request, or changes the one that has the same
// mark, which is not shown. One of another user, such as of a token that was
// replaced since, is left alone where it cannot be changed.
func (c *Client) Note(ctx context.Context, project string, mergeRequest int, mark, text string) error {
	mark = "<!-- " + mark + " -->"
	text = mark + "\n" + text
	doing := fmt.Sprintf("writing a note on merge request !%d of %s", mergeRequest, project)
	options := &api.ListMergeRequestNotesOptions{ListOptions: api.ListOptions{PerPage: pageSize, Page: 1}}
	for options.Page != 0 {
		notes, resp, err := c.api.Notes.ListMergeRequestNotes(project, mergeRequest, options, api.WithContext(ctx))
		if err != nil {
			return fault(ctx, doing, needsNote, err)
		}
		for _, n := range notes {
			if !strings.HasPrefix(n.Body, mark) {
				continue
			}
			_, _, err := c.api.Notes.UpdateMergeRequestNote(project, mergeRequest, n.ID, &api.UpdateMergeRequestNoteOptions{Body: &text}, api.WithContext(ctx))
			var answer *api.ErrorResponse
			if errors.As(err, &answer) && answer.Response != nil && answer.Response.StatusCode == http.StatusForbidden {
				continue
			}
			return fault(ctx, doing, needsNote, err)
		}
		options.Page = resp.NextPage
	}
	_, _, err := c.api.Notes.CreateMergeRequestNote(project, mergeRequest, &api.CreateMergeRequestNoteOptions{Body: &text}, api.WithContext(ctx))
	return fault(ctx, doing, needsNote, err)
}
