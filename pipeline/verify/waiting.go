package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
)

const (
	firstPause = 500 * time.Millisecond // doubled after each attempt
	// longestPause is short enough to see a recovery soon and long enough to
	// keep the lines few: about a dozen in two minutes.
	longestPause = 15 * time.Second
)

// waiting repeats an attempt until it succeeds or the time is over.
type waiting struct {
	timeout time.Duration // for all attempts together
	attempt time.Duration // for one
	last    time.Duration // for one that begins as the time is over, at most attempt
	clock   clock
}

// patient gives every attempt the whole limit. It is for what is asked of a cache
// that answers already.
func (w waiting) patient(limit time.Duration) waiting {
	w.attempt, w.last = limit, limit
	return w
}

// clock is time, or a test's.
type clock interface {
	Now() time.Time
	// Sleep returns early, with ctx's cause, when ctx ends.
	Sleep(ctx context.Context, d time.Duration) error
}

type realClock struct{}

func (realClock) Now() time.Time { return time.Now() }

func (realClock) Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// until calls once until it returns no error, the time is over or the error is
// final, and prints a line for each attempt. The error's first line is why the
// last attempt failed, its second what to look at.
func (w waiting) until(ctx context.Context, out io.Writer, once func(context.Context) (string, error)) error {
	began := w.clock.Now()
	spent := func() time.Duration { return w.clock.Now().Sub(began) }
	pause := firstPause
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		attempt, cancel := context.WithTimeout(ctx, min(w.attempt, max(w.timeout-spent(), w.last)))
		found, err := once(attempt)
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, check.ErrSkip):
			return err
		case err == nil:
			_, _ = fmt.Fprintf(out, "%7.1fs  attempt %d: %s\n", spent().Seconds(), n, found)
			return nil
		}
		left := w.timeout - spent()
		f := faultOf(err)
		if left <= 0 || f.final {
			_, _ = fmt.Fprintf(out, "%7.1fs  attempt %d: %s\n%10slook at %s\n", spent().Seconds(), n, f.reason, "", f.look)
			return fmt.Errorf("%w (%s)\nlook at %s", err, given(n, spent()), f.look)
		}
		wait := min(pause, left)
		_, _ = fmt.Fprintf(out, "%7.1fs  attempt %d: %s; again in %v\n", spent().Seconds(), n, f.reason, wait.Round(time.Millisecond))
		if err := w.clock.Sleep(ctx, wait); err != nil {
			return err
		}
		pause = min(2*pause, longestPause)
	}
}

func faultOf(err error) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	return &fault{reason: oneLine(err.Error()), look: lookAtPods}
}

// given says how much patience there was.
func given(attempts int, d time.Duration) string {
	if attempts == 1 {
		return "at the first attempt"
	}
	return fmt.Sprintf("after %d attempts in %v", attempts, d.Round(time.Second))
}
