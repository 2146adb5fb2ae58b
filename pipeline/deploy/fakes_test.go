package deploy

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	apps "k8s.io/api/apps/v1"
	authorization "k8s.io/api/authorization/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// gitlabState is GitLab's HTTP backend: it locks by ID, writes only for the lock's
// holder, and asks who it is.
type gitlabState struct {
	*httptest.Server
	mu     sync.Mutex
	state  []byte
	lock   *Lock
	refuse int // status for everyone
	// failWrites is how many writes of the state fail from now on.
	failWrites int
	waiting    chan struct{}
}

func newState(t *testing.T) *gitlabState {
	t.Helper()
	s := &gitlabState{waiting: make(chan struct{}, 100)}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *gitlabState) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	user, password, _ := r.BasicAuth()
	if s.refuse != 0 {
		w.WriteHeader(s.refuse)
		return
	}
	if user != "gitlab-ci-token" || password != "job" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	held := func() { // as GitLab answers
		w.WriteHeader(http.StatusLocked)
		_ = json.NewEncoder(w).Encode(s.lock)
		select {
		case s.waiting <- struct{}{}:
		default:
		}
	}
	var said Lock
	_ = json.Unmarshal(body, &said)
	if strings.HasSuffix(r.URL.Path, "/lock") {
		switch id := r.URL.Query().Get("ID") + said.ID; {
		case r.Method == http.MethodPost && s.lock != nil:
			held()
		case r.Method == http.MethodPost:
			s.lock = &said
		case s.lock != nil && id != "" && !strings.Contains(id, s.lock.ID):
			w.WriteHeader(http.StatusConflict)
		default:
			s.lock = nil
		}
		return
	}
	switch {
	case r.Method == http.MethodGet && s.state == nil:
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodGet:
		_, _ = w.Write(s.state)
	case r.Method == http.MethodDelete:
		s.state = nil
	case s.lock != nil && r.URL.Query().Get("ID") != s.lock.ID:
		held()
	case s.failWrites > 0:
		s.failWrites--
		w.WriteHeader(http.StatusInternalServerError)
	default:
		s.state = body
	}
}

func (s *gitlabState) holder() *Lock {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lock
}

func (s *gitlabState) written() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state != nil
}

// apiServer answers what a deployment asks of Kubernetes, and checks it.
type apiServer struct {
	*httptest.Server
	mu         sync.Mutex
	asked      []authorization.ResourceAttributes
	forbid     string // a verb
	token      string // that it accepts
	deployment apps.Deployment
	pods       core.PodList
	events     core.EventList
	log        string
}

func newAPI(t *testing.T) *apiServer {
	t.Helper()
	one := int32(1)
	s := &apiServer{token: "job", deployment: apps.Deployment{
		ObjectMeta: meta.ObjectMeta{Name: "demo"},
		Spec:       apps.DeploymentSpec{Replicas: &one, Selector: &meta.LabelSelector{MatchLabels: map[string]string{"app": "demo"}}},
		Status:     apps.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1},
	}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *apiServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if r.Header.Get("Authorization") != "Bearer "+s.token {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Unauthorized","code":401,"message":"Unauthorized"}`)
		return
	}
	var answer any
	const namespace = "/namespaces/attic-cache-staging/"
	switch {
	case r.URL.Path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
		var review authorization.SelfSubjectAccessReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		asked := *review.Spec.ResourceAttributes
		s.asked = append(s.asked, asked)
		review.Status.Allowed = asked.Verb != s.forbid
		answer = review
	case r.URL.Path == "/apis/apps/v1"+namespace+"deployments/demo":
		answer = s.deployment
	case r.URL.Path == "/api/v1"+namespace+"pods" && r.URL.Query().Get("labelSelector") == "app=demo":
		answer = s.pods
	case r.URL.Path == "/api/v1"+namespace+"events":
		answer = s.events
	case strings.HasPrefix(r.URL.Path, "/api/v1"+namespace+"pods/") && strings.HasSuffix(r.URL.Path, "/log"):
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, s.log)
		return
	default:
		w.WriteHeader(http.StatusNotFound)
		answer = meta.Status{TypeMeta: meta.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: meta.StatusReasonNotFound, Code: 404, Message: r.URL.Path}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// connectTo is for Options.
func connectTo(url string) func(string) (kubernetes.Interface, error) {
	return func(string) (kubernetes.Interface, error) {
		return kubernetes.NewForConfig(&rest.Config{Host: url, BearerToken: "job", ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	}
}

// needTofu is OpenTofu as the scripts of deploy/tofu take it.
func needTofu(t *testing.T) string {
	t.Helper()
	if program := os.Getenv("TOFU"); program != "" {
		return program
	}
	tofu, err := lookPath("tofu")
	if err != nil {
		t.Skip("OpenTofu is not installed: set TOFU to the program")
	}
	return tofu
}
