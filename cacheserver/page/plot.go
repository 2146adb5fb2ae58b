package page

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// The drawing, in units of its viewBox.
const (
	plotWidth, plotHeight                    = 400, 190
	plotLeft, plotRight, plotTop, plotBottom = 58, 10, 8, 24
)

// line is a series of samples with a name.
type line struct {
	name    string
	samples []index.Sample
	filled  bool
}

// plot is a drawing of lines over time, as the template writes it.
type plot struct {
	Title, Note   string
	Summary       string // what it shows, for those who do not see it
	Empty         bool
	Lines         []drawn
	Ys, Xs        []tick
	Width, Height int
	Left, Right   int // the edges of what is drawn
	Top, Bottom   int
}

type drawn struct {
	Name, Now  string
	Path, Area string // as in the attribute d
}

type tick struct{ At, Label string }

// scale says where the ticks of values up to a largest one are, and writes them.
type scale func(largest float64) (step float64, text func(float64) string)

// unit is what values are measured in.
type unit struct {
	ticks scale
	text  func(float64) string // a value by itself
}

var (
	inBytes   = unit{byteTicks, func(v float64) string { return bytesize.Text(int64(v)) }}
	inPercent = unit{percentTicks, percentText}
	inFactors = unit{factorTicks, factorText}
)

func newPlot(h *history, title, note string, in unit, lines ...line) plot {
	p := plot{
		Title: title, Note: note, Empty: true, Width: plotWidth, Height: plotHeight,
		Left: plotLeft, Right: plotWidth - plotRight, Top: plotTop, Bottom: plotHeight - plotBottom,
	}
	var largest float64
	for _, l := range lines {
		for _, s := range l.samples {
			p.Empty = false
			largest = max(largest, s.Value)
		}
	}
	if p.Empty {
		p.Summary = "nothing was recorded yet"
		return p
	}
	step, text := in.ticks(largest)
	top := max(math.Ceil(largest/step-1e-9), 1) * step
	y := func(v float64) float64 {
		return float64(p.Bottom) - v/top*float64(p.Bottom-p.Top)
	}
	for v := 0.0; v <= top*(1+1e-9); v += step {
		p.Ys = append(p.Ys, tick{coordinate(y(v)), text(v)})
	}
	x := func(at time.Time) float64 {
		return float64(p.Left) + float64(at.Sub(h.from))/float64(h.to.Sub(h.from))*float64(p.Right-p.Left)
	}
	p.Xs = timeTicks(h.from, h.to, x)
	var told []string
	for _, l := range lines {
		d := drawn{Name: l.name}
		if n := len(l.samples); n > 0 {
			d.Now = in.text(l.samples[n-1].Value)
			told = append(told, fmt.Sprintf("%s: %s at first, %s at last", l.name, in.text(l.samples[0].Value), d.Now))
		}
		d.Path, d.Area = draw(l.samples, x, y, p.Bottom)
		if !l.filled {
			d.Area = ""
		}
		p.Lines = append(p.Lines, d)
	}
	p.Summary = strings.Join(told, "; ")
	return p
}

// draw returns a line through samples, and the area under it.
func draw(samples []index.Sample, x func(time.Time) float64, y func(float64) float64, bottom int) (path, area string) {
	if len(samples) == 0 {
		return "", ""
	}
	var b strings.Builder
	for i, s := range samples {
		command := "L"
		if i == 0 {
			command = "M"
		}
		b.WriteString(command + coordinate(x(s.At)) + " " + coordinate(y(s.Value)))
	}
	if len(samples) == 1 {
		return b.String() + "h.01", "" // a dot, where the line's ends are round
	}
	return b.String(), fmt.Sprintf("%sV%dH%sZ", b.String(), bottom, coordinate(x(samples[0].At)))
}

func coordinate(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }

// nice is the least of 1, 2, 2.5 and 5 times a power of ten that is not below v.
func nice(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if v <= m*power*(1+1e-9) {
			return m * power
		}
	}
	return 10 * power
}

func byteTicks(largest float64) (float64, func(float64) string) {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	unit, n := 1.0, 0
	for largest/unit >= 1024 && n < len(units)-1 {
		unit, n = unit*1024, n+1
	}
	return nice(max(largest/unit, 1)/4) * unit, func(v float64) string {
		if v == 0 {
			return "0"
		}
		return strconv.FormatFloat(math.Round(v/unit*10)/10, 'f', -1, 64) + " " + units[n]
	}
}

func percentTicks(float64) (float64, func(float64) string) {
	return 0.25, func(v float64) string { return strconv.FormatFloat(math.Round(v*1000)/10, 'f', -1, 64) + " %" }
}

func factorTicks(largest float64) (float64, func(float64) string) {
	return nice(max(largest, 1) / 4), func(v float64) string {
		return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) + "×"
	}
}

// timeTicks puts at most six marks on round times, in UTC.
func timeTicks(from, to time.Time, x func(time.Time) float64) []tick {
	const most = 6
	step := 30 * dayTime
	for _, s := range []time.Duration{
		10 * time.Minute, 30 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, dayTime, 2 * dayTime, 7 * dayTime, 14 * dayTime,
	} {
		if to.Sub(from)/s < most {
			step = s
			break
		}
	}
	layout := "2 Jan"
	if step < dayTime {
		layout = "15:04"
	}
	var ticks []tick
	for at := from.UTC().Truncate(step).Add(step); at.Before(to); at = at.Add(step) {
		ticks = append(ticks, tick{coordinate(x(at)), at.Format(layout)})
	}
	return ticks
}
