package bazelcache

import "time"

// An upload may keep the server waiting for bodyTime, and for what a link of
// slowestBody takes for its bytes: it holds memory that others wait for.
const (
	bodyTime    = 30 * time.Second
	slowestBody = 64 << 10 // bytes a second
)

// pace is how slow an upload may be.
type pace struct {
	patience time.Duration
	slowest  int64 // bytes a second
}

// wait is how long an upload has kept the server waiting.
type wait struct {
	pace
	waited time.Duration
	bytes  int64
}

// left is how long the server waits for the upload's next bytes.
func (w *wait) left() time.Duration {
	return w.patience + time.Duration(w.bytes)*time.Second/time.Duration(w.slowest) - w.waited
}

func (w *wait) came(n int, after time.Duration) {
	w.bytes += int64(n)
	w.waited += after
}
