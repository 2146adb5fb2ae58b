package flywheel

import (
	"fmt"
	"io"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
)

// console tells the observer of steps and of what was said meanwhile.
type console struct{ event.Observer }

// newConsole tells whoever the options name, or else writes plain lines.
func newConsole(observer event.Observer, out io.Writer) *console {
	if observer == nil {
		observer = event.NewPlain(out)
	}
	return &console{observer}
}

// Write lets nix's output through.
func (c *console) Write(b []byte) (int, error) {
	c.Observe(event.Output{Text: string(b)})
	return len(b), nil
}

// begin tells that a step begins and returns when.
func (c *console) begin(name string) time.Time {
	c.Observe(event.StepBegan{Step: name})
	return time.Now()
}

// step tells of a step's end; since is when it began.
func (c *console) step(name string, since time.Time, format string, args ...any) {
	c.end(name, since, event.Done, format, args...)
}

// skip tells of a step that had nothing to do.
func (c *console) skip(name string, since time.Time, format string, args ...any) {
	c.end(name, since, event.Skipped, format, args...)
}

// fail tells of a step that did not do what it is for.
func (c *console) fail(name string, since time.Time, format string, args ...any) {
	c.end(name, since, event.Failed, format, args...)
}

func (c *console) end(name string, since time.Time, outcome event.Outcome, format string, args ...any) {
	c.Observe(event.StepEnded{Step: name, Took: time.Since(since), Outcome: outcome, Text: fmt.Sprintf(format, args...)})
}

// goesOn tells how far a step is that takes long.
func (c *console) goesOn(name string, since time.Time, format string, args ...any) {
	c.Observe(event.StepGoesOn{Step: name, Took: time.Since(since), Text: fmt.Sprintf(format, args...)})
}

// note tells a line that belongs to the step before.
func (c *console) note(format string, args ...any) {
	c.Observe(event.Note{Text: fmt.Sprintf(format, args...)})
}

// size is how the run's lines write a number of bytes.
func size(n int64) string { return bytesize.Tenths(n) }

// count writes "1 path", "2 paths".
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
