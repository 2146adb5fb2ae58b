package validate_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/validate"
)

const rules = `load("//bazel:tofu.bzl", "tofu_fmt_test", "tofu_validate")

[tofu_validate(name = m + "_validate", dir = "modules/" + m, srcs = glob([m + "/**"]), tags = ["flywheel-validate"]) for m in ["app", "base"]]

[tofu_fmt_test(name = m + "_fmt_test", dir = "modules/" + m, srcs = glob([m + "/**"]), tags = ["flywheel-validate"]) for m in ["app", "base"]]

genrule(name = "other", outs = ["other.txt"], cmd = "false")
`

// This repository's own rules, in real Bazel: what is wrong is found, what is not
// tagged is left alone, and a fresh machine gets its results from the cache.
func TestRealBazelValidatesByThisRepositorysRules(t *testing.T) {
	t.Parallel()
	if os.Getenv("BAZELTEST_E2E") == "" {
		t.Skip("it takes minutes: BAZELTEST_E2E=1 or .ci/bazel runs it")
	}
	command, err := exec.LookPath("bazel")
	if err != nil {
		t.Skip("bazel is not installed; Debian's package is bazel-bootstrap")
	}
	tools := t.TempDir()
	tofu := program(t, "case $1 in\nfmt) ! grep -Rq unformatted \"$5\" ;;\nvalidate) ! grep -q invalid *.tf ;;\nesac\n")
	if err := os.Symlink(tofu, filepath.Join(tools, "tofu")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(tools, "mirror", "registry.opentofu.org"), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := tree(t, map[string]string{
		"WORKSPACE":            "load(\"//bazel:tofu_repository.bzl\", \"tofu_repository\")\ntofu_repository(name = \"tofu\")\n",
		"modules/BUILD.bazel":  rules,
		"modules/app/main.tf":  "# good\n",
		"modules/base/main.tf": "# good\n",
		"coverage/WORKSPACE":   "",
		"coverage/BUILD.bazel": `[filegroup(name = n, visibility = ["//visibility:public"]) for n in ["coverage_report_generator", "lcov_merger"]]`,
		".bazelignore":         "coverage\n",
	})
	if err := os.CopyFS(filepath.Join(dir, "bazel"), os.DirFS("../../deploy/bazel")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "bazel", "validate.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	on := func(machine string, change map[string]string) (check.Result, string) {
		t.Helper()
		for name, text := range change {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		// Old versions download what only coverage needs.
		rc := "build --repo_env=TOFU_DIR=" + tools + " --symlink_prefix=/ --color=no --curses=no --spawn_strategy=local\n" +
			"build --override_repository=remote_coverage_tools=" + filepath.Join(dir, "coverage") + "\n"
		if err := os.WriteFile(filepath.Join(dir, ".bazelrc"), []byte(rc), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		results := check.Run(t.Context(), &out, validate.Checks(t.Context(), validate.Options{Dir: dir, Build: flywheel.Options{Data: data}, Bazel: machine}))
		return results[1], out.String()
	}
	// A machine is a Bazel with nothing but a home of its own.
	machine := func() string {
		home := t.TempDir()
		own := command + " --nohome_rc --output_user_root=" + home
		bazel := program(t, "[ \"$1\" = --version ] && exec "+command+" --version\nexec "+own+" \"$@\"\n")
		t.Cleanup(func() {
			stop := exec.CommandContext(context.WithoutCancel(t.Context()), bazel, "shutdown")
			stop.Dir = dir
			if out, err := stop.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			// Bazel makes what it keeps read-only.
			_ = filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					_ = os.Chmod(path, 0o700)
				}
				return nil
			})
		})
		return bazel
	}
	first := machine()
	for _, step := range []struct {
		machine string
		change  map[string]string
		message string
		said    string
	}{
		{first, nil, "", "2 tests pass"},
		{first, map[string]string{"modules/app/main.tf": "# unformatted\n"}, "a rule's test failed: see above", "app_fmt_test"},
		{first, map[string]string{"modules/app/main.tf": "# invalid\n"}, "a rule cannot be built (bazel test ended with 1): see above", "Validating modules/app failed"},
		{machine(), map[string]string{"modules/app/main.tf": "# good\n"}, "", "remote cache hit"},
	} {
		r, said := on(step.machine, step.change)
		if r.Message != step.message || !strings.Contains(said, step.said) {
			t.Errorf("%s: %q, want %q and %q in\n%s", r.Outcome, r.Message, step.message, step.said, said)
		}
	}
}
