package environment

import (
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"1 minute": time.Minute, "90 minutes": 90 * time.Minute, "1 hour": time.Hour, "36 hours": 36 * time.Hour,
		"3 days": 72 * time.Hour, "1 week": 7 * 24 * time.Hour, "365 days": maxSpan,
	} {
		got, err := parseSpan(text)
		if err != nil || got != want {
			t.Errorf("parseSpan(%q) = %v, %v, want %v", text, got, err, want)
		}
		if back := formatSpan(want); back != text {
			t.Errorf("formatSpan(%v) = %q, want %q", want, back, text)
		}
	}
	for _, text := range []string{"", "3", "days", "3days", "3 d", "-3 days", "0 days", "03 days", "3 days ", "3.5 days", "366 days", "999999999 weeks", "1 year"} {
		if got, err := parseSpan(text); err == nil {
			t.Errorf("parseSpan(%q) = %v", text, got)
		}
	}
}
