package flywheel

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// console prints the steps, between the lines of nix.
type console struct {
	mu  sync.Mutex
	out io.Writer
}

// Write lets nix's output through.
func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(b)
}

// step prints a step's line; since is when it began.
func (c *console) step(name string, since time.Time, format string, args ...any) {
	_, _ = fmt.Fprintf(c, "%-13s %7.1fs  %s\n", name, time.Since(since).Seconds(), fmt.Sprintf(format, args...))
}

// note prints a line that belongs to the step before.
func (c *console) note(format string, args ...any) {
	_, _ = fmt.Fprintf(c, "%-23s%s\n", "", fmt.Sprintf(format, args...))
}

// size writes a number of bytes for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, i := float64(n)/unit, 0
	for value >= unit && i < len("KMGTPE")-1 {
		value /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[i])
}

// count writes "1 path", "2 paths".
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
