package reporter

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sethvargo/go-githubactions"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
)

// gitHub writes the log of a step of GitHub Actions, and what else a step leaves.
type gitHub struct {
	*jobLog
	action *githubactions.Action
	record *Record
}

func newGitHub(o Options) *gitHub {
	action := githubactions.New(githubactions.WithWriter(lenient{o.Out}), githubactions.WithGetenv(o.Getenv))
	for _, secret := range o.Secrets {
		if secret != "" {
			action.AddMask(secret)
		}
	}
	return &gitHub{newJobLog(o, &groups{action: action, token: rand.Text}), action, NewRecord()}
}

// lenient is a writer whose errors nobody sees: the library ends the process at one.
type lenient struct{ io.Writer }

func (l lenient) Write(b []byte) (int, error) {
	_, _ = l.Writer.Write(b)
	return len(b), nil
}

// Observe implements event.Observer.
func (g *gitHub) Observe(e event.Event) {
	g.record.Observe(e)
	g.jobLog.Observe(e)
}

// groups are GitHub's folds. What a program says in one is kept from being read
// as commands: it could set outputs and variables of the job.
type groups struct {
	action  *githubactions.Action
	token   func() string
	stopped string
}

func (g *groups) open(w io.Writer, _ time.Time, title string) {
	g.action.Group(title)
	g.stopped = g.token()
	_, _ = fmt.Fprintf(w, "::stop-commands::%s\n", g.stopped)
}

func (g *groups) close(w io.Writer, _ time.Time) {
	_, _ = fmt.Fprintf(w, "::%s::\n", g.stopped)
	g.action.EndGroup()
}

// Finish implements Reporter: errors as annotations, the summary, the outputs.
func (g *gitHub) Finish(report *flywheel.Report) error {
	g.finish()
	if report == nil {
		return nil
	}
	workspace := g.action.Getenv("GITHUB_WORKSPACE")
	if report.Message != "" {
		message, place := errorOf(report.Message, workspace)
		g.action.WithFieldsMap(place).Errorf("%s", message)
	}
	for _, d := range g.record.Derivations {
		if d.Failed {
			g.action.WithFieldsMap(map[string]string{"title": nameOf(d.Path) + " failed"}).Errorf("nix log %s", d.Path)
		}
	}
	for _, fault := range report.CacheErrors {
		g.action.Warningf("%s", fault)
	}
	if err := appendable(g.action.Getenv("GITHUB_STEP_SUMMARY")); err == nil {
		g.action.AddStepSummary(report.Markdown())
	} else if !errors.Is(err, errNotSet) {
		return fmt.Errorf("writing the step's summary: %w", err)
	}
	if err := appendable(g.action.Getenv("GITHUB_OUTPUT")); err == nil {
		g.action.SetOutput("outcome", report.Outcome)
		g.action.SetOutput("results", strings.Join(report.Results, "\n"))
		g.action.SetOutput("built", strconv.Itoa(report.Built))
		g.action.SetOutput("substituted", strconv.Itoa(report.Substituted))
		g.action.SetOutput("missing", strconv.Itoa(len(report.Missing)))
	} else if !errors.Is(err, errNotSet) {
		return fmt.Errorf("writing the step's outputs: %w", err)
	}
	return nil
}

var errNotSet = errors.New("not set")

// appendable says whether a file of GitHub's can be added to: the library ends the
// process where it cannot.
func appendable(file string) error {
	if file == "" {
		return errNotSet
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

var (
	position    = regexp.MustCompile(`\bat (/[^\s:]+):(\d+)(?::(\d+))?`)
	storeSource = regexp.MustCompile(`^/[^\s]*/[0-9a-z]{32}-source/`)
)

// errorOf returns the error in nix's words and, where these name a place in the
// sources, that: nix tells of a copy in its store. Of several, the last is where
// it went wrong; those before it are how it came there.
func errorOf(message, workspace string) (text string, place map[string]string) {
	text = strings.TrimSpace(message)
	for line := range strings.Lines(message) {
		if trimmed := strings.TrimSpace(line); strings.HasPrefix(trimmed, "error:") && trimmed != "error:" {
			text = trimmed
		}
	}
	place = map[string]string{"title": "nix"}
	for _, m := range position.FindAllStringSubmatch(message, -1) {
		file := m[1]
		if prefix := storeSource.FindString(file); prefix != "" {
			file = file[len(prefix):]
		} else if inside, err := filepath.Rel(workspace, file); workspace != "" && err == nil && filepath.IsLocal(inside) {
			file = inside
		} else {
			continue
		}
		place = map[string]string{"title": "nix", "file": file, "line": m[2]}
		if m[3] != "" {
			place["col"] = m[3]
		}
	}
	return text, place
}
