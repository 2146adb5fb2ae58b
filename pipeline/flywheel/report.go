package flywheel

import (
	"encoding/json"
	"fmt"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/atomicfile"
)

// Outcomes of a build.
const (
	Built  = "built"
	Failed = "failed"
)

// Report is what a run did. Its JSON form is that of --report.
type Report struct {
	Schema      int      `json:"schema"` // 1
	Outcome     string   `json:"outcome"`
	Seconds     float64  `json:"seconds"`
	Built       int      `json:"built"`       // derivations
	Substituted int      `json:"substituted"` // store paths
	Results     []string `json:"results"`
	Pushed      Pushed   `json:"pushed"`
	Missing     []string `json:"missing"` // store paths that the cache should hold and does not
	CacheErrors []string `json:"cacheErrors"`
	Cache       string   `json:"cache"` // that was pushed to; empty when none answered
	// TimeSaved is what building the substituted paths took when they were
	// pushed, in seconds of all builds together, as far as the cache knows.
	TimeSaved float64 `json:"timeSaved"`
	// Saved tells it of each path of which it is known, the longest first.
	Saved []Saved `json:"saved,omitempty"`
	// Outputs are the installables that were built each by itself.
	Outputs []Output `json:"outputs,omitempty"`
	// Unpinned are store paths that were to be pinned and are not.
	Unpinned []string `json:"unpinned,omitempty"`

	// AlreadyThere counts the paths of the results' closure that were valid
	// before the run.
	AlreadyThere int `json:"-"`
	// Message is nix's own account of a failed build.
	Message string `json:"-"`
}

// Saved is a path that was substituted and what building it took last time.
type Saved struct {
	Path    string  `json:"path"`
	Seconds float64 `json:"seconds"`
}

// Output is one installable of several.
type Output struct {
	Installable string   `json:"installable"`
	Outcome     string   `json:"outcome"` // done, skipped or failed
	Seconds     float64  `json:"seconds"`
	Results     []string `json:"results"`
	Message     string   `json:"message,omitempty"` // nix's, of a failure; else why it was skipped
}

// Pushed is what the cache was sent.
type Pushed struct {
	Paths     int   `json:"paths"`
	NarBytes  int64 `json:"narBytes"`
	SentBytes int64 `json:"sentBytes"` // bodies of requests
}

// Write stores the report as a file, whole or not at all.
func (r *Report) Write(file string) error {
	filled := *r
	for _, list := range []*[]string{&filled.Results, &filled.Missing, &filled.CacheErrors} {
		if *list == nil {
			*list = []string{} // [] in JSON, not null
		}
	}
	text, err := json.MarshalIndent(filled, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := atomicfile.Write(file, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}
