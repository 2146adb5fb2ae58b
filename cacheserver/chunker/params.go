package chunker

import (
	"fmt"
	"math/bits"
)

// DefaultAverage is the average chunk size for NARs, in bytes. Halving it to
// 64 KiB would double the chunk rows in the index for only a small further gain
// in deduplication. The 512 KiB that the Remote Execution API recommends were
// chosen for Bazel's build artifacts.
const DefaultAverage = 128 << 10

// Limits in bytes. Those of the average are the Remote Execution API's; the
// others are the Rust crate's, and also keep the buffer of a [Chunker] bounded.
const (
	minAverage  = 1 << 10
	maxAverage  = 1 << 20
	leastMin    = 64
	greatestMax = 16 << 20
)

// sizeRatio is how many times smaller than the average the minimum is, and how
// many times larger the maximum, where Params leaves them to the specification.
const sizeRatio = 4

// Params are the parameters that determine the cut points. Streams chunked
// under different Params share chunks only by accident.
type Params struct {
	// Average is the expected chunk size in bytes: a power of two from 1 KiB
	// to 1 MiB. There is no default; see [DefaultAverage].
	Average int

	// Min is the smallest size in bytes of any chunk but the last, from 64 to
	// Average. Zero means Average/4, the only value the Remote Execution API
	// allows. The scan goes by pairs of bytes, so an odd Min counts as Min-1.
	Min int

	// Max is the largest chunk size in bytes, from Average to 16 MiB. Zero
	// means Average*4, the only value the Remote Execution API allows.
	Max int

	// Seed varies the gear table, and with it all cut points. Zero, the value
	// recommended by the Remote Execution API, leaves the table as published.
	Seed uint32
}

// ParamError reports a field of [Params] that is out of range.
type ParamError struct {
	Field string // name of the field of Params
	Value int    // its value in bytes, after defaults
	Want  string // the accepted values
}

// Error implements the error interface.
func (e *ParamError) Error() string {
	return fmt.Sprintf("chunker: %s is %d bytes, want %s", e.Field, e.Value, e.Want)
}

// Validate reports the first field that is out of range, after defaults, as a
// [*ParamError]. It returns nil for parameters that [New] accepts.
func (p Params) Validate() error {
	// Average comes first because the defaults of the others derive from it.
	if p.Average < minAverage || p.Average > maxAverage || bits.OnesCount(uint(p.Average)) != 1 {
		return &ParamError{
			Field: "Average",
			Value: p.Average,
			Want:  fmt.Sprintf("a power of two from %d to %d", minAverage, maxAverage),
		}
	}
	p = p.withDefaults()
	if p.Min < leastMin || p.Min > p.Average {
		return &ParamError{
			Field: "Min",
			Value: p.Min,
			Want:  fmt.Sprintf("from %d to the average %d", leastMin, p.Average),
		}
	}
	if p.Max < p.Average || p.Max > greatestMax {
		return &ParamError{
			Field: "Max",
			Value: p.Max,
			Want:  fmt.Sprintf("from the average %d to %d", p.Average, greatestMax),
		}
	}
	return nil
}

// withDefaults replaces a zero Min and Max by the specification's values.
func (p Params) withDefaults() Params {
	if p.Min == 0 {
		p.Min = p.Average / sizeRatio
	}
	if p.Max == 0 {
		p.Max = p.Average * sizeRatio
	}
	return p
}
