package main

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/dustin/go-humanize"
)

// table is a Markdown table. All columns but the first hold numbers.
type table struct {
	columns []string
	rows    [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(w io.Writer, title, note string) {
	fmt.Fprintf(w, "## %s\n\n%s\n\n", title, note)
	line := func(cells []string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.columns)
	rule := make([]string, len(t.columns))
	for i := range rule {
		rule[i] = "---:"
	}
	rule[0] = "---"
	line(rule)
	for _, r := range t.rows {
		line(r)
	}
	fmt.Fprintln(w)
}

// unknown stands where there is no number.
const unknown = "–"

func ratioText(r float64) string {
	switch {
	case math.IsNaN(r) || math.IsInf(r, 0):
		return unknown // too short to be measured
	case r >= 10:
		return fmt.Sprintf("%.0f", r)
	}
	return fmt.Sprintf("%.2f", r)
}

func part(n, of int64) string {
	if of == 0 {
		return unknown
	}
	return fmt.Sprintf("%.3f", float64(n)/float64(of))
}

func percent(n, of int64) string {
	if of == 0 {
		return unknown
	}
	return fmt.Sprintf("%.1f %%", 100*float64(n)/float64(of))
}

func count(n int64) string { return humanize.Comma(n) }
