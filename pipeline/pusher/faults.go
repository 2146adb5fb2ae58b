package pusher

import (
	"errors"
	"fmt"
	"path"
)

// faults counts errors by their cause, in the order in which they first came.
type faults struct {
	causes []string
	counts map[string]int
	first  map[string]string // the path that a cause first hit
}

func (f *faults) add(err error) {
	var p *pathError
	hit := ""
	if errors.As(err, &p) {
		err, hit = p.err, path.Base(p.path)
	}
	cause := err.Error()
	if f.counts == nil {
		f.counts, f.first = map[string]int{}, map[string]string{}
	}
	if f.counts[cause] == 0 {
		f.causes = append(f.causes, cause)
		f.first[cause] = hit
	}
	f.counts[cause]++
}

func (f *faults) lines() []string {
	var lines []string
	for _, cause := range f.causes {
		line := cause
		switch n, hit := f.counts[cause], f.first[cause]; {
		case n > 1 && hit != "":
			line += fmt.Sprintf(" (%d times, first for %s)", n, hit)
		case n > 1:
			line += fmt.Sprintf(" (%d times)", n)
		case hit != "":
			line += fmt.Sprintf(" (for %s)", hit)
		}
		lines = append(lines, line)
	}
	return lines
}
