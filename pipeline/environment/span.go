package environment

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// maxSpan bounds a time after which an environment stops: one that lives longer
// is no review.
const maxSpan = 365 * 24 * time.Hour

var (
	spanPattern = regexp.MustCompile(`^([1-9][0-9]{0,8}) (minute|hour|day|week)s?$`)
	spanUnits   = map[string]time.Duration{
		"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour,
	}
)

// parseSpan reads a time as GitLab's auto_stop_in has it: a number and minutes,
// hours, days or weeks.
func parseSpan(s string) (time.Duration, error) {
	m := spanPattern.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf(`%q: want a number and a unit, such as "3 days": minutes, hours, days or weeks`, s)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0, fmt.Errorf("%q: %w", s, err)
	}
	unit := spanUnits[m[2]]
	if time.Duration(n) > maxSpan/unit { // before it is multiplied, which can overflow
		return 0, fmt.Errorf("%q: at most 365 days", s)
	}
	return time.Duration(n) * unit, nil
}

// formatSpan writes a time as parseSpan reads it, in the largest unit that it is
// a multiple of.
func formatSpan(d time.Duration) string {
	unit := "minute"
	for _, u := range []string{"week", "day", "hour"} {
		if d%spanUnits[u] == 0 {
			unit = u
			break
		}
	}
	n := d / spanUnits[unit]
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}
