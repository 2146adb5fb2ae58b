// Package bytesize writes numbers of bytes for people, in units of 1024, and reads
// what they write.
package bytesize

import (
	"fmt"
	"math"

	"github.com/dustin/go-humanize"
)

// Text writes a number with two or three digits, such as 1.5 KiB and 122 MiB.
func Text(n int64) string {
	if n < 0 {
		return "-" + humanize.IBytes(-uint64(n))
	}
	return humanize.IBytes(uint64(n))
}

// Tenths writes a number to a tenth of its unit, such as 121.6 MiB, where two of
// them are compared.
func Tenths(n int64) string {
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

// Parse reads a number of bytes, such as 200MB, 1.5 GiB or 4096: MB and its like are
// powers of 1000, MiB and its like of 1024, in capitals or not.
func Parse(s string) (int64, error) {
	n, err := humanize.ParseBytes(s)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("%q is no number of bytes such as 200MB or 1.5GiB", s)
	}
	return int64(n), nil
}
