package credential

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const cache = "https://cache.example.org:8443/main"

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func env(pairs ...string) func(string) string {
	vars := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		vars[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return vars[name] }
}

func TestWhereTokensComeFrom(t *testing.T) {
	t.Parallel()
	entry := write(t, "machine other.example.org password wrong\nmachine cache.example.org login x password of-netrc\ndefault login me password mine\n")
	for name, tt := range map[string]struct {
		finder Finder
		cache  string
		want   string
		fails  string
	}{
		"nowhere":                    {want: ""},
		"a file first":               {finder: Finder{File: write(t, "of-file\n"), Getenv: env(TokenVariable, "of-variable")}, want: "of-file"},
		"then the variable":          {finder: Finder{NetrcFiles: []string{entry}, Getenv: env(TokenVariable, " of-variable\n")}, want: "of-variable"},
		"then netrc":                 {finder: Finder{NetrcFiles: []string{"/nowhere", entry}, Getenv: env(IDTokenVariable, "of-job")}, want: "of-netrc"},
		"then the job's own":         {finder: Finder{Getenv: env(IDTokenVariable, "of-job")}, want: "of-job"},
		"not netrc's default":        {finder: Finder{NetrcFiles: []string{entry}}, cache: "https://third.example.org", want: ""},
		"not for a store of files":   {finder: Finder{NetrcFiles: []string{entry}, Getenv: env(IDTokenVariable, "of-job")}, cache: "file:///cache", want: ""},
		"a file that is not there":   {finder: Finder{File: "/nowhere/token"}, fails: "reading the token"},
		"a file of something else":   {finder: Finder{File: write(t, "two words")}, fails: "nothing else"},
		"an empty file":              {finder: Finder{File: write(t, "\n")}, fails: "nothing else"},
		"a file that is much larger": {finder: Finder{File: write(t, strings.Repeat("x", maxToken+1))}, fails: "something else"},
	} {
		at := tt.cache
		if at == "" {
			at = cache
		}
		got, err := tt.finder.For(t.Context(), at)
		if got != tt.want || (err == nil) != (tt.fails == "") || (err != nil && !strings.Contains(err.Error(), tt.fails)) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, tt.want)
		}
	}
}

func TestGitHubMakesATokenForTheCache(t *testing.T) {
	t.Parallel()
	status := http.StatusOK
	github := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer request" || r.URL.Query().Get("api-version") != "2" {
			t.Errorf("asked with %q at %s", r.Header.Get("Authorization"), r.URL)
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"value":"for ` + r.URL.Query().Get("audience") + `"}`))
	}))
	defer github.Close()
	f := Finder{Getenv: env(githubURL, github.URL+"/token?api-version=2", githubToken, "request")}
	if got, err := f.For(t.Context(), cache); got != "for https://cache.example.org:8443" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	f.Audience = "nix"
	if got, err := f.For(t.Context(), cache); got != "for nix" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	status = http.StatusForbidden
	if got, err := f.For(t.Context(), cache); got != "" || err == nil || !strings.Contains(err.Error(), "HTTP 403") {
		t.Errorf("got %q, %v", got, err)
	}
}
