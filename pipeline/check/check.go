// Package check runs named checks, all of them even when one fails, and tells
// what each found.
package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Check is one thing that is looked at.
type Check struct {
	Name string
	// Run returns nil when the check passes and ErrSkip, wrapped, when it does
	// not apply. What it prints goes to out.
	Run func(ctx context.Context, out io.Writer) error
}

// ErrSkip is wrapped by a check that does not apply; the error says why.
var ErrSkip = errors.New("skipped")

// Outcome is how a check ended.
type Outcome string

// The outcomes.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
)

// Result is what a check found.
type Result struct {
	Name    string  `json:"name"`
	Outcome Outcome `json:"outcome"`
	Seconds float64 `json:"seconds"`
	Message string  `json:"message,omitempty"` // of a check that did not pass
}

// Results are those of a run, in order.
type Results []Result

// Run runs the checks one after the other. It ends early only when ctx does;
// the checks that were not begun are failed then.
func Run(ctx context.Context, out io.Writer, checks []Check) Results {
	results := make(Results, 0, len(checks))
	for _, c := range checks {
		began := time.Now()
		err := context.Cause(ctx)
		if err == nil {
			_, _ = fmt.Fprintf(out, "── %s\n", c.Name)
			err = c.Run(ctx, out)
		} else {
			err = fmt.Errorf("not begun: %w", err)
		}
		r := Result{Name: c.Name, Outcome: Passed, Seconds: time.Since(began).Seconds()}
		switch {
		case errors.Is(err, ErrSkip):
			r.Outcome, r.Message = Skipped, strings.TrimPrefix(err.Error(), ErrSkip.Error()+": ")
		case err != nil:
			r.Outcome, r.Message = Failed, err.Error()
		}
		results = append(results, r)
	}
	return results
}

// OK says that no check failed.
func (rs Results) OK() bool {
	for _, r := range rs {
		if r.Outcome == Failed {
			return false
		}
	}
	return true
}

// Table writes a line for each check.
func (rs Results) Table(w io.Writer) {
	width := 0
	for _, r := range rs {
		width = max(width, len(r.Name))
	}
	for _, r := range rs {
		_, _ = fmt.Fprintf(w, "%-*s  %-7s %7.1fs  %s\n", width, r.Name, r.Outcome, r.Seconds, firstLine(r.Message))
	}
}

// Markdown returns the table for a merge request or a job's summary.
func (rs Results) Markdown() string {
	var b strings.Builder
	b.WriteString("| check | outcome | seconds | |\n|---|---|---|---|\n")
	for _, r := range rs {
		fmt.Fprintf(&b, "| %s | %s | %.1f | %s |\n", r.Name, r.Outcome, r.Seconds, strings.ReplaceAll(firstLine(r.Message), "|", `\|`))
	}
	return b.String()
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
