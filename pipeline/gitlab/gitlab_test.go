package gitlab

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// serve answers by method and path, and keeps what was sent.
func serve(t *testing.T, answers map[string]any) (*Client, *[]string) {
	t.Helper()
	var sent []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Body string }
		_ = json.NewDecoder(r.Body).Decode(&body)
		call := r.Method + " " + strings.TrimPrefix(r.URL.EscapedPath(), "/api/v4")
		if page := r.URL.Query().Get("page"); page != "" && page != "1" {
			call += " " + page
		}
		sent = append(sent, strings.TrimSpace(call+" "+body.Body))
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
	return c, &sent
}

type object map[string]any

// A merge request has one note of ours, whatever page it is on.
func TestANoteIsWrittenOnce(t *testing.T) {
	t.Parallel()
	const notes = "/projects/g%2Fapp/merge_requests/7/notes"
	c, sent := serve(t, map[string]any{"GET " + notes: []object{}, "POST " + notes: object{"id": 1}})
	if err := c.Note(t.Context(), "g/app", 7, "plan", "text"); err != nil || !strings.HasPrefix((*sent)[1], "POST "+notes+" <!-- plan -->\ntext") {
		t.Errorf("%v: %v", *sent, err)
	}
	c, sent = serve(t, map[string]any{
		"GET " + notes: []object{{"id": 1, "body": "another's"}}, "GET " + notes + " 2": []object{{"id": 5, "body": "<!-- plan -->\nold"}},
		"PUT " + notes + "/5": object{"id": 5},
	})
	if err := c.Note(t.Context(), "g/app", 7, "plan", "new"); err != nil || (*sent)[len(*sent)-1] != "PUT "+notes+"/5 <!-- plan -->\nnew" {
		t.Errorf("%v: %v", *sent, err)
	}
}

func TestRunnersOfAllPages(t *testing.T) {
	t.Parallel()
	answers := map[string]any{"GET /projects/3/runners": []object{{"id": 1}}, "GET /projects/3/runners 2": []object{{"id": 2}, {"id": 3}}}
	for _, id := range []int{1, 2} { // 3 is removed between the two questions
		answers[fmt.Sprintf("GET /runners/%d", id)] = object{"id": id, "access_level": "ref_protected", "tag_list": []string{"nix"}}
	}
	c, _ := serve(t, answers)
	found, err := c.Runners(t.Context(), Owner{Project: 3})
	if err != nil || len(found) != 2 || found[1].ID != 2 || !found[1].Protected || !slices.Equal(found[1].Tags, []string{"nix"}) {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestProjects(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, map[string]any{"GET /projects/g%2Fapp": object{"id": 3, "path_with_namespace": "g/app", "builds_access_level": "disabled", "group_runners_enabled": true}})
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
