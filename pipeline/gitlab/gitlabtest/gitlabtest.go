// Package gitlabtest is a GitLab for tests: as much of its API as the pipeline uses
// for projects and merge requests. It refuses what GitLab refuses, by a token's
// scopes and its user's role, and keeps what no client of ours should have sent.
package gitlabtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Roles that a user may have in all projects.
// https://docs.gitlab.com/api/members/#roles
const (
	Reporter   = 20
	Developer  = 30
	Maintainer = 40
)

// Token is an access token and whose it is.
type Token struct {
	User   int
	Role   int
	Scopes []string
	// Refused is GitLab's word for a token that is no more: expired or revoked.
	Refused string
}

// Project is one that all users see.
type Project struct {
	ID           int
	Archived     bool
	NoJobs       bool
	NoGroup      bool       // it takes no group runners
	GroupRunners [][]string // tags of each that is online
}

// Note is one on a merge request.
type Note struct {
	ID     int
	Author int // a user
	Body   string
}

// Contents are what a GitLab has when it starts.
type Contents struct {
	Tokens   map[string]Token
	Projects map[string]Project // by path
	// PageSize bounds pages below what a client asks for; 0: it does not.
	PageSize int
}

// Server is a GitLab.
type Server struct {
	*httptest.Server
	has Contents

	mu     sync.Mutex
	notes  map[string][]Note // by project and merge request
	sent   []string
	faults []string
}

// New starts a server, to be closed. It takes its contents at once, since whoever
// asks may be another process, whose requests the race detector sees no cause of.
func New(has Contents) *Server {
	s := &Server{has: has, notes: map[string][]Note{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	return s
}

// AddNote puts a note of a user on a merge request.
func (s *Server) AddNote(project string, mergeRequest, author int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addNote(key(project, mergeRequest), author, body)
}

func (s *Server) addNote(of string, author int, body string) Note {
	n := Note{ID: 100 + len(s.notes[of]), Author: author, Body: body}
	s.notes[of] = append(s.notes[of], n)
	return n
}

// Notes are those on a merge request, the oldest first.
func (s *Server) Notes(project string, mergeRequest int) []Note {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.notes[key(project, mergeRequest)])
}

// Sent are the requests that change something, as METHOD PATH.
func (s *Server) Sent() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sent)
}

// Faults are what was asked and is no request of GitLab's API, or not one that a
// client of ours should send.
func (s *Server) Faults() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.faults)
}

func key(project string, mergeRequest int) string { return fmt.Sprintf("%s!%d", project, mergeRequest) }

// request is one with what it was found to be about.
type request struct {
	r       *http.Request
	w       http.ResponseWriter
	token   Token
	path    string // of the project
	project Project
	rest    []string // of the URL's path
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	q := request{r: r, w: w}
	var known bool
	switch q.token, known = s.has.Tokens[r.Header.Get("Private-Token")]; {
	case !known:
		q.refuse(http.StatusUnauthorized, "message", "401 Unauthorized")
		return
	case q.token.Refused == "expired":
		q.refuse(http.StatusUnauthorized, "error", "invalid_token", "error_description", "Token is expired. You can either do re-authorization or token refresh.")
		return
	case q.token.Refused != "":
		q.refuse(http.StatusUnauthorized, "error", "invalid_token", "error_description", "Token was revoked. You have to re-authorize from the user.")
		return
	case !slices.Contains(q.token.Scopes, "api") && (r.Method != http.MethodGet || !slices.Contains(q.token.Scopes, "read_api")):
		q.refuse(http.StatusForbidden, "error", "insufficient_scope", "error_description", "The request requires higher privileges than provided by the access token.", "scope", "api")
		return
	}
	if r.Method != http.MethodGet {
		s.sent = append(s.sent, r.Method+" "+r.URL.EscapedPath())
	}
	// A path of a project is one part, with its slashes escaped.
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/api/v4/"), "/")
	if len(parts) < 2 || parts[0] != "projects" {
		s.fault(q, "no route")
		return
	}
	name, err := url.PathUnescape(parts[1])
	if err != nil {
		s.fault(q, err.Error())
		return
	}
	for path, p := range s.has.Projects {
		if path == name || strconv.Itoa(p.ID) == name {
			q.path, q.project = path, p
		}
	}
	if q.path == "" {
		q.refuse(http.StatusNotFound, "message", "404 Project Not Found")
		return
	}
	q.rest = parts[2:]
	switch {
	case len(q.rest) == 0 && r.Method == http.MethodGet:
		q.answer(http.StatusOK, map[string]any{
			"id": q.project.ID, "path_with_namespace": q.path, "archived": q.project.Archived, "group_runners_enabled": !q.project.NoGroup,
			"builds_access_level": map[bool]string{false: "enabled", true: "disabled"}[q.project.NoJobs],
		})
	case len(q.rest) == 1 && q.rest[0] == "runners" && r.Method == http.MethodGet:
		s.runners(q)
	case len(q.rest) >= 3 && q.rest[0] == "merge_requests" && q.rest[2] == "notes":
		s.mergeRequestNotes(q)
	default:
		s.fault(q, "no route")
	}
}

// runners lists those that a project may use, without their tags, as GitLab does.
// https://docs.gitlab.com/api/runners/#list-projects-runners
func (s *Server) runners(q request) {
	query := q.r.URL.Query()
	if query.Get("status") != "online" || query.Get("paused") != "false" || query.Get("tag_list") == "" {
		s.fault(q, "want those with tags that are online and not paused")
		return
	}
	if q.token.Role < Maintainer {
		q.refuse(http.StatusForbidden, "message", "403 Forbidden")
		return
	}
	found := []map[string]any{}
	for i, tags := range q.project.GroupRunners {
		lacks := slices.ContainsFunc(strings.Split(query.Get("tag_list"), ","), func(tag string) bool { return !slices.Contains(tags, tag) })
		if !q.project.NoGroup && !lacks {
			found = append(found, map[string]any{"id": i + 1, "status": "online", "runner_type": "group_type"})
		}
	}
	q.answer(http.StatusOK, found)
}

// mergeRequestNotes lists, creates and changes notes. Only their authors, and
// maintainers, change them. https://docs.gitlab.com/api/notes/#merge-requests
func (s *Server) mergeRequestNotes(q request) {
	number, err := strconv.Atoi(q.rest[1])
	if err != nil || number <= 0 {
		s.fault(q, "no merge request")
		return
	}
	of := key(q.path, number)
	if q.token.Role < Reporter {
		q.refuse(http.StatusForbidden, "message", "403 Forbidden")
		return
	}
	if q.r.Method == http.MethodGet && len(q.rest) == 3 {
		s.page(q, s.notes[of])
		return
	}
	var sent struct {
		Body string `json:"body"`
	}
	if err := json.NewDecoder(q.r.Body).Decode(&sent); err != nil || sent.Body == "" {
		s.fault(q, "a note without a body")
		return
	}
	switch {
	case q.r.Method == http.MethodPost && len(q.rest) == 3:
		n := s.addNote(of, q.token.User, sent.Body)
		q.answer(http.StatusCreated, map[string]any{"id": n.ID, "body": n.Body})
	case q.r.Method == http.MethodPut && len(q.rest) == 4:
		i := slices.IndexFunc(s.notes[of], func(n Note) bool { return strconv.Itoa(n.ID) == q.rest[3] })
		switch {
		case i < 0:
			q.refuse(http.StatusNotFound, "message", "404 Note Not Found")
		case s.notes[of][i].Author != q.token.User && q.token.Role < Maintainer:
			q.refuse(http.StatusForbidden, "message", "403 Forbidden")
		default:
			s.notes[of][i].Body = sent.Body
			q.answer(http.StatusOK, map[string]any{"id": s.notes[of][i].ID, "body": sent.Body})
		}
	default:
		s.fault(q, "no route")
	}
}

// page answers with a page of notes, the newest first, as is GitLab's default.
func (s *Server) page(q request, notes []Note) {
	number := func(name string, otherwise int) int {
		n, err := strconv.Atoi(q.r.URL.Query().Get(name))
		if err != nil || n < 1 {
			return otherwise
		}
		return n
	}
	size, page := min(number("per_page", 20), cmp.Or(s.has.PageSize, 100)), number("page", 1)
	all := []map[string]any{}
	for _, n := range slices.Backward(notes) {
		all = append(all, map[string]any{"id": n.ID, "body": n.Body, "author": map[string]any{"id": n.Author}})
	}
	from, to := min((page-1)*size, len(all)), min(page*size, len(all))
	if to < len(all) {
		q.w.Header().Set("X-Next-Page", strconv.Itoa(page+1))
	}
	q.answer(http.StatusOK, all[from:to])
}

// fault keeps what should not have been asked, and answers so that no client takes
// it for an end, or tries again.
func (s *Server) fault(q request, why string) {
	s.faults = append(s.faults, fmt.Sprintf("%s %s: %s", q.r.Method, q.r.URL, why))
	q.refuse(http.StatusTeapot, "message", why)
}

// refuse answers with an object of these names and values.
func (q request) refuse(status int, pairs ...string) {
	object := map[string]string{}
	for pair := range slices.Chunk(pairs, 2) {
		object[pair[0]] = pair[1]
	}
	q.answer(status, object)
}

func (q request) answer(status int, what any) {
	q.w.WriteHeader(status)
	_ = json.NewEncoder(q.w).Encode(what) // a client that is gone misses nothing
}
