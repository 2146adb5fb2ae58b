package config

import (
	"fmt"
	"slices"
	"strings"
)

// Fault is a setting that cannot be used.
type Fault struct {
	File   string // empty where it comes from no file
	Line   int    // in File; 0: it is about the file as a whole
	Key    string // in File, or the name of the flag or variable; may be empty
	Reason string // names no secret
}

func (f *Fault) Error() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	return b.String() + f.Reason
}

// Faults are all that were found, those of a file in the order of its lines.
type Faults []*Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.Error()
	}
	return strings.Join(lines, "\n")
}

// err is nil where there are none.
func (f Faults) err() error {
	if len(f) == 0 {
		return nil
	}
	slices.SortStableFunc(f, func(a, b *Fault) int { return a.Line - b.Line })
	return f
}

// suggest says which of the known names is meant by one that is none of them.
func suggest(name string, known []string) string {
	best, distance := "", len(name)/3+2
	for _, k := range known {
		if d := editDistance(strings.ToLower(name), k); d < distance {
			best, distance = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("there is no such setting; did you mean %s?", best)
	}
	const few = 10
	switch {
	case len(known) == 0:
		return "there is no such setting"
	case len(known) > few:
		return "there is no such setting; cacheserver config example shows all"
	}
	return "there is no such setting; there are " + strings.Join(known, ", ")
}

// editDistance counts the bytes to be put in, taken out or replaced (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
