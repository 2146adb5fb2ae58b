package tofu

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree writes files and returns their root.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func infrastructure(t *testing.T) string {
	t.Helper()
	return tree(t, map[string]string{
		"modules/network/main.tf":                 `variable "x" {}`,
		"modules/network/templates/a.tftpl":       "x",
		"modules/database/main.tf":                "module \"net\" {\n  source = \"../network\"\n  count = 2\n}\n",
		"modules/lonely/main.tf.json":             `{"module": {"k": {"source": "terraform-aws-modules/vpc/aws"}}}`,
		"stacks/one/main.tf":                      "module \"db\" {\n  source = \"../../modules/database\"\n}\nmodule \"far\" {\n  source = \"git::https://example.org/x.git\"\n}\n",
		"stacks/two/main.tofu":                    "module \"gone\" {\n  source = \"../../modules/gone\"\n}\n",
		"stacks/two/.terraform/modules/x/main.tf": `not read`,
		"docs/readme.md":                          "x",
	})
}

func TestAChangeReachesAllThatUseTheModule(t *testing.T) {
	t.Parallel()
	g, err := Read(infrastructure(t))
	if err != nil || len(g.Faults) != 0 || len(g.Uses) != 5 {
		t.Fatal(g, err)
	}
	for name, c := range map[string]struct {
		changed []string
		want    []string
	}{
		"a module below":        {[]string{"modules/network/main.tf"}, []string{"modules/database", "modules/network", "stacks/one"}},
		"a template":            {[]string{"modules/network/templates/a.tftpl"}, []string{"modules/database", "modules/network", "stacks/one"}},
		"a stack":               {[]string{"stacks/one/main.tf"}, []string{"stacks/one"}},
		"one that nobody uses":  {[]string{"modules/lonely/main.tf.json"}, []string{"modules/lonely"}},
		"a module that is gone": {[]string{"modules/gone/main.tf"}, []string{"stacks/two"}},
		"something else":        {[]string{"docs/readme.md", "README.md"}, nil},
		"nothing":               {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := g.Affected(c.changed); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestModulesThatUseOneAnotherEndTheSearch(t *testing.T) {
	t.Parallel()
	g := &Graph{Uses: map[string][]string{"a": {"b"}, "b": {"a"}}}
	if got := g.Affected([]string{"a/main.tf"}); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %v", got)
	}
}

func TestAFileThatCannotBeReadIsToldAndTheRestIsUsed(t *testing.T) {
	t.Parallel()
	g, err := Read(tree(t, map[string]string{"a/main.tf": "module \"x\" {\n  source = \"../b\"\n}\nresource \"y\" {\n", "b/main.tf": ""}))
	if err != nil || len(g.Faults) != 1 || g.Faults[0].Module != "a" || !strings.Contains(g.Faults[0].Err.Error(), "main.tf:4") {
		t.Fatalf("%+v, %v", g, err)
	}
	if !slices.Equal(g.Uses["a"], []string{"b"}) {
		t.Errorf("uses %v", g.Uses)
	}
}

func TestASourceOutsideTheTreeIsNoModuleOfIt(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{"./x": "m/x", "../n": "n", "../../out": "", "hashicorp/x/y": "", "/abs": "", "..": ""} {
		if got, ok := inTree("m", source); got != want && ok {
			t.Errorf("%s: %q", source, got)
		}
	}
}

func TestWhatChangedSinceTheBranchLeft(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed: this test asks it what changed")
	}
	dir := infrastructure(t)
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run("init", "-q")
	run("add", ".")
	run("commit", "-qm", "base")
	run("checkout", "-qb", "change")
	write("modules/network/main.tf", "# changed")
	run("commit", "-qam", "change")
	run("checkout", "-q", "main")
	write("docs/readme.md", "not of the branch")
	run("commit", "-qam", "other")
	run("checkout", "-q", "change")
	write("stacks/one/main.tf", "# not committed")
	write("stacks/one/new file.tf", "# not known to git")
	got, err := Changed(t.Context(), dir, "main")
	if want := []string{"modules/network/main.tf", "stacks/one/main.tf", "stacks/one/new file.tf"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Changed(t.Context(), dir, "nowhere"); err == nil || !strings.Contains(err.Error(), "git fetch") {
		t.Errorf("got %v", err)
	}
	if _, err := Changed(t.Context(), dir, "--output=/x"); err == nil {
		t.Error("an option is taken for a revision")
	}
}

func FuzzModuleSources(f *testing.F) {
	f.Add("main.tf", []byte("module \"a\" {\n  source = \"../b\"\n}"))
	f.Add("main.tf.json", []byte(`{"module": {"k": {"source": "./x"}}}`))
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		sources, _ := moduleSources(name, text)
		for _, s := range sources {
			if to, ok := inTree("m", s); ok && strings.HasPrefix(to, "..") {
				t.Errorf("%q leads to %q, outside", s, to)
			}
		}
	})
}
