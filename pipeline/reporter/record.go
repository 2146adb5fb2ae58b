package reporter

import (
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
)

// kept bounds each list of a Record, of a run that builds more than anybody reads.
const kept = 20_000

// Record is what a run did, as far as its events tell. It is an observer.
type Record struct {
	mu sync.Mutex

	Steps        []Step        `json:"steps"`
	Installables []Installable `json:"installables"`
	Derivations  []Derivation  `json:"derivations"`
	Fetched      int           `json:"fetched"` // store paths
	Held         int           `json:"held"`    // paths that the cache had already
	Pushed       []PushedPath  `json:"pushed"`
	Faults       []string      `json:"faults"` // of caches
}

// Step is a step of the run.
type Step struct {
	Name    string        `json:"name"`
	Outcome event.Outcome `json:"outcome"`
	Seconds float64       `json:"seconds"`
	Text    string        `json:"text"`
}

// Installable is one of several that were built each by itself.
type Installable struct {
	Name    string        `json:"name"`
	Outcome event.Outcome `json:"outcome"`
	Seconds float64       `json:"seconds"`
	Results []string      `json:"results"`
	Text    string        `json:"text,omitempty"`
}

// Derivation is one that this run built, or tried to.
type Derivation struct {
	Path    string  `json:"path"`
	Failed  bool    `json:"failed"`
	Seconds float64 `json:"seconds"`
}

// PushedPath is a path that was sent.
type PushedPath struct {
	Path    string  `json:"path"`
	NarSize int64   `json:"narSize"` // bytes
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"` // it is not in the cache
}

// NewRecord returns an empty record, whose lists are empty and not null in JSON.
func NewRecord() *Record {
	return &Record{
		Steps: []Step{}, Installables: []Installable{}, Derivations: []Derivation{},
		Pushed: []PushedPath{}, Faults: []string{},
	}
}

// Observe implements event.Observer.
func (r *Record) Observe(e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e := e.(type) {
	case event.StepEnded:
		r.Steps = keep(r.Steps, Step{e.Step, e.Outcome, e.Took.Seconds(), e.Text})
	case event.InstallableEnded:
		r.Installables = keep(r.Installables, Installable{
			e.Installable, e.Outcome, e.Took.Seconds(), slices.Concat([]string{}, e.Results), e.Text,
		})
	case event.BuildEnded:
		r.Derivations = keep(r.Derivations, Derivation{e.Derivation, e.Failed, e.Took.Seconds()})
	case event.FetchEnded:
		r.Fetched++
	case event.PathHeld:
		r.Held++
	case event.PathPushed:
		p := PushedPath{Path: e.Path, NarSize: e.NarSize, Seconds: e.Took.Seconds()}
		if e.Err != nil {
			p.Error = e.Err.Error()
		}
		r.Pushed = keep(r.Pushed, p)
	case event.CacheFault:
		r.Faults = keep(r.Faults, e.Text)
	}
}

func keep[T any](list []T, one T) []T {
	if len(list) == kept {
		return list
	}
	return append(list, one)
}

// nameOf is what people call a store path or a derivation: without the directory,
// the hash and ".drv".
func nameOf(storePath string) string {
	base := path.Base(storePath)
	if _, name, err := storepath.Split(base); err == nil {
		base = name
	}
	return strings.TrimSuffix(base, ".drv")
}

// short writes a duration for people, in whole seconds from one second on.
func short(d time.Duration) string {
	if d < time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
