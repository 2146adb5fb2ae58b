// Package warm keeps what is listed in a cache: what it lacks is built and pushed.
// It is for schedules, so that the first build of the day finds everything there.
package warm

import (
	"context"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
)

// Outcome is what became of an installable.
type Outcome string

// The outcomes.
const (
	Warm   Outcome = "warm"   // the cache held it
	Built  Outcome = "built"  // it was built or fetched, and the cache holds it now
	Cold   Outcome = "cold"   // the cache does not hold it, or not pinned
	Failed Outcome = "failed" // it could not be built
)

// Result is that of one installable.
type Result struct {
	Installable string   `json:"installable"`
	Outcome     Outcome  `json:"outcome"`
	Seconds     float64  `json:"seconds"`
	Results     []string `json:"results"` // none of what was left alone, since the cache holds it
	Pins        []string `json:"pins"`
	Message     string   `json:"message,omitempty"` // of what is cold or failed
}

// Options say what to keep warm, and how.
type Options struct {
	flywheel.Options // with the installables
	// Pin is what the names of pins begin with, so that results stay whatever the
	// cache's retention is; empty for no pins. Keep is how many revisions stay.
	Pin  string
	Keep int
}

// Run keeps the installables warm, all of them even when one fails. The report is
// that of the build, nil where none began; the error is ctx's or one that hit
// all, such as flywheel.ErrNotReady, and nil where single ones failed.
func Run(ctx context.Context, o Options) ([]Result, *flywheel.Report, error) {
	build := o.Options
	build.KeepGoing = true
	// What is to be pinned has to be there, to be known by its store paths.
	build.SkipCached = o.Pin == ""
	report, err := flywheel.Build(ctx, build)
	if err != nil && (report == nil || ctx.Err() != nil || len(report.Outputs) == 0) {
		return nil, report, err
	}
	results := make([]Result, 0, len(report.Outputs))
	for _, output := range report.Outputs {
		r := o.result(output, report)
		if o.Pin != "" && (r.Outcome == Warm || r.Outcome == Built) {
			if err := o.pin(ctx, &r); err != nil {
				return results, report, err
			}
		}
		results = append(results, r)
	}
	return results, report, nil
}

func (o *Options) result(output flywheel.Output, report *flywheel.Report) Result {
	r := Result{Installable: output.Installable, Outcome: Built, Seconds: output.Seconds, Results: output.Results, Pins: []string{}}
	var missing []string
	for _, p := range output.Results {
		if slices.Contains(report.Missing, p) {
			missing = append(missing, p)
		}
	}
	switch {
	case output.Outcome == string(event.Failed):
		r.Outcome, r.Message = Failed, output.Message
	case output.Outcome == string(event.Skipped):
		r.Outcome = Warm
	case len(missing) > 0 || report.Cache == "":
		r.Outcome = Cold
		r.Message = fmt.Sprintf("not in the cache: %s", strings.Join(append(missing, report.CacheErrors...), "; "))
	}
	return r
}

// pin keeps an installable's results, each under a name that the next run finds
// again.
func (o *Options) pin(ctx context.Context, r *Result) error {
	for _, p := range r.Results {
		name := o.Pin + "/" + slug(r.Installable)
		if len(r.Results) > 1 {
			name += "/" + outputName(p)
		}
		report, err := flywheel.Push(ctx, flywheel.PushOptions{Options: o.Options, Paths: []string{p}, Pin: name, Keep: o.Keep})
		if err != nil {
			return fmt.Errorf("pinning %s: %w", p, err)
		}
		if len(report.CacheErrors)+len(report.Missing) > 0 {
			r.Outcome = Cold
			r.Message = fmt.Sprintf("%s is not pinned: %s", p, strings.Join(report.CacheErrors, "; "))
			return nil
		}
		r.Pins = append(r.Pins, name)
	}
	return nil
}

var unfit = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// slug makes a part of a name out of an installable.
func slug(installable string) string {
	s := strings.Trim(unfit.ReplaceAllString(installable, "-"), "-.")
	const most = 120 // of the 200 bytes that a pin's name may have
	if len(s) > most {
		s = s[len(s)-most:]
	}
	if s == "" {
		return "default"
	}
	return s
}

// outputName is a store path's name, without the hash that the next build changes.
func outputName(storePath string) string {
	_, name, ok := strings.Cut(path.Base(storePath), "-")
	if !ok {
		return path.Base(storePath)
	}
	return name
}

// OK says that the cache holds all.
func OK(results []Result) bool {
	for _, r := range results {
		if r.Outcome == Failed || r.Outcome == Cold {
			return false
		}
	}
	return true
}

// Table writes a line for each result.
func Table(w io.Writer, results []Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range results {
		message := essence(r.Message)
		if message == "" {
			message = strings.Join(r.Results, " ")
		}
		fmt.Fprintf(t, "%s\t%s\t%.1fs\t%s\n", r.Installable, r.Outcome, r.Seconds, message)
	}
	return t.Flush()
}

// essence is the line of a message that says what is wrong: nix's own begins with
// what it warns of, and where it looked.
func essence(message string) string {
	first, _, _ := strings.Cut(message, "\n")
	for line := range strings.Lines(message) {
		if strings.HasPrefix(line, "error:") {
			return strings.TrimSpace(line)
		}
	}
	return first
}
