package reporter

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
)

const (
	// refresh is how often the lines at the bottom are drawn while nothing is said.
	refresh = 200 * time.Millisecond
	// shown is how many builds have a line of their own.
	shown = 4
	// longBuild is how long a build has taken when it gets one.
	longBuild = 2 * time.Second
)

// terminal writes what is said as it comes, and keeps below it some lines on what
// goes on now. Nix draws no bar of its own: it tells its progress as events.
type terminal struct {
	out     io.Writer
	columns func() int
	now     func() time.Time
	stop    func()
	plain   *event.Plain // writes to said

	mu       sync.Mutex
	act      *activity
	said     strings.Builder // since the last draw, whole lines and the start of one
	drawn    []string        // the lines at the bottom, as they stand there
	finished bool
}

func newTerminal(o Options) *terminal {
	t := &terminal{out: o.Out, columns: o.Columns, now: o.now, act: newActivity()}
	if t.columns == nil {
		t.columns = func() int { return 80 }
	}
	t.plain = event.NewPlain(&t.said)
	t.stop = o.every(refresh, t.draw)
	return t
}

// Observe implements event.Observer.
func (t *terminal) Observe(e event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.act.observe(e, t.now())
	if _, ok := e.(event.StepGoesOn); ok {
		return // the lines at the bottom tell that
	}
	t.plain.Observe(e)
	if strings.Contains(t.said.String(), "\n") {
		t.update()
	}
}

// Write lets through what is said beside the run.
func (t *terminal) Write(b []byte) (int, error) {
	t.Observe(event.Output{Text: string(b)})
	return len(b), nil
}

// Finish implements Reporter: what is left to say is said, and the lines at the
// bottom go.
func (t *terminal) Finish(*flywheel.Report) error {
	t.stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.finished = true
	if rest := t.said.String(); rest != "" && !strings.HasSuffix(rest, "\n") {
		t.said.WriteByte('\n')
	}
	t.update()
	return nil
}

func (t *terminal) draw() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.update()
}

// update writes the whole lines that were said, and draws the bottom anew where it
// is another.
func (t *terminal) update() {
	said := t.said.String()
	end := strings.LastIndexByte(said, '\n') + 1
	bottom := t.bottom()
	if end == 0 && slices.Equal(bottom, t.drawn) {
		return
	}
	var b strings.Builder
	if len(t.drawn) > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA", rows(t.drawn, t.columns()))
		if end > 0 {
			b.WriteString("\x1b[J") // what is said may take any number of rows
		}
	}
	b.WriteString(said[:end])
	for _, line := range bottom {
		// Over what stood there: a screen that is empty for a moment flickers.
		b.WriteString(line + "\x1b[K\n")
	}
	if len(bottom) < len(t.drawn) {
		b.WriteString("\x1b[J")
	}
	// In one piece, so that nobody sees half a picture. A terminal that is gone is
	// nothing that a build should end for.
	_, _ = io.WriteString(t.out, b.String())
	t.drawn = bottom
	t.said.Reset()
	t.said.WriteString(said[end:])
}

// bottom returns the lines on what goes on now.
func (t *terminal) bottom() []string {
	now := t.now()
	line := t.act.line(now)
	if t.finished || line == "" {
		return nil
	}
	// A line that reaches the last column would be two.
	width := max(20, t.columns()-1)
	lines := []string{clip(line, width)}
	if p := t.act.pushLine(now); p != "" {
		lines = append(lines, clip("  "+p, width))
	}
	most := len(lines) + shown
	for _, drv := range t.act.longest() {
		took := now.Sub(t.act.builds[drv])
		if len(lines) == most || took < longBuild {
			break
		}
		lines = append(lines, clip(fmt.Sprintf("  %6s %s", short(took), shorten(nameOf(drv), width-len("  123456 "))), width))
	}
	return lines
}

// rows returns how many rows lines take on a terminal that has become narrower
// since they were drawn: nearly all of them wrap such lines anew.
func rows(lines []string, columns int) int {
	n := 0
	for _, line := range lines {
		n += max(1, (utf8.RuneCountInString(line)+columns-1)/max(1, columns))
	}
	return n
}

// shorten leaves out the middle of a name that is too long: what tells it from
// others may stand at either end.
func shorten(name string, width int) string {
	runes := []rune(name)
	if len(runes) <= width || width < 5 {
		return name
	}
	end := width / 3
	return string(runes[:width-end-1]) + "…" + string(runes[len(runes)-end:])
}

func clip(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}
