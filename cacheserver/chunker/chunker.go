package chunker

import "io"

// maxEmptyReads is how many consecutive reads may return neither data nor an
// error before the reader counts as stuck.
const maxEmptyReads = 100

// A Chunker splits the stream of one reader into chunks. It holds a buffer of
// twice the maximum chunk size, however long the stream is, and allocates
// nothing after [New]. It is not safe for concurrent use.
type Chunker struct {
	r   io.Reader
	err error // what ended reading, io.EOF included; nil while r may have more

	buf        []byte // window on the stream, two maximum chunks long
	start, end int    // the part of buf that is read but not yet returned

	min, average, max int
	early, late       uint64 // masks before the average, and from there on
	gear              *gear
}

// New returns a Chunker that reads from r. It reads nothing yet. The error, if
// any, is that of [Params.Validate].
//
// The Chunker reads ahead of the chunks it returns, so r is of no use to others
// before [Chunker.Next] has returned io.EOF.
func New(r io.Reader, p Params) (*Chunker, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	p = p.withDefaults()

	c := &Chunker{
		r:       r,
		buf:     make([]byte, 2*p.Max),
		min:     p.Min,
		average: p.Average,
		max:     p.Max,
		gear:    unseeded,
	}
	c.early, c.late = masksFor(p.Average)
	if p.Seed != 0 {
		c.gear = newGear(p.Seed)
	}
	return c, nil
}

// Next returns the next chunk, which is never empty and is valid until the next
// call. An empty stream has no chunks.
//
// Next returns io.EOF at the end of the stream. If the reader fails before, Next
// first returns the chunks that begin a full maximum chunk size or more before
// the failure, as their ends are certain, and then the reader's error as it is.
// It never returns the rest as a chunk, so a truncated stream can't pass for a
// whole one. A reader that persistently returns nothing fails with
// io.ErrNoProgress. Errors are final: later calls return the same one.
func (c *Chunker) Next() ([]byte, error) {
	c.fill()
	pending := c.buf[c.start:c.end]
	if len(pending) < c.max && c.err != io.EOF { //nolint:errorlint // a wrapped EOF is a reader's failure, not its end
		return nil, c.err
	}
	if len(pending) == 0 {
		return nil, io.EOF
	}
	n := c.cut(pending)
	c.start += n
	// The capacity is cut too, lest an append by the caller corrupt the
	// bytes of the next chunk.
	return pending[:n:n], nil
}

// fill reads until a maximum chunk is pending or reading has ended. Less would
// let the cut points depend on how the reader splits its data.
func (c *Chunker) fill() {
	if len(c.buf)-c.start < c.max {
		// More than a maximum chunk was consumed since the last move, and
		// less than one is pending: moving costs under one copy per byte.
		c.end = copy(c.buf, c.buf[c.start:c.end])
		c.start = 0
	}
	for empty := 0; c.end-c.start < c.max && c.err == nil; {
		var n int
		n, c.err = c.r.Read(c.buf[c.end:])
		c.end += n
		if n > 0 {
			empty = 0
		} else if empty++; empty == maxEmptyReads && c.err == nil {
			c.err = io.ErrNoProgress
		}
	}
}

// cut returns the length of the first chunk of data, which must hold a maximum
// chunk unless the stream ends with it. The cut comes before the byte that
// decided it; that byte belongs to the next chunk, whose hash starts afresh.
func (c *Chunker) cut(data []byte) int {
	if len(data) <= c.min {
		return len(data)
	}
	data = data[:min(len(data), c.max)]

	// Before the minimum no cut is allowed, so those bytes aren't even hashed.
	// Rounding an odd minimum down is what the reference implementations do.
	from := c.min &^ 1
	mid := min(len(data), c.average)

	n, hash := c.gear.scan(0, c.early, data[from:mid])
	if from+n < mid {
		return from + n
	}
	n, _ = c.gear.scan(hash, c.late, data[mid:])
	return mid + n
}
