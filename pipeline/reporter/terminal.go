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
	if n := len(t.drawn); n > 0 {
		// Up to the first line of the bottom, and away with it.
		fmt.Fprintf(&b, "\r\x1b[%dA\x1b[J", n)
	}
	b.WriteString(said[:end])
	for _, line := range bottom {
		b.WriteString(line + "\n")
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
		lines = append(lines, clip(fmt.Sprintf("  %6s %s", short(took), nameOf(drv)), width))
	}
	return lines
}

func clip(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}
