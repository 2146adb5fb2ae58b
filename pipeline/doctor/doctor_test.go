package doctor

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
)

const (
	testHash = "00000000000000000000000000000000"
	testPath = "/nix/store/" + testHash + "-x"
)

// cache is a cache of one path, which answers as it is told.
type cache struct {
	date   string // of every answer; empty for now
	info   string // nix-cache-info
	status int    // of everything, or 0
	nar    []byte // what is sent
	size   int64  // what the narinfo says
}

func (c cache) serve(t *testing.T) (url, key string) {
	t.Helper()
	secret, err := narinfo.GenerateKey("test-1")
	if err != nil {
		t.Fatal(err)
	}
	n := &narinfo.NarInfo{
		StorePath: testPath, URL: "nar/x.nar", Compression: "none", NarSize: c.size, FileSize: c.size,
		NarHash: sha256.Sum256([]byte("x")), FileHash: sha256.Sum256([]byte("contents")),
	}
	n.Signatures = []string{secret.Sign(n)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /nix-cache-info", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, c.info) })
	mux.HandleFunc("GET /"+testHash+".narinfo", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(n.Text()) })
	mux.HandleFunc("GET /nar/x.nar", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(c.nar) })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.date != "" {
			w.Header().Set("Date", c.date)
		}
		if c.status != 0 {
			http.Error(w, "out of order", c.status)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, secret.Public()
}

// look examines a cache without Nix, as its first word of each finding.
func look(t *testing.T, url, path string) map[string]Finding {
	t.Helper()
	e := &examination{Options: Options{Path: path, Tell: func(Finding) {}}, http: http.DefaultClient}
	e.lookAtCache(t.Context(), url)
	found := map[string]Finding{}
	for _, f := range e.findings {
		name, _, _ := strings.Cut(f.Name, " ")
		found[name] = f
		if f.Status == Problem && (f.Text == "" || len(f.Do) == 0) {
			t.Errorf("a problem without what to do: %+v", f)
		}
	}
	return found
}

func TestFaultsOfACacheAreTold(t *testing.T) {
	t.Parallel()
	const info = "StoreDir: /nix/store\n"
	for name, c := range map[string]struct {
		cache
		path, finding string
		status        Status
		text          string
	}{
		"another clock":     {cache: cache{info: info, date: time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)}, finding: "clock", status: Problem, text: "1h0m"},
		"the clock":         {cache: cache{info: info}, finding: "clock", status: OK, text: "no more than "},
		"a clock of no use": {cache: cache{info: info, date: "soon"}, finding: "clock", status: Skipped, text: "does not tell"},
		"a wrong token":     {cache: cache{status: http.StatusUnauthorized}, finding: "reach", status: Problem, text: "HTTP 401"},
		"a wrong name":      {cache: cache{status: http.StatusNotFound}, finding: "reach", status: Problem, text: "HTTP 404"},
		"a page":            {cache: cache{info: "<html>"}, finding: "reach", status: Problem, text: "names no store"},
		"a path it has not": {cache: cache{info: info}, path: "/nix/store/11111111111111111111111111111111-y", finding: "path", status: Problem, text: "does not have"},
		"a path":            {cache: cache{info: info, nar: []byte("contents"), size: 8}, path: testPath, finding: "fetch", status: OK, text: "8 B in"},
		"other bytes":       {cache: cache{info: info, nar: []byte("contempt"), size: 8}, path: testPath, finding: "fetch", status: Problem, text: "is not what its narinfo says"},
		"fewer bytes":       {cache: cache{info: info, nar: []byte("cont"), size: 8}, path: testPath, finding: "fetch", status: Problem, text: "4 bytes of 8"},
		"an unknown key":    {cache: cache{info: info, nar: []byte("contents"), size: 8}, path: testPath, finding: "signature", status: Problem, text: "by no key that is trusted"},
		"another server":    {cache: cache{info: info}, path: testPath, finding: "push", status: Skipped, text: "not one of this project's"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := c.serve(t)
			path := c.path
			if path == "" {
				path = testPath
			}
			got := look(t, url, path)[c.finding]
			if got.Status != c.status || !strings.Contains(got.Text, c.text) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// A Date is cut to whole seconds, which makes no clock wrong.
func TestClocksThatAreApart(t *testing.T) {
	t.Parallel()
	there := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for apart, want := range map[time.Duration]Finding{
		0: {Status: OK, Text: "no more than 1s"}, 1400 * time.Millisecond: {Status: OK, Text: "no more than 1s"},
		-skew: {Status: OK, Text: "no more than 30s"}, skew + time.Second: {Status: Problem, Text: "is 31s apart"}, -time.Hour: {Status: Problem, Text: "is 1h0m0s apart"},
	} {
		e := &examination{Options: Options{Tell: func(Finding) {}}}
		e.lookAtClock("http://cache", there.Format(http.TimeFormat), there.Add(apart))
		if len(e.findings) != 1 || e.findings[0].Status != want.Status || !strings.Contains(e.findings[0].Text, want.Text) {
			t.Errorf("%v: got %+v", apart, e.findings)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	found := look(t, "http://127.0.0.1:1", testPath)
	if f := found["reach"]; len(found) != 1 || f.Status != Problem || !strings.Contains(f.Text, "connection refused") {
		t.Errorf("got %+v", found)
	}
}

func TestGitLabIsLookedAtInItsJobsOnly(t *testing.T) {
	t.Parallel()
	forbidden := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(forbidden.Close)
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte("contexts: [{name: 'a/b:c'}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env          map[string]string
		agent, state Status
	}{
		"elsewhere":         {env: map[string]string{"KUBECONFIG": config}},
		"nothing set":       {env: map[string]string{"GITLAB_CI": "true"}, agent: Skipped, state: Skipped},
		"no such file":      {env: map[string]string{"GITLAB_CI": "true", "KUBECONFIG": config + "x"}, agent: Problem, state: Skipped},
		"a context wanted":  {env: map[string]string{"GITLAB_CI": "true", "KUBE_CONTEXT": "a/b:c"}, agent: Problem, state: Skipped},
		"another context":   {env: map[string]string{"GITLAB_CI": "true", "KUBECONFIG": config, "KUBE_CONTEXT": "x"}, agent: Problem, state: Skipped},
		"a state forbidden": {env: map[string]string{"GITLAB_CI": "true", "KUBECONFIG": config, "TF_HTTP_ADDRESS": forbidden.URL, "TF_HTTP_USERNAME": "u", "TF_HTTP_PASSWORD": "p"}, agent: OK, state: Problem},
		"no password":       {env: map[string]string{"GITLAB_CI": "true", "KUBECONFIG": config, "TF_HTTP_ADDRESS": forbidden.URL}, agent: OK, state: Problem},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &examination{Options: Options{Getenv: func(n string) string { return c.env[n] }, Tell: func(Finding) {}}, http: http.DefaultClient}
			e.lookAtGitLab(t.Context())
			status := func(name string) Status {
				i := slices.IndexFunc(e.findings, func(f Finding) bool { return f.Name == name })
				if i < 0 {
					return ""
				}
				return e.findings[i].Status
			}
			if status("agent") != c.agent || status("state") != c.state {
				t.Errorf("got %+v", e.findings)
			}
		})
	}
}
