// Package event is what a run tells while it goes on: typed events, for those
// who show them. A run knows nothing of terminals, job logs or report files; an
// Observer does.
package event

import "time"

// Event is one of the types of this package.
type Event interface{ event() }

// Observer is told of each event as it happens. Observe may be called by
// several goroutines at once. A build waits for it: what takes long is for a
// goroutine of the observer's own.
type Observer interface{ Observe(Event) }

// Func is a function as an Observer.
type Func func(Event)

// Observe implements Observer.
func (f Func) Observe(e Event) { f(e) }

// Discard observes nothing.
var Discard Observer = Func(func(Event) {})

// Tee returns an observer that tells several, in order.
func Tee(observers ...Observer) Observer {
	return Func(func(e Event) {
		for _, o := range observers {
			o.Observe(e)
		}
	})
}

// Outcome is how a step, or the building of an installable, ended.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"
	Skipped Outcome = "skipped"
	Failed  Outcome = "failed"
)

// StepBegan and StepEnded are around each step of a run: "substituters",
// "bootstrap", "watch", "build", "drain", "closure push", "summary" and so on.
// Steps follow one another. A step that never began may end, at once: it had
// nothing to do.
type (
	StepBegan struct{ Step string }
	StepEnded struct {
		Step    string
		Took    time.Duration
		Outcome Outcome
		Text    string // one line
	}
)

// StepGoesOn tells now and then of a step that takes long how far it is.
type StepGoesOn struct {
	Step string
	Took time.Duration
	Text string
}

// Note is a line that belongs to the step before.
type Note struct{ Text string }

// Output is what Nix, or another program that the run started, said: one or
// several lines, or, where the program's output cannot be told apart, a part of
// one.
type Output struct{ Text string }

// BuildBegan and BuildEnded are around the building of each derivation (full
// store path), in this run's own process of nix.
type (
	BuildBegan struct{ Derivation string }
	BuildEnded struct {
		Derivation string
		Took       time.Duration
		Failed     bool
	}
)

// BuildsExpected tells that a process of nix expects to build so many derivations
// more than it did, or fewer, those that have ended among them.
type BuildsExpected struct{ Change int }

// FetchBegan and FetchEnded are around the fetching of each path from a cache.
type (
	FetchBegan struct{ Path, From string }
	FetchEnded struct {
		Path, From string
		Took       time.Duration
	}
)

// PathPushing, PathSent and PathPushed tell of a path on its way to the cache:
// it begins, so many bytes of its NAR were read and sent as far as the cache
// lacked them, and it has ended, with an error where the cache does not hold it
// now.
type (
	PathPushing struct {
		Path    string
		NarSize int64
	}
	PathSent struct {
		Path           string
		Bytes, NarSize int64
	}
	PathPushed struct {
		Path    string
		NarSize int64
		Took    time.Duration
		Err     error
	}
)

// PathHeld is a path that the cache was asked about and holds already.
type PathHeld struct{ Path string }

// PushQueued is how many paths wait for the cache or are on their way, told
// when it changes.
type PushQueued struct{ Paths int }

// InstallableEnded is the end of one of several installables that are built
// each by itself.
type InstallableEnded struct {
	Installable string
	Outcome     Outcome
	Took        time.Duration
	Results     []string // store paths
	Text        string   // of a failure, nix's own words; else why it was skipped
}

// CacheFault is a fault of a cache, in a line, once of each kind as far as can
// be told.
type CacheFault struct{ Text string }

func (StepBegan) event()        {}
func (StepEnded) event()        {}
func (StepGoesOn) event()       {}
func (Note) event()             {}
func (Output) event()           {}
func (BuildsExpected) event()   {}
func (BuildBegan) event()       {}
func (BuildEnded) event()       {}
func (FetchBegan) event()       {}
func (FetchEnded) event()       {}
func (PathPushing) event()      {}
func (PathSent) event()         {}
func (PathPushed) event()       {}
func (PathHeld) event()         {}
func (PushQueued) event()       {}
func (InstallableEnded) event() {}
func (CacheFault) event()       {}
