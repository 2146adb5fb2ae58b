// Package daggertest runs the Dagger module end to end, on a real engine.
//
// It needs an engine that is reachable (_EXPERIMENTAL_DAGGER_RUNNER_HOST) and
// the dagger command in PATH, and is skipped without. Where the default base
// images cannot be pulled, DAGGERTEST_NIX_IMAGE and DAGGERTEST_GO_IMAGE name
// others.
package daggertest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dagger.io/dagger"
)

// engine connects, and serves the module of this repository.
func engine(t *testing.T) *dagger.Client {
	t.Helper()
	if os.Getenv("_EXPERIMENTAL_DAGGER_RUNNER_HOST") == "" {
		t.Skip("no Dagger engine is reachable: _EXPERIMENTAL_DAGGER_RUNNER_HOST is not set")
	}
	cli, err := exec.LookPath("dagger")
	if err != nil {
		t.Skip("the dagger command is not in PATH")
	}
	// Or the library would download one.
	t.Setenv("_EXPERIMENTAL_DAGGER_CLI_BIN", cli)
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	t.Cleanup(cancel)
	client, err := dagger.Connect(ctx, dagger.WithLogOutput(os.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := client.ModuleSource(root).AsModule().Serve(ctx); err != nil {
		t.Fatal(err)
	}
	return client
}

// images are the constructor's arguments that replace base images.
func images() string {
	var args []string
	for variable, argument := range map[string]string{
		"DAGGERTEST_NIX_IMAGE": "nixImage",
		"DAGGERTEST_GO_IMAGE":  "goImage",
	} {
		if image := os.Getenv(variable); image != "" {
			args = append(args, fmt.Sprintf("%s: %q", argument, image))
		}
	}
	if len(args) == 0 {
		return ""
	}
	return "(" + strings.Join(args, ", ") + ")"
}

// ask sends a query about the module's object.
func ask(t *testing.T, client *dagger.Client, query string, into any) {
	t.Helper()
	var answer struct{ AtticCache json.RawMessage }
	err := client.Do(t.Context(), &dagger.Request{Query: fmt.Sprintf("{ atticCache%s { %s } }", images(), query)},
		&dagger.Response{Data: &answer})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	if err := json.Unmarshal(answer.AtticCache, into); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func TestModule(t *testing.T) {
	client := engine(t)
	example := func(name string) string { return `["path:./pipeline/examples/` + name + `"]` }

	t.Run("Build", func(t *testing.T) {
		var got struct {
			Build struct {
				Ok      bool
				Summary string
				Report  struct{ Contents string }
				Out     struct{ Entries []string }
			}
		}
		ask(t, client, `build(installables: `+example("chain")+`) { ok summary report { contents } out { entries } }`, &got)
		var report struct {
			Outcome              string
			Missing, CacheErrors []string
		}
		if err := json.Unmarshal([]byte(got.Build.Report.Contents), &report); err != nil {
			t.Fatal(err)
		}
		if !got.Build.Ok || report.Outcome != "built" || len(report.Missing)+len(report.CacheErrors) > 0 {
			t.Errorf("the build: %+v", got)
		}
		if fmt.Sprint(got.Build.Out.Entries) != "[chain]" {
			t.Errorf("files %v, want the result under its name", got.Build.Out.Entries)
		}
	})

	t.Run("AFailedBuildStillReports", func(t *testing.T) {
		var got struct {
			Build struct {
				Ok      bool
				Summary string
				Report  struct{ Contents string }
			}
		}
		ask(t, client, `build(installables: `+example("broken")+`) { ok summary report { contents } }`, &got)
		if got.Build.Ok || !strings.Contains(got.Build.Report.Contents, `"outcome": "failed"`) {
			t.Errorf("the build: %+v", got)
		}
		if !strings.Contains(got.Build.Summary, "step 7 fails") {
			t.Errorf("the summary lacks nix's message:\n%s", got.Build.Summary)
		}
	})

	t.Run("VerifyTheBundledServer", func(t *testing.T) {
		var got struct{ Verify string }
		ask(t, client, `verify`, &got)
	})

	t.Run("TheImageRunsWithoutRoot", func(t *testing.T) {
		var got struct {
			Image struct {
				User     string
				WithExec struct{ Stdout string }
			}
		}
		ask(t, client, `image { user withExec(args: ["/cacheserver", "--help"]) { stdout } }`, &got)
		if got.Image.User != "65532:65532" || !strings.Contains(got.Image.WithExec.Stdout, "serve") {
			t.Errorf("the image: %+v", got)
		}
	})

	t.Run("TheCommandIsBuiltForBothPlatforms", func(t *testing.T) {
		var got struct {
			Amd64, Arm64 struct{ Size int }
		}
		ask(t, client, `amd64: flywheel(platform: "linux/amd64") { size } arm64: flywheel(platform: "linux/arm64") { size }`, &got)
		if got.Amd64.Size == 0 || got.Arm64.Size == 0 || got.Amd64.Size == got.Arm64.Size {
			t.Errorf("sizes %+v", got)
		}
	})
}
