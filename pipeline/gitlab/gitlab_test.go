package gitlab

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/gitlab/gitlabtest"
)

// serve answers by method and path.
func serve(t *testing.T, answers map[string]any) *Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := r.Method + " " + strings.TrimPrefix(r.URL.EscapedPath(), "/api/v4")
		if page := r.URL.Query().Get("page"); page != "" && page != "1" {
			call += " " + page
		}
		answer, ok := answers[call]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if _, more := answers[call+" 2"]; more {
			w.Header().Set("X-Next-Page", "2")
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(s.Close)
	c, err := New(s.URL, "token")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type object map[string]any

// gitLab starts one that has the project g/app, until the test ends.
func gitLab(t *testing.T, has gitlabtest.Contents) *gitlabtest.Server {
	t.Helper()
	if has.Projects == nil {
		has.Projects = map[string]gitlabtest.Project{"g/app": {ID: 3}}
	}
	s := gitlabtest.New(has)
	t.Cleanup(s.Close)
	return s
}

// writer may write notes, and no more.
func writer(user int) gitlabtest.Token {
	return gitlabtest.Token{User: user, Role: gitlabtest.Developer, Scopes: []string{"api"}}
}

// A merge request has one note of ours, whatever page it is on: pipelines would
// bury it in notes otherwise.
func TestANoteIsWrittenOnce(t *testing.T) {
	t.Parallel()
	s := gitLab(t, gitlabtest.Contents{Tokens: map[string]gitlabtest.Token{"token": writer(1)}, PageSize: 1})
	c, err := New(s.URL, "token")
	if err != nil {
		t.Fatal(err)
	}
	write := func(mark, text string) {
		t.Helper()
		if err := c.Note(t.Context(), "g/app", 7, mark, text); err != nil {
			t.Error(err)
		}
	}
	write("plan", "old")
	s.AddNote("g/app", 7, 2, "another's")
	s.AddNote("g/app", 7, 2, "> <!-- plan -->\nold\n\nwhy?")
	write("plan", "new")
	write("plan of another stack", "text")
	var bodies []string
	for _, n := range s.Notes("g/app", 7) {
		bodies = append(bodies, n.Body)
	}
	if want := []string{"<!-- plan -->\nnew", "another's", "> <!-- plan -->\nold\n\nwhy?", "<!-- plan of another stack -->\ntext"}; !slices.Equal(bodies, want) {
		t.Errorf("%q", bodies)
	}
	const notes = "/api/v4/projects/g%2Fapp/merge_requests/7/notes"
	if want := []string{"POST " + notes, "PUT " + notes + "/100", "POST " + notes}; !slices.Equal(s.Sent(), want) || len(s.Faults()) > 0 {
		t.Errorf("sent %q, faults %q", s.Sent(), s.Faults())
	}
}

// A project's access token that is made anew is another user's, who may not change
// what the one before wrote.
func TestTheNoteOfATokenBeforeDoesNotStopAnother(t *testing.T) {
	t.Parallel()
	s := gitLab(t, gitlabtest.Contents{Tokens: map[string]gitlabtest.Token{"token": writer(1)}})
	s.AddNote("g/app", 7, 2, "<!-- plan -->\ntheirs")
	c, err := New(s.URL, "token")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		if err := c.Note(t.Context(), "g/app", 7, "plan", text); err != nil {
			t.Error(err)
		}
	}
	if notes := s.Notes("g/app", 7); len(notes) != 2 || notes[0].Body != "<!-- plan -->\ntheirs" || notes[1].Body != "<!-- plan -->\ntwo" {
		t.Errorf("%+v", notes)
	}
}

// What a token lacks is said of what it was used for: not of runners where it
// writes notes.
func TestTokensThatAreRefused(t *testing.T) {
	t.Parallel()
	s := gitLab(t, gitlabtest.Contents{Tokens: map[string]gitlabtest.Token{
		"expired": {Refused: "expired"}, "revoked": {Refused: "revoked"},
		"reader": {Role: gitlabtest.Maintainer, Scopes: []string{"read_api"}}, "narrow": {Scopes: []string{"read_user"}},
		"developer": writer(1),
	}})
	note := func(c *Client) error { return c.Note(t.Context(), "g/app", 7, "plan", "text") }
	look := func(c *Client) error { _, err := c.Project(t.Context(), "g/app"); return err }
	online := func(c *Client) error {
		_, err := c.Online(t.Context(), Project{ID: 3, Path: "g/app"}, []string{"nix"})
		return err
	}
	for _, tt := range []struct {
		token string
		ask   func(*Client) error
		want  string
	}{
		{"expired", look, "looking at the project g/app: HTTP 401: the token has expired"},
		{"revoked", look, "looking at the project g/app: HTTP 401: the token was revoked"},
		{"unknown", look, "HTTP 401: the token is not accepted"},
		{"narrow", look, "HTTP 403: the token may not do this: it needs the scope read_api"},
		{"developer", online, "listing the runners of g/app: HTTP 403: the token may not do this: it needs the scope read_api (or api), and the role Maintainer of the project"},
		{"reader", note, "writing a note on merge request !7 of g/app: HTTP 403: the token may not do this: it needs the scope api, and the role Reporter"},
	} {
		c, err := New(s.URL, tt.token)
		if err != nil {
			t.Fatal(err)
		}
		if err := tt.ask(c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.token, err, tt.want)
		}
	}
	if len(s.Faults()) > 0 {
		t.Errorf("%q", s.Faults())
	}
}

// A job needs all of its tags on one runner.
func TestOnlineRunnersAreFoundByAllTheirTags(t *testing.T) {
	t.Parallel()
	s := gitLab(t, gitlabtest.Contents{
		Tokens:   map[string]gitlabtest.Token{"token": {Role: gitlabtest.Maintainer, Scopes: []string{"read_api"}}},
		Projects: map[string]gitlabtest.Project{"g/app": {ID: 3, GroupRunners: [][]string{{"nix", "flakes", "more"}, {"docker"}, {"linux"}}}},
	})
	c, err := New(s.URL, "token")
	if err != nil {
		t.Fatal(err)
	}
	for tags, want := range map[string]bool{"nix flakes": true, "docker": true, "docker linux": false, "rocky9": false} {
		got, err := c.Online(t.Context(), Project{ID: 3, Path: "g/app"}, strings.Fields(tags))
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", tags, got, err)
		}
	}
	if len(s.Faults()) > 0 {
		t.Errorf("%q", s.Faults())
	}
}

func TestRunnersOfAllPages(t *testing.T) {
	t.Parallel()
	answers := map[string]any{"GET /projects/3/runners": []object{{"id": 1}}, "GET /projects/3/runners 2": []object{{"id": 2}, {"id": 3}}}
	for _, id := range []int{1, 2} { // 3 is removed between the two questions
		answers[fmt.Sprintf("GET /runners/%d", id)] = object{"id": id, "access_level": "ref_protected", "tag_list": []string{"nix"}}
	}
	c := serve(t, answers)
	found, err := c.Runners(t.Context(), Owner{Project: 3})
	if err != nil || len(found) != 2 || found[1].ID != 2 || !found[1].Protected || !slices.Equal(found[1].Tags, []string{"nix"}) {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestProjects(t *testing.T) {
	t.Parallel()
	c := serve(t, map[string]any{"GET /projects/g%2Fapp": object{"id": 3, "path_with_namespace": "g/app", "builds_access_level": "disabled", "group_runners_enabled": true}})
	if p, err := c.Project(t.Context(), "g/app"); err != nil || p.Jobs || !p.GroupRunners || p.ID != 3 {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := c.Project(t.Context(), "g/none"); err == nil || !strings.Contains(err.Error(), "or the token may not see it") {
		t.Error(err)
	}
	if err := c.RemoveRunner(t.Context(), 9); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
	for _, bad := range []string{"", "gitlab.example.org", "ftp://x", "https://"} {
		if _, err := New(bad, ""); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
