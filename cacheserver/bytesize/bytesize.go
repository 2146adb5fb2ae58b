// Package bytesize writes numbers of bytes for people, in units of 1024.
package bytesize

import (
	"fmt"

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
