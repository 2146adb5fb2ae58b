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

func TestParse(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int64{
		"4096": 4096, "0": 0, "200MB": 200e6, "200 mb": 200e6, "1.5GiB": 3 << 29, "64KiB": 64 << 10, "8EiB": -1, "16EiB": -1, "99EiB": -1,
		"": -1, "-1": -1, "-1MB": -1, "big": -1, "1.2.3MB": -1, "1 parsec": -1, "NaN": -1, "1e3": -1, "0x10": -1,
	} {
		got, err := bytesize.Parse(s)
		if (err == nil) != (want >= 0) || (err == nil && got != want) {
			t.Errorf("%q is %d, %v; want %d", s, got, err, want)
		}
	}
}

// What is written for people is read again, but for what was rounded.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"1.5GiB", "4096", "-1", "9223372036854775807", "1e400MB", "٣MB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := bytesize.Parse(s)
		if err != nil {
			return
		}
		if n < 0 {
			t.Fatalf("%q is %d", s, n)
		}
		if again, err := bytesize.Parse(bytesize.Text(n)); err == nil && math.Abs(float64(again-n)) > 0.06*float64(n) {
			t.Fatalf("%q is %d, written %q, read %d", s, n, bytesize.Text(n), again)
		}
	})
}
