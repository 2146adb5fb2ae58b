package page

import (
	"fmt"
	"html/template"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
)

var functions = template.FuncMap{"ago": ago, "stamp": stamp, "iso": iso, "short": short}

func countText(n int64) string { return humanize.Comma(n) }

func factorText(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) + "×" }

func percentText(f float64) string { return strconv.FormatFloat(100*f, 'f', 1, 64) + " %" }

// durationText tells a length of time in its largest units.
func durationText(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day && d%day == 0:
		return fmt.Sprintf("%d days", d/day)
	case d >= 2*day:
		return fmt.Sprintf("%.1f days", float64(d)/float64(day))
	case d >= time.Minute:
		return d.Round(time.Second).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// ago tells when something was as people say it.
func ago(t time.Time) string { return humanize.RelTime(t, time.Now(), "ago", "from now") }

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func iso(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// short is the beginning of a hash, for where the whole has no room.
func short(hash string) string { return hash[:min(len(hash), 8)] }
