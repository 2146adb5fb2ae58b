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

// Lines that were drawn when the terminal was wider are more rows by now: to go up
// by fewer would leave some of them behind.
func TestANarrowerTerminalHasMoreRows(t *testing.T) {
	t.Parallel()
	lines := []string{"12345678", "", "1234567"}
	for columns, want := range map[int]int{80: 3, 8: 3, 7: 4, 4: 5} {
		if got := rows(lines, columns); got != want {
			t.Errorf("%d columns: %d rows, want %d", columns, got, want)
		}
	}
}

func TestLongNamesKeepWhatTellsThemApart(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"app-1.2": "app-1.2", "application": "application", "application-1.2.3": "applica…2.3", "ünïcödé-names-1.0": "ünïcödé…1.0",
	} {
		if got := shorten(name, 11); got != want {
			t.Errorf("%q became %q, want %q", name, got, want)
		}
	}
	if got := shorten("application", 3); got != "application" {
		t.Errorf("without any room it became %q", got)
	}
}

func TestTheLargestPathOnItsWayIsNamed(t *testing.T) {
	t.Parallel()
	a, now := newActivity(), time.Unix(0, 0)
	for _, e := range []event.Event{
		event.PathPushing{Path: "/nix/store/00000000000000000000000000000000-small", NarSize: 100},
		event.PathPushing{Path: "/nix/store/00000000000000000000000000000000-nearly-sent", NarSize: 1000},
		event.PathSent{Path: "/nix/store/00000000000000000000000000000000-nearly-sent", Bytes: 990},
	} {
		a.observe(e, now)
	}
	if got := a.pushLine(now); got != "2 to push, 990 B of 1.1 KiB: small" {
		t.Errorf("got %q", got)
	}
}

// What others say on the same terminal would stand in the way of what is drawn: a
// line of it stayed, and they were wiped out.
func TestWhatIsSaidBesideTheRunStaysAndNothingElse(t *testing.T) {
	t.Parallel()
	view := newScreen(80, 24)
	c := newClock()
	r := New(Terminal, c.options(Options{Out: view, Columns: func() int { return 80 }}))
	for _, e := range []event.Event{
		event.StepBegan{Step: "build"},
		event.BuildBegan{Derivation: libDrv},
		event.BuildBegan{Derivation: appDrv},
	} {
		r.Observe(e)
	}
	c.now = c.now.Add(10 * time.Second)
	for _, draw := range c.calls {
		draw()
	}
	if !strings.Contains(view.String(), "2 building\n     10s lib-1.0\n     10s app-2.1\n") {
		t.Errorf("it shows\n%s", view)
	}
	if _, err := r.(interface{ Write([]byte) (int, error) }).Write([]byte("coming to an end\n")); err != nil {
		t.Fatal(err)
	}
	r.Observe(event.StepEnded{Step: "build", Took: 10 * time.Second, Text: "interrupted"})
	if err := r.Finish(nil); err != nil {
		t.Fatal(err)
	}
	if got, want := view.String(), "coming to an end\nbuild            10.0s  interrupted\n\n"; got != want {
		t.Errorf("it shows\n%s\nwant\n%s", got, want)
	}
}
