package reporter

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
)

func TestTheReporterFitsTheSurroundings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env      map[string]string
		terminal bool
		want     Kind
	}{
		"a file":              {nil, false, Plain},
		"a terminal":          {map[string]string{"TERM": "xterm"}, true, Terminal},
		"a dumb one":          {map[string]string{"TERM": "dumb"}, true, Plain},
		"a job of GitLab":     {map[string]string{"GITLAB_CI": "true", "CI": "true"}, false, GitLab},
		"a step of GitHub":    {map[string]string{"GITHUB_ACTIONS": "true", "CI": "true"}, false, GitHub},
		"another CI with one": {map[string]string{"CI": "1", "TERM": "xterm"}, true, Plain},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := Detect(func(n string) string { return c.env[n] }, c.terminal); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// GitLab ends a log at 4 MiB: what comes after that nobody would see.
func TestAJobsLogHasABoundAndKeepsTheEnd(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := New(GitLab, newClock().options(Options{Out: &out}))
	r.Observe(event.StepBegan{Step: "build"})
	for i := range 400_000 {
		r.Observe(event.Output{Text: fmt.Sprintf("line %d of many\n", i)})
	}
	r.Observe(event.StepEnded{Step: "build", Outcome: event.Failed, Text: "failed"})
	if err := r.Finish(nil); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if len(text) > logHead+2*logTail || !strings.Contains(text, "line 0 of") || !strings.Contains(text, "\nline 399999 of many\n") {
		t.Errorf("%d bytes, ends with %q", len(text), text[len(text)-200:])
	}
	if !strings.Contains(text, "MiB left out, since") {
		t.Error("it does not tell what is left out")
	}
}

func TestALineWithoutAnEndIsNotJoinedWithOurs(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{GitLab, Terminal} {
		var out bytes.Buffer
		r := New(kind, newClock().options(Options{Out: &out}))
		r.Observe(event.StepBegan{Step: "build"})
		r.Observe(event.Output{Text: "half a "})
		r.Observe(event.Output{Text: "line"})
		if kind == GitLab {
			r.Observe(event.StepEnded{Step: "build", Text: "done"})
		}
		if err := r.Finish(nil); err != nil || !strings.Contains(out.String(), "half a line\n") {
			t.Errorf("%s: %v, %q", kind, err, out.String())
		}
	}
}

func TestPlacesInNixsErrors(t *testing.T) {
	t.Parallel()
	const hash = "/nix/store/00000000000000000000000000000000-source/"
	for name, c := range map[string]struct{ message, text, file, line string }{
		"a copy in the store": {"error: undefined variable 'x'\n       at " + hash + "flake.nix:3:5:\n", "error: undefined variable 'x'", "flake.nix", "3"},
		"in the workspace":    {"error: syntax error\nat /ws/a/default.nix:7:1:", "error: syntax error", "a/default.nix", "7"},
		"somewhere else":      {"error: no\nat /nix/store/00000000000000000000000000000000-nixpkgs/lib.nix:7:1:", "error: no", "", ""},
		"a trace":             {"error:\n … while calling\n  at " + hash + "a.nix:1:1:\n error: assertion failed\n  at " + hash + "b.nix:2:9:", "error: assertion failed", "b.nix", "2"},
		"none":                {"killed", "killed", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, place := errorOf(c.message, "/ws")
			if text != c.text || place["file"] != c.file || place["line"] != c.line {
				t.Errorf("got %q, %v", text, place)
			}
		})
	}
}

func TestBytesOfAPathThatIsTriedAgainCountOnce(t *testing.T) {
	t.Parallel()
	a, now := newActivity(), time.Unix(0, 0)
	for _, e := range []event.Event{
		event.PathPushing{Path: "p", NarSize: 100},
		event.PathSent{Path: "p", Bytes: 60},
		event.PathSent{Path: "p", Bytes: 20},
		event.PathPushed{Path: "p", NarSize: 100},
		event.PathSent{Path: "p", Bytes: 100},
	} {
		a.observe(e, now)
	}
	if a.sentBytes != 100 || a.pushed != 1 || len(a.pushes) != 0 {
		t.Errorf("%+v", a)
	}
}
