package bazel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/credential"
)

// given returns the flags that a command line was supplied with.
func given(t *testing.T, supplied []string) string {
	t.Helper()
	file, found := strings.CutPrefix(supplied[1], "--bazelrc=")
	if !found {
		t.Fatalf("no flags in %q", supplied)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheFirstCacheThatAnswersIsPutAround(t *testing.T) {
	t.Parallel()
	open := serve(t, cacheserver.Config{})
	closed, token := guarded(t)
	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const away = "http://127.0.0.1:1"
	for name, c := range map[string]struct {
		around Around
		flags  []string
		told   string
	}{
		"it answers":            {Around{Caches: []string{"http://" + open}}, []string{"--remote_cache=grpc://" + open, "--remote_download_toplevel"}, ""},
		"the second answers":    {Around{Caches: []string{away, "http://" + open}}, []string{"--remote_cache=grpc://" + open}, "the cache " + away + " does not answer"},
		"none answers":          {Around{Caches: []string{away}}, []string{"build --remote_cache=\n"}, "; bazel runs without the cache"},
		"none is named":         {Around{}, []string{"--remote_cache=grpc://127.0.0.1:"}, ""},
		"it wants a token":      {Around{Caches: []string{"http://" + closed + "/main"}}, []string{"build --remote_cache=\n"}, "wants a token: set ATTIC_TOKEN"},
		"it has one":            {Around{Caches: []string{"http://" + closed + "/main"}, Credentials: credential.Finder{File: secret}}, []string{"--remote_cache=grpc://" + closed, token}, ""},
		"the file is not there": {Around{Caches: []string{"http://" + open}, Credentials: credential.Finder{File: secret + "s"}}, []string{"build --remote_cache=\n"}, "reading the token"},
		"as was asked":          {Around{Caches: []string{"http://" + open}, Version: Version{7, 0}, Download: Minimal}, []string{"--remote_download_minimal", "--remote_cache_compression"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.around.Data = t.TempDir()
			var told []string
			supplied, end := c.around.Supply(t.Context(), []string{"bazel", "build", "//..."}, func(err error) { told = append(told, err.Error()) })
			text := given(t, supplied)
			for _, flag := range c.flags {
				if !strings.Contains(text, flag) {
					t.Errorf("no %q in\n%s", flag, text)
				}
			}
			if said := strings.Join(told, "\n"); !strings.Contains(said, c.told) || (c.told == "") != (said == "") || strings.Contains(said, token) {
				t.Errorf("it is told %q, want %q", said, c.told)
			}
			end()
			if _, err := os.Stat(strings.TrimPrefix(supplied[1], "--bazelrc=")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the flags are still there: %v", err)
			}
		})
	}
}

func TestACommandThatTakesNoFlagsRunsWithoutThem(t *testing.T) {
	t.Parallel()
	var told error
	args := []string{"bazel", "--ignore_all_rc_files", "build"}
	supplied, end := Around{Caches: []string{"http://" + serve(t, cacheserver.Config{})}}.Supply(t.Context(), args, func(err error) { told = err })
	end()
	if len(supplied) != len(args) || !errors.Is(told, ErrNoRC) {
		t.Errorf("%q, %v", supplied, told)
	}
}
