package flywheel

import (
	"fmt"
	"strings"
)

// Markdown returns the report for a merge request or a job's summary.
func (r *Report) Markdown() string {
	var b strings.Builder
	mark, what := "✅", r.Outcome
	switch {
	case what == "" && len(r.Missing) == 0:
		what = "pushed" // there was no build
	case what == "":
		mark, what = "❌", "not pushed whole"
	case what != Built:
		mark = "❌"
	}
	fmt.Fprintf(&b, "### %s %s in %.1f s\n\n", mark, what, r.Seconds)
	b.WriteString("| built | substituted | pushed | sent | missing |\n|---|---|---|---|---|\n")
	fmt.Fprintf(&b, "| %d | %d | %s of %s | %s | %d |\n", r.Built, r.Substituted,
		count(r.Pushed.Paths, "path"), size(r.Pushed.NarBytes), size(r.Pushed.SentBytes), len(r.Missing))
	list := func(title string, items []string) {
		if len(items) == 0 {
			return
		}
		fmt.Fprintf(&b, "\n%s:\n", title)
		for _, i := range items {
			fmt.Fprintf(&b, "- `%s`\n", i)
		}
	}
	list("Results", r.Results)
	list("Cache faults", r.CacheErrors)
	list("Missing in the cache", r.Missing)
	if r.Message != "" {
		fmt.Fprintf(&b, "\n```\n%s\n```\n", strings.TrimSpace(r.Message))
	}
	return b.String()
}
