package bytesize_test

import (
	"math"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
)

func TestNumbersOfBytes(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]struct{ text, tenths string }{
		0:             {"0 B", "0 B"},
		1023:          {"1023 B", "1023 B"},
		1536:          {"1.5 KiB", "1.5 KiB"},
		121*1<<20 + 1: {"121 MiB", "121.0 MiB"},
		5 << 40:       {"5.0 TiB", "5.0 TiB"},
		math.MaxInt64: {"8.0 EiB", "8.0 EiB"},
		-2048:         {"-2.0 KiB", "-2048 B"},
		math.MinInt64: {"-8.0 EiB", "-9223372036854775808 B"},
	} {
		if got := bytesize.Text(n); got != want.text {
			t.Errorf("%d is %q, want %q", n, got, want.text)
		}
		if got := bytesize.Tenths(n); got != want.tenths {
			t.Errorf("%d is %q in tenths, want %q", n, got, want.tenths)
		}
	}
}
