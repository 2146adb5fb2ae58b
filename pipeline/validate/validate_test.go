package validate_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/credential"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/embedded"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/nixtest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/validate"
)

// tree makes a directory of files, given as names and texts.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// program writes a shell script that stands for a program.
func program(t *testing.T, script string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	nixtest.WriteProgram(t, file, "#!/bin/sh\n"+script)
	return file
}

func TestTheSourceDecidesWhatIsChecked(t *testing.T) {
	t.Parallel()
	const tag, module = `rule(name = "x", tags = ["flywheel-validate"])`, "# a module\n"
	for name, c := range map[string]struct {
		files map[string]string
		scan  bool
		want  []string
	}{
		"nothing":           {nil, false, []string{"flake", "tofu"}},
		"modules":           {map[string]string{"app/main.tf": module, "base/main.tf": module}, false, []string{"flake", "tofu fmt app", "tofu validate app", "tofu fmt base", "tofu validate base"}},
		"rules of Bazel":    {map[string]string{"WORKSPACE": "", "app/main.tf": module, "app/BUILD": tag}, false, []string{"flake", "bazel"}},
		"made by a macro":   {map[string]string{"MODULE.bazel": "", "rules/tofu.bzl": tag}, false, []string{"flake", "bazel"}},
		"other rules":       {map[string]string{"WORKSPACE.bazel": "", "app/BUILD.bazel": `rule(name = "x")`, "app/main.tf": module}, false, []string{"flake", "tofu fmt app", "tofu validate app"}},
		"Bazel's own links": {map[string]string{"WORKSPACE": "", "bazel-out/BUILD": tag, ".git/BUILD": tag}, false, []string{"flake", "tofu"}},
		"no workspace":      {map[string]string{"app/BUILD.bazel": tag}, false, []string{"flake", "tofu"}},
		"with scans":        {nil, true, []string{"flake", "tofu", "gosec", "gitleaks", "trivy"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tree(t, c.files)
			var got []string
			for _, check := range validate.Checks(t.Context(), validate.Options{Dir: dir, Tofu: program(t, ""), Scan: c.scan}) {
				got = append(got, check.Name)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestARootCalledAsBazelsLinksIsLookedInto(t *testing.T) {
	t.Parallel()
	parent := tree(t, map[string]string{"bazel-rules/WORKSPACE": "", "bazel-rules/BUILD": "flywheel-validate"})
	checks := validate.Checks(t.Context(), validate.Options{Dir: filepath.Join(parent, "bazel-rules")})
	if n := len(checks); n != 2 || checks[1].Name != "bazel" {
		t.Errorf("%d checks", n)
	}
}

func TestAllChecksRunEvenIfOneFails(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"a/main.tf": "# unformatted\n", "b/main.tf": "# invalid\n", "c/main.tf": "# good\n"})
	tofu := program(t, "case $1 in\nfmt) ! grep -q unformatted *.tf ;;\nvalidate) ! grep -q invalid *.tf ;;\nesac\n")
	var out bytes.Buffer
	results := check.Run(t.Context(), &out, validate.Checks(t.Context(), validate.Options{Dir: dir, Tofu: tofu}))
	var got []string
	for _, r := range results {
		got = append(got, r.Name+" "+string(r.Outcome))
	}
	want := []string{
		"flake skipped", "tofu fmt a failed", "tofu validate a passed", "tofu fmt b passed", "tofu validate b failed",
		"tofu fmt c passed", "tofu validate c passed",
	}
	if !slices.Equal(got, want) || results.OK() {
		t.Errorf("got %q, want %q\n%s", got, want, &out)
	}
}

// standIn is a Bazel that shows what it is given, and ends with a status.
const standIn = `
if [ "$1" = --version ]; then echo bazel 7.1.0; exit; fi
pwd | sed 's/^/in /'
rc=${1#--bazelrc=}
stat -c 'mode %a' "$rc"
echo "file $rc"
sed 's/^/rc /' "$rc"
shift
printf 'argument %s\n' "$@"
`

func TestBazelsRulesHaveTheRunsCache(t *testing.T) {
	t.Parallel()
	server, err := embedded.Start(t.Context(), cacheserver.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	remote := "rc build --remote_cache=grpc" + strings.TrimPrefix(server.URL, "http")
	token := filepath.Join(tree(t, map[string]string{"token": "very-secret\n"}), "token")
	const away = "http://127.0.0.1:1/main"
	for name, c := range map[string]struct {
		ends    string
		build   flywheel.Options
		outcome check.Outcome
		message string
		said    []string
	}{
		"the named cache":         {"exit 0", flywheel.Options{Caches: []string{server.URL + "/team"}}, check.Passed, "", []string{remote, "rc build --remote_instance_name=team", "rc build --remote_cache_compression", "mode 600"}},
		"one in this process":     {"exit 0", flywheel.Options{}, check.Passed, "", []string{"rc build --remote_cache=grpc://127.0.0.1:"}},
		"the first that is up":    {"exit 0", flywheel.Options{Caches: []string{away, server.URL}}, check.Passed, "", []string{remote, "the cache " + away + " does not answer"}},
		"a cache that is away":    {"exit 0", flywheel.Options{Caches: []string{away}}, check.Passed, "", []string{"rc build --remote_cache=\n", "runs without the cache"}},
		"what is no cache for it": {"exit 0", flywheel.Options{Caches: []string{"file:///srv/cache"}}, check.Passed, "", []string{"rc build --remote_cache=\n", "want http://HOST"}},
		"a token":                 {"exit 0", flywheel.Options{Caches: []string{server.URL}, Credentials: credential.Finder{File: token}}, check.Passed, "", []string{`rc build "--remote_header=Authorization=Bearer very-secret"`}},
		"a test that fails":       {"exit 3", flywheel.Options{Caches: []string{server.URL}}, check.Failed, "a rule's test failed: see above", nil},
		"rules without tests":     {"exit 4", flywheel.Options{Caches: []string{server.URL}}, check.Passed, "", nil},
		"a rule that fails":       {"exit 1", flywheel.Options{Caches: []string{server.URL}}, check.Failed, "a rule cannot be built (bazel test ended with 1): see above", nil},
		"killed":                  {"kill -KILL $$", flywheel.Options{Caches: []string{server.URL}}, check.Failed, "a rule cannot be built (bazel test ended with -1): see above", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tree(t, map[string]string{"WORKSPACE": "", "BUILD": "flywheel-validate"})
			c.build.Data = t.TempDir()
			var out bytes.Buffer
			results := check.Run(t.Context(), &out, validate.Checks(t.Context(), validate.Options{Dir: dir, Build: c.build, Bazel: program(t, standIn+c.ends+"\n")}))
			if r := results[1]; r.Name != "bazel" || r.Outcome != c.outcome || r.Message != c.message {
				t.Errorf("%s %s: %q", r.Name, r.Outcome, r.Message)
			}
			text := out.String()
			for _, want := range append(c.said,
				"in "+dir+"\n", "argument test\n", "argument --keep_going\n", "argument --build_tag_filters=flywheel-validate\n",
				"argument --test_tag_filters=flywheel-validate\n", "argument //...\n") {
				if !strings.Contains(text, want) {
					t.Errorf("it does not say %q:\n%s", want, text)
				}
			}
			if regexp.MustCompile(`(?m)^argument .*secret`).MatchString(text) {
				t.Error("the token can be read by every user of the machine")
			}
			rc := regexp.MustCompile(`(?m)^file (.*)$`).FindStringSubmatch(text)
			if rc == nil {
				t.Fatalf("no file of flags:\n%s", text)
			}
			if _, err := os.Stat(rc[1]); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("its file of flags is still there: %v", err)
			}
		})
	}
}

func TestWithoutABazelItIsToldWhatToDo(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"WORKSPACE": "", "BUILD": "flywheel-validate"})
	none := filepath.Join(dir, "none")
	results := check.Run(t.Context(), &bytes.Buffer{}, validate.Checks(t.Context(), validate.Options{Dir: dir, Bazel: none}))
	if r := results[1]; r.Outcome != check.Failed || !strings.Contains(r.Message, "there is no "+none+": install Bazelisk") {
		t.Errorf("%s: %s", r.Outcome, r.Message)
	}
}

// Killed at once, Bazel's server would go on building.
func TestAnInterruptEndsBazel(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"WORKSPACE": "", "BUILD": "flywheel-validate"})
	bazel := program(t, "[ \"$1\" = --version ] && exit 1\ntrap 'touch interrupted; exit 8' INT\ntouch began\nwhile :; do sleep 0.05; done\n")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	checks := validate.Checks(ctx, validate.Options{Dir: dir, Build: flywheel.Options{Data: t.TempDir()}, Bazel: bazel})
	done := make(chan check.Results, 1)
	go func() { done <- check.Run(ctx, &bytes.Buffer{}, checks) }()
	for began := time.Now(); time.Since(began) < 2*time.Minute; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "began")); err == nil {
			break
		}
	}
	cancel()
	if r := (<-done)[1]; r.Outcome != check.Failed || r.Message != context.Canceled.Error() {
		t.Errorf("%s: %s", r.Outcome, r.Message)
	}
	if _, err := os.Stat(filepath.Join(dir, "interrupted")); err != nil {
		t.Error("it was not interrupted")
	}
}
