// Package reporter shows a run to those who watch it: people at a terminal, those
// who read a job's log afterwards, and the machines that collect its results.
package reporter

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
)

// Reporter shows one run.
type Reporter interface {
	event.Observer
	// Finish is called once, after the last event. report is nil where the run
	// did not begin to build.
	Finish(report *flywheel.Report) error
}

// Kind is a way to show a run.
type Kind string

// The kinds.
const (
	Auto      Kind = "auto"     // what fits the surroundings
	Plain     Kind = "plain"    // lines as they come
	GitLab    Kind = "gitlab"   // folded sections of a job's log
	GitHub    Kind = "github"   // groups, annotations, a step's summary and outputs
	Terminal  Kind = "terminal" // what goes on now, below what was said
	JSON      Kind = "json"     // one document at the end
	JSONLines Kind = "jsonl"    // each event as a line
)

// Kinds are all kinds.
var Kinds = []Kind{Auto, Plain, GitLab, GitHub, Terminal, JSON, JSONLines}

// ParseKind reads a kind's name.
func ParseKind(name string) (Kind, error) {
	if slices.Contains(Kinds, Kind(name)) {
		return Kind(name), nil
	}
	names := make([]string, len(Kinds))
	for i, k := range Kinds {
		names[i] = string(k)
	}
	return "", fmt.Errorf("there is no reporter %q: want one of %s", name, strings.Join(names, ", "))
}

// Detect returns the kind that fits the surroundings; terminal says whether the
// output is one.
func Detect(getenv func(string) string, terminal bool) Kind {
	switch {
	case getenv("GITLAB_CI") == "true":
		return GitLab
	case getenv("GITHUB_ACTIONS") == "true":
		return GitHub
	case terminal && getenv("TERM") != "dumb" && getenv("TERM") != "" && getenv("CI") == "":
		return Terminal
	}
	return Plain
}

// Options say where a run is shown.
type Options struct {
	Out    io.Writer
	Getenv func(string) string
	// Secrets are words that GitHub is told never to show.
	Secrets []string
	// Columns returns the width of the terminal that Out is, in characters.
	Columns func() int

	now func() time.Time // time.Now, but in tests
	// every calls a function now and then until stop is called; a ticker of its
	// own goroutine, but in tests.
	every func(time.Duration, func()) (stop func())
}

// New returns the reporter of a kind.
func New(kind Kind, o Options) Reporter {
	if o.now == nil {
		o.now = time.Now
	}
	if o.every == nil {
		o.every = every
	}
	switch kind {
	case Auto:
		return New(Detect(o.Getenv, o.Columns != nil), o)
	case GitLab:
		return newGitLab(o)
	case GitHub:
		return newGitHub(o)
	case Terminal:
		return newTerminal(o)
	case JSON:
		return &document{out: o.Out, record: NewRecord()}
	case JSONLines:
		return &jsonLines{out: o.Out, now: o.now}
	}
	return plain{event.NewPlain(o.Out)}
}

type plain struct{ *event.Plain }

// Finish implements Reporter: the last step was the last word.
func (plain) Finish(*flywheel.Report) error { return nil }

func every(d time.Duration, f func()) (stop func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(d)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				f()
			case <-ended:
				return
			}
		}
	}()
	return func() {
		close(ended)
		<-done
	}
}
