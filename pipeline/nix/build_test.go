package nix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/nixtest"
)

func TestBuildArgs(t *testing.T) {
	t.Parallel()
	old, young := &Nix{Major: 2, Minor: 14}, &Nix{Major: 2, Minor: 15}
	for name, tt := range map[string]struct {
		nix  *Nix
		r    Request
		want string
	}{
		"flakes":              {old, Request{Installables: []string{".#a", "nixpkgs#b"}}, "build --json --no-link .#a nixpkgs#b"},
		"a file":              {old, Request{File: "x.nix", Installables: []string{"a"}}, "build --json --no-link --file x.nix a"},
		"a file alone":        {old, Request{File: "x.nix"}, "build --json --no-link --file x.nix"},
		"a link":              {old, Request{OutLink: "result", Installables: []string{"."}}, "build --json --out-link result ."},
		"arguments come last": {old, Request{Installables: []string{"."}, Args: []string{"--max-jobs", "1"}}, "build --json --no-link --max-jobs 1 ."},
		"old derivations":     {old, Request{Installables: []string{"/nix/store/h-x.drv"}}, "build --json --no-link /nix/store/h-x.drv"},
		"derivations":         {young, Request{Installables: []string{"/nix/store/h-x.drv"}}, "build --json --no-link /nix/store/h-x.drv^*"},
		"chosen outputs":      {young, Request{Installables: []string{"/nix/store/h-x.drv^out"}}, "build --json --no-link /nix/store/h-x.drv^out"},
		"store paths":         {young, Request{Installables: []string{"/nix/store/h-x"}}, "build --json --no-link /nix/store/h-x"},
		"an attribute .drv":   {young, Request{Installables: []string{".#x.drv"}}, "build --json --no-link .#x.drv"},
	} {
		if got := strings.Join(tt.nix.buildArgs(tt.r), " "); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func TestParseResults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ text, want string }{
		"nothing":            {`[]`, ""},
		"a derivation":       {`[{"drvPath":"/s/a.drv","outputs":{"out":"/s/a"}}]`, "/s/a"},
		"out first":          {`[{"drvPath":"/s/a.drv","outputs":{"bin":"/s/a-bin","dev":"/s/a-dev","out":"/s/a"}}]`, "/s/a /s/a-bin /s/a-dev"},
		"no out":             {`[{"drvPath":"/s/a.drv","outputs":{"lib":"/s/l","dev":"/s/d"}}]`, "/s/d /s/l"},
		"several":            {`[{"outputs":{"out":"/s/b"}},{"outputs":{"out":"/s/a"}}]`, "/s/b /s/a"},
		"one twice":          {`[{"outputs":{"out":"/s/a"}},{"outputs":{"out":"/s/a"}}]`, "/s/a"},
		"times, as from 2.6": {`[{"drvPath":"/s/a.drv","outputs":{"out":"/s/a"},"startTime":1,"stopTime":2}]`, "/s/a"},
		"a store path":       {`[{"path":"/s/a"}]`, "/s/a"},
		"a bare store path":  {`["/s/a"]`, "/s/a"},
		"a bare one twice":   {`["/s/a","/s/a"]`, "/s/a"},
		"both kinds":         {`["/s/a",{"drvPath":"/s/b.drv","outputs":{"out":"/s/b"}},{"path":"/s/c"},{"outputs":{"out":"/s/a"}}]`, "/s/a /s/b /s/c"},
		"an unknown output":  {`[{"drvPath":"/s/a.drv","outputs":{"out":null}}]`, ""},
	} {
		got, err := parseResults([]byte(tt.text))
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, tt.want)
		}
	}
	for _, text := range []string{"", "warning: dirty", `{"outputs":{}}`, `[1]`, `[["/s/a"]]`} {
		if got, err := parseResults([]byte(text)); err == nil {
			t.Errorf("%q: got %q and no error", text, got)
		}
	}
}

func TestLastWords(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("building …\n", 5000)
	for name, tt := range map[string]struct{ said, want string }{
		"nothing":          {"", ""},
		"only an error":    {"error: no such attribute\n", "error: no such attribute"},
		"behind a log":     {"building a\nerror: a failed\n       last 3 lines:\n\n", "error: a failed\n       last 3 lines:"},
		"two errors":       {"x\nerror: a failed\nerror: 1 dependency failed\n", "error: a failed\nerror: 1 dependency failed"},
		"no error":         {"x\nkilled by the kernel\n", "killed by the kernel"},
		"one line":         {"killed", "killed"},
		"a log of errors":  {"x> error: not nix's\nlast", "last"},
		"after a long log": {long + "error: late\n", "error: late"},
		"a busy database":  {"error: executing SQLite statement … (in '/h/binary-cache-v6.sqlite')\nbuilding a\nerror: a failed\n", "error: a failed"},
		"nothing but it":   {"x\nerror: executing … (in '/h/binary-cache-v6.sqlite')\ny\n", "error: executing … (in '/h/binary-cache-v6.sqlite')\ny"},
		"a long error":     {"error: early\n" + long + "the end\n", "the end"},
	} {
		l := &lastWords{}
		for _, part := range slices.Collect(slices.Chunk([]byte(tt.said), 7)) {
			if n, err := l.Write(part); n != len(part) || err != nil {
				t.Fatalf("%s: wrote %d, %v", name, n, err)
			}
		}
		if got := l.message(); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
		if len(l.b) > 2*keptWords {
			t.Errorf("%s: %d bytes are kept", name, len(l.b))
		}
	}
}

// realNix returns the installed nix, on a store of its own.
func realNix(t *testing.T) (*Nix, *nixtest.Store) {
	t.Helper()
	s := nixtest.New(t)
	major, minor, err := parseVersion(s.Run(t, "nix", "--version"))
	if err != nil {
		t.Fatal(err)
	}
	return &Nix{Path: s.Nix, Major: major, Minor: minor}, s
}

func TestBuild(t *testing.T) {
	t.Parallel()
	n, s := realNix(t)
	file := s.File(t, `
		a = step "a" [] "echo a > $out";
		b = step "b" [ a ] "echo saying something >&2; echo $needs > $out";
		bad = step "bad" [ a ] "echo its own words >&2; exit 7";
		two = derivation { inherit (a) system builder PATH; name = "two"; outputs = [ "out" "dev" ];
			args = [ "-c" "echo > $dev; echo > $out" ]; };`)
	link := filepath.Join(t.TempDir(), "result")
	var out bytes.Buffer
	results, err := n.Build(t.Context(), Request{File: file, Installables: []string{"b"}, OutLink: link}, &out)
	if err != nil || len(results) != 1 || !strings.HasSuffix(results[0], "-b") {
		t.Fatalf("got %q, %v\n%s", results, err, out.String())
	}
	if target, err := os.Readlink(link); err != nil || target != results[0] {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	if !strings.Contains(out.String(), "building '") {
		t.Errorf("nix's output is not there:\n%s", out.String())
	}

	drv := s.Instantiate(t, "x = "+imported(file)+".a;", "x")
	results, err = n.Build(t.Context(), Request{Installables: append(drv, results...)}, &out)
	if err != nil || len(results) != 2 || !slices.ContainsFunc(results, hasSuffix("-a")) || !slices.ContainsFunc(results, hasSuffix("-b")) {
		t.Errorf("of a derivation and a store path, got %q, %v", results, err)
	}

	results, err = n.Build(t.Context(), Request{Installables: s.Instantiate(t, "x = "+imported(file)+".two;", "x")}, &out)
	if err != nil || len(results) != 2 || !strings.HasSuffix(results[0], "-two") || !strings.HasSuffix(results[1], "-two-dev") {
		t.Errorf("of a derivation with two outputs, got %q, %v\n%s", results, err, out.String())
	}

	out.Reset()
	_, err = n.Build(t.Context(), Request{File: file, Installables: []string{"bad"}}, &out)
	var failed *BuildError
	if !errors.As(err, &failed) {
		t.Fatalf("got %v, want a BuildError", err)
	}
	if !strings.HasPrefix(failed.Message, "error: builder for") || !strings.Contains(failed.Message, "its own words") {
		t.Errorf("nix's message is %q", failed.Message)
	}
	if !strings.HasSuffix(strings.TrimSpace(out.String()), failed.Message) {
		t.Errorf("the message does not end the output:\n%s", out.String())
	}
}

func hasSuffix(suffix string) func(string) bool {
	return func(s string) bool { return strings.HasSuffix(s, suffix) }
}

func imported(file string) string { return fmt.Sprintf("(import %s)", file) }

func TestBuildIsInterrupted(t *testing.T) {
	t.Parallel()
	n, s := realNix(t)
	file := s.File(t, `a = step "a" [] "echo begun >&2; sleep 60; echo > $out";`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := n.Build(ctx, Request{File: file, Installables: []string{"a"}, Args: []string{"--print-build-logs"}},
		writerFunc(func(b []byte) {
			if bytes.Contains(b, []byte("a> begun")) {
				cancel()
			}
		}))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	if paths := s.Run(t, "nix-store", "--query", "--outputs", s.Instantiate(t, "x = "+imported(file)+".a;", "x")[0]); paths == "" {
		t.Fatal("the derivation has no output")
	} else if _, err := os.Stat(strings.TrimSpace(paths)); err == nil {
		t.Error("the build went on")
	}
}

func TestBuildCrashes(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]bool{
		"kill -ABRT $$": true, "kill -KILL $$": false, "exit 134": false, "exit 1": false,
	} {
		n := &Nix{Path: filepath.Join(fake(t, "echo error: it is over >&2\n"+script), "nix")}
		_, err := n.Build(t.Context(), Request{}, &bytes.Buffer{})
		var failed *BuildError
		if !errors.As(err, &failed) || failed.Crashed != want || failed.Message != "error: it is over" {
			t.Errorf("%s: got %+v, want that it crashed %t", script, err, want)
		}
	}
}

// Nix may miss an interrupt: it is told again.
func TestBuildIsInterruptedAgain(t *testing.T) {
	t.Parallel()
	n := &Nix{Path: filepath.Join(fake(t, `
		trap 'if [ "$once" ]; then echo the second >&2; exit 1; fi; once=yes; echo the first >&2' INT
		echo begun >&2
		while :; do sleep 0.1; done`), "nix")}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	_, err := n.Build(ctx, Request{}, writerFunc(func(b []byte) {
		out.Write(b)
		if bytes.Contains(b, []byte("begun")) {
			cancel()
		}
	}))
	if !errors.Is(err, context.Canceled) || out.String() != "begun\nthe first\nthe second\n" {
		t.Errorf("got %v and %q", err, out.String())
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) {
	f(b)
	return len(b), nil
}

func TestBuildWithoutNix(t *testing.T) {
	t.Parallel()
	n := &Nix{Path: filepath.Join(t.TempDir(), "nix")}
	var failed *BuildError
	if _, err := n.Build(t.Context(), Request{}, &bytes.Buffer{}); err == nil || errors.As(err, &failed) {
		t.Errorf("got %v, want an error that is none of the build's", err)
	}
	n.Path = filepath.Join(fake(t, "echo what is this"), "nix")
	if _, err := n.Build(t.Context(), Request{}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "reading what nix build made") {
		t.Errorf("got %v for output that is no JSON", err)
	}
}

func TestRealise(t *testing.T) {
	t.Parallel()
	n, s := realNix(t)
	const expression = `
		there = step "there" [] "echo there > $out";
		absent = step "absent" [] "echo absent > $out";
		eager = derivation { inherit (there) system builder; name = "eager"; preferLocalBuild = true;
			args = [ "-c" "echo eager > $out" ]; };`
	path := s.Build(t, expression, "there")[0]
	cache := "file://" + t.TempDir()
	s.Run(t, "nix", "copy", "--to", cache, path)
	s.Run(t, "nix-store", "--delete", path)
	drvs := s.Instantiate(t, expression, "there", "absent", "eager")
	n.Config = []string{"substituters = " + cache + "?trusted=true", "fallback = true"}

	got, err := n.Realise(t.Context(), drvs[0], nil)
	if err != nil || !slices.Equal(got, []string{path}) {
		t.Errorf("got %q, %v, want %s", got, err, path)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	for _, drv := range drvs[1:] {
		got, err := n.Realise(t.Context(), drv, nil)
		if !errors.Is(err, ErrNotSubstitutable) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %q, %v, want ErrNotSubstitutable in one line", drv, got, err)
		}
		output := strings.TrimSpace(s.Run(t, "nix-store", "--query", "--outputs", drv))
		if _, err := os.Stat(output); err == nil {
			t.Errorf("%s was built", output)
		}
	}
}
