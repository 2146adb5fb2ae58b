package flywheel

import (
	"cmp"
	"context"
	"slices"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/target"
)

// historyTime bounds the question what paths took to build: a summary waits for
// it, and can do without.
const historyTime = 5 * time.Second

// saved fills in what building the substituted paths took last time. The outputs
// of one derivation were built together, and count once.
func (r *run) saved(ctx context.Context, fresh []nix.PathInfo, report *Report) {
	historian, ok := r.target.(target.Historian)
	if !ok {
		return
	}
	var hashes []string
	for _, p := range fresh {
		if p.Substituted() {
			hashes = append(hashes, storepath.Hash(p.Path))
		}
	}
	if len(hashes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, historyTime)
	defer cancel()
	times, err := historian.BuildTimes(ctx, hashes)
	if err != nil {
		r.console.note("how long the substituted paths took to build is not known: %v", err)
		return
	}
	counted := map[string]bool{}
	for _, p := range fresh {
		took := times[storepath.Hash(p.Path)]
		if !p.Substituted() || took == 0 {
			continue
		}
		report.Saved = append(report.Saved, Saved{Path: p.Path, Seconds: took.Seconds()})
		if p.Deriver == "" || !counted[p.Deriver] {
			counted[p.Deriver] = true
			report.TimeSaved += took.Seconds()
		}
	}
	slices.SortFunc(report.Saved, func(a, b Saved) int {
		return cmp.Or(cmp.Compare(b.Seconds, a.Seconds), cmp.Compare(a.Path, b.Path))
	})
}

// duration writes seconds for people: 2.5s, 1m30s, 1h2m0s.
func duration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
