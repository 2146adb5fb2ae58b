package reporter

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
)

const (
	// silence is after how long without a word a job's log gets a line: a job that
	// says nothing looks as if it hung, and some runners end it.
	silence = 30 * time.Second
	// logHead is how many bytes of what programs say go into a job's log as they
	// come, and logTail how many of the last after that. GitLab ends a log at 4 MiB.
	logHead = 1 << 20
	logTail = 64 << 10
)

// folds is how a log's lines are put together so that they can be hidden.
type folds interface {
	open(w io.Writer, now time.Time, title string)
	close(w io.Writer, now time.Time)
}

// jobLog writes a log that is read on a web page: what programs say in a step
// stands in a fold, the step's end in a line below.
type jobLog struct {
	out   io.Writer
	folds folds
	now   func() time.Time
	stop  func() // the heartbeat
	head  int    // of logHead, left

	mu      sync.Mutex
	act     *activity
	open    bool
	midLine bool      // what was written last has no end of line
	spoke   time.Time // when it was
	tail    []byte
	cut     int64 // bytes that came after the head
}

func newJobLog(o Options, f folds) *jobLog {
	l := &jobLog{out: o.Out, folds: f, now: o.now, act: newActivity(), head: logHead, spoke: o.now()}
	l.stop = o.every(silence/10, l.beat)
	return l
}

// Observe implements event.Observer.
func (l *jobLog) Observe(e event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.act.observe(e, now)
	switch e := e.(type) {
	case event.StepEnded:
		l.endFold(now)
		l.step(e.Step, e.Took, e.Text)
	case event.Note:
		l.line(fmt.Sprintf("%-23s%s", "", e.Text))
	case event.Output:
		l.output(e.Text)
	case event.InstallableEnded:
		text := e.Installable
		if e.Outcome == event.Failed {
			text += " failed"
		} else if e.Text != "" {
			text += " " + e.Text
		}
		l.step("  built", e.Took, text)
	}
}

// finish ends the fold and the heartbeat.
func (l *jobLog) finish() {
	l.stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endFold(l.now())
}

func (l *jobLog) step(name string, took time.Duration, text string) {
	l.line(fmt.Sprintf("%-13s %7.1fs  %s", name, took.Seconds(), text))
}

// line writes a line of our own.
func (l *jobLog) line(text string) {
	l.write([]byte(text + "\n"))
}

// write ends a line that has no end first. An output that cannot be written to is
// nothing that a build should end for.
func (l *jobLog) write(text []byte) {
	if l.midLine {
		text = append([]byte{'\n'}, text...)
	}
	l.midLine = text[len(text)-1] != '\n'
	_, _ = l.out.Write(text)
	l.spoke = l.now()
}

func (l *jobLog) output(text string) {
	if text == "" {
		return
	}
	if !l.open {
		title := l.act.step
		if title == "" {
			title = "output"
		}
		l.endLine()
		l.folds.open(l.out, l.now(), title)
		l.open = true
	}
	if n := min(l.head, len(text)); n > 0 {
		l.head -= n
		_, _ = io.WriteString(l.out, text[:n])
		l.midLine = text[n-1] != '\n'
		l.spoke = l.now()
		text = text[n:]
	}
	if text != "" {
		l.cut += int64(len(text))
		l.tail = append(l.tail, text...)
		if len(l.tail) > 2*logTail {
			l.tail = append(l.tail[:0], l.tail[len(l.tail)-logTail:]...)
		}
	}
}

func (l *jobLog) endLine() {
	if l.midLine {
		_, _ = io.WriteString(l.out, "\n")
		l.midLine = false
	}
}

func (l *jobLog) endFold(now time.Time) {
	if !l.open {
		return
	}
	if l.cut > 0 {
		tail := l.tail[max(0, len(l.tail)-logTail):]
		if _, whole, ok := strings.Cut(string(tail), "\n"); ok && int64(len(tail)) < l.cut {
			tail = []byte(whole)
		}
		if left := l.cut - int64(len(tail)); left > 0 {
			l.line(fmt.Sprintf("… %s left out, since a job's log has its bounds; the last lines:", bytesize.Text(left)))
		}
		if len(tail) > 0 {
			l.write(tail)
		}
		l.tail, l.cut = nil, 0
	}
	l.endLine()
	l.folds.close(l.out, now)
	l.open = false
}

// beat tells what goes on when nothing was told for a while.
func (l *jobLog) beat() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if now.Sub(l.spoke) < silence {
		return
	}
	text := l.act.line(now)
	if text == "" {
		return // nothing goes on
	}
	if p := l.act.pushLine(now); p != "" {
		text += " · " + p
	}
	if longest := l.act.longest(); len(longest) > 0 {
		const most = 3
		var names []string
		for _, drv := range longest[:min(most, len(longest))] {
			names = append(names, fmt.Sprintf("%s %s", nameOf(drv), short(now.Sub(l.act.builds[drv]))))
		}
		text += " · " + strings.Join(names, ", ")
	}
	l.line("… " + text)
}
