package reporter

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
)

// activity is what goes on now. It is not safe for use by several goroutines.
type activity struct {
	step      string
	began     time.Time // of the step
	builds    map[string]time.Time
	fetches   map[string]time.Time
	pushes    map[string]pushing
	queued    int
	expected  int // builds, of which some have ended
	built     int
	failed    int
	fetched   int
	pushed    int
	sentBytes int64 // of NARs, of all paths so far
	sentPaths int64 // of paths that have ended

	rate rate
}

type pushing struct{ done, size int64 }

func newActivity() *activity {
	return &activity{builds: map[string]time.Time{}, fetches: map[string]time.Time{}, pushes: map[string]pushing{}}
}

// observe takes an event in; now is when it came.
func (a *activity) observe(e event.Event, now time.Time) {
	switch e := e.(type) {
	case event.StepBegan:
		a.step, a.began = e.Step, now
	case event.StepEnded:
		if a.step == e.Step {
			a.step = ""
		}
		if e.Step == "build" {
			// What an interrupted nix was at, it does not tell the end of.
			clear(a.builds)
			clear(a.fetches)
		}
	case event.BuildsExpected:
		a.expected += e.Change
	case event.BuildBegan:
		a.builds[e.Derivation] = now
	case event.BuildEnded:
		delete(a.builds, e.Derivation)
		if e.Failed {
			a.failed++
		} else {
			a.built++
		}
	case event.FetchBegan:
		a.fetches[e.Path] = now
	case event.FetchEnded:
		delete(a.fetches, e.Path)
		a.fetched++
	case event.PathPushing:
		a.pushes[e.Path] = pushing{size: e.NarSize}
	case event.PathSent:
		a.sent(e.Path, e.Bytes, now)
	case event.PathPushed:
		if e.Err == nil {
			a.sent(e.Path, e.NarSize, now)
			a.pushed++
			a.sentPaths += e.NarSize
		}
		delete(a.pushes, e.Path)
	case event.PushQueued:
		a.queued = e.Paths
	}
}

// sent counts the bytes of a path's NAR that have passed. A path that is tried
// again begins anew, and counts no byte twice.
func (a *activity) sent(path string, done int64, now time.Time) {
	p, ok := a.pushes[path]
	if !ok {
		return
	}
	if done > p.done {
		a.sentBytes += done - p.done
		p.done = done
		a.pushes[path] = p
	}
	a.rate.add(now, a.sentBytes)
}

// line is what goes on, but for pushes, in one line; now is the time.
func (a *activity) line(now time.Time) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if a.step != "" {
		add("%s %s", a.step, short(now.Sub(a.began)))
	}
	if n := len(a.builds); n > 0 {
		add("%d building", n)
	}
	if n := len(a.fetches); n > 0 {
		add("%d fetching", n)
	}
	switch {
	case a.expected > a.built:
		add("%d of %d built", a.built, a.expected)
	case a.built > 0:
		add("%d built", a.built)
	}
	if a.failed > 0 {
		add("%d failed", a.failed)
	}
	if a.fetched > 0 {
		add("%d fetched", a.fetched)
	}
	if a.pushed > 0 {
		add("%d pushed", a.pushed)
	}
	return strings.Join(parts, " · ")
}

// pushLine is what is on its way to the cache, or empty.
func (a *activity) pushLine(now time.Time) string {
	left := max(a.queued, len(a.pushes))
	if left == 0 {
		return ""
	}
	line := fmt.Sprintf("%d to push", left)
	if len(a.pushes) > 0 {
		var done, total int64
		for _, p := range a.pushes {
			done, total = done+p.done, total+p.size
		}
		line += fmt.Sprintf(", %s of %s", bytesize.Text(done), bytesize.Text(total))
	}
	if perSecond := a.rate.at(now); perSecond > 0 {
		line += fmt.Sprintf(", %s/s, %s left", bytesize.Text(int64(perSecond)), short(max(time.Second, a.estimate(left, perSecond))))
	}
	if path := a.largest(); path != "" {
		line += ": " + nameOf(path)
	}
	return line
}

// largest returns the path on its way to the cache of which most is left.
func (a *activity) largest() (path string) {
	var most int64
	for p, of := range a.pushes {
		if left := of.size - of.done; path == "" || left > most || left == most && p < path {
			path, most = p, left
		}
	}
	return path
}

// estimate is how long what is left will take. Of paths that only wait, the sizes
// are not known: they count as the average of those that went.
func (a *activity) estimate(left int, perSecond float64) time.Duration {
	var toSend float64
	for _, p := range a.pushes {
		toSend += float64(p.size - p.done)
	}
	if waiting := left - len(a.pushes); waiting > 0 && a.pushed > 0 {
		toSend += float64(waiting) * float64(a.sentPaths) / float64(a.pushed)
	}
	return time.Duration(toSend / perSecond * float64(time.Second))
}

// longest returns what is being built, those first that take longest.
func (a *activity) longest() []string {
	return slices.SortedFunc(maps.Keys(a.builds), func(x, y string) int {
		return cmp.Or(a.builds[x].Compare(a.builds[y]), cmp.Compare(x, y))
	})
}

// rate is how fast a count grew in the last seconds.
type rate struct{ samples []sample }

type sample struct {
	at    time.Time
	count int64
}

const rateWindow = 5 * time.Second

func (r *rate) add(now time.Time, count int64) {
	if n := len(r.samples); n > 0 && now.Sub(r.samples[n-1].at) < rateWindow/20 {
		r.samples[n-1].count = count // bounds how many there are
		return
	}
	r.samples = append(r.samples, sample{now, count})
}

// at returns the growth in a second, 0 where it is not known yet.
func (r *rate) at(now time.Time) float64 {
	for len(r.samples) > 2 && now.Sub(r.samples[1].at) > rateWindow {
		r.samples = r.samples[1:]
	}
	if len(r.samples) < 2 {
		return 0
	}
	first, last := r.samples[0], r.samples[len(r.samples)-1]
	if now.Sub(last.at) > rateWindow {
		return 0
	}
	return float64(last.count-first.count) / now.Sub(first.at).Seconds()
}
