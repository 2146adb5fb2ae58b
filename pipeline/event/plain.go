package event

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Plain writes a line for each step as it ends, with its duration, and what
// programs said as it comes. It is for logs and for whoever reads them later:
// nothing is written twice, moved or coloured.
type Plain struct {
	mu  sync.Mutex
	out io.Writer
}

// NewPlain returns a Plain that writes to out.
func NewPlain(out io.Writer) *Plain { return &Plain{out: out} }

// Observe implements Observer. An output that cannot be written to is nothing
// that a build should end for.
func (p *Plain) Observe(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := e.(type) {
	case StepEnded:
		p.step(e.Step, e.Took, e.Text)
	case StepGoesOn:
		p.step(e.Step, e.Took, e.Text)
	case Note:
		_, _ = fmt.Fprintf(p.out, "%-23s%s\n", "", e.Text)
	case Output:
		_, _ = io.WriteString(p.out, e.Text)
	case InstallableEnded:
		p.installable(e)
	}
}

func (p *Plain) step(name string, took time.Duration, text string) {
	_, _ = fmt.Fprintf(p.out, "%-13s %7.1fs  %s\n", name, took.Seconds(), text)
}

func (p *Plain) installable(e InstallableEnded) {
	text := e.Installable
	switch {
	case e.Outcome == Failed:
		text += " failed"
	case e.Text != "":
		text += " " + e.Text
	}
	p.step("  built", e.Took, text)
}
