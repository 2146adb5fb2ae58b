package reporter

import (
	"fmt"
	"io"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
)

// gitLab writes the log of a GitLab job.
type gitLab struct{ *jobLog }

func newGitLab(o Options) *gitLab { return &gitLab{newJobLog(o, &sections{})} }

// Finish implements Reporter.
func (g *gitLab) Finish(*flywheel.Report) error {
	g.finish()
	return nil
}

// sections are GitLab's folds (docs.gitlab.com, "Custom collapsible sections").
// What a build says is open, since people wait for it; the rest is not.
type sections struct {
	count int
	name  string
}

func (s *sections) open(w io.Writer, now time.Time, title string) {
	s.count++
	s.name = fmt.Sprintf("flywheel_%d_%s", s.count, strings.Map(plainLetter, title))
	options := "[collapsed=true]"
	if title == "build" {
		options = ""
	}
	_, _ = fmt.Fprintf(w, "\x1b[0Ksection_start:%d:%s%s\r\x1b[0K%s\n", now.Unix(), s.name, options, title)
}

func (s *sections) close(w io.Writer, now time.Time) {
	_, _ = fmt.Fprintf(w, "\x1b[0Ksection_end:%d:%s\r\x1b[0K\n", now.Unix(), s.name)
}

func plainLetter(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
		return r
	}
	return '_'
}
