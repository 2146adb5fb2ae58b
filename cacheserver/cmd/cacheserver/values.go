package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
)

// size is a flag for a number of bytes, such as 200GB or 1.5TiB.
type size int64

func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return humanize.IBytes(uint64(*s))
}

func (s *size) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || int64(n) < 0 {
		return fmt.Errorf("want a number of bytes such as 200GB or 1.5TiB")
	}
	*s = size(n)
	return nil
}

func (*size) Type() string { return "size" }

// age is a flag for a time in days or smaller, such as 90d or 12h; off is 0.
type age time.Duration

func (a *age) String() string { return ageText(time.Duration(*a)) }

func (a *age) Set(text string) error {
	d, err := parseAge(text)
	*a = age(d)
	return err
}

func (*age) Type() string { return "age" }

const dayTime = 24 * time.Hour

var errAge = errors.New("want days such as 90d, hours such as 12h, or off")

func parseAge(text string) (time.Duration, error) {
	if text == "off" || text == "never" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		const centuries = 200 * 366
		if n, err := strconv.ParseUint(days, 10, 32); err == nil && n > 0 && n <= centuries {
			return time.Duration(n) * dayTime, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d >= time.Second {
		return d, nil
	}
	return 0, errAge
}

// global is how a cache's retention is written that is the server's.
const global = "global"

func parseRetention(text string) (time.Duration, error) {
	if text == global {
		return index.GlobalRetention, nil
	}
	d, err := parseAge(text)
	if err != nil {
		err = fmt.Errorf("%w, or %s", err, global)
	}
	return d, err
}

func retentionText(d time.Duration) string {
	if d == index.GlobalRetention {
		return global
	}
	return ageText(d)
}

// retentionFlag is the retention of caches that have none of their own.
func retentionFlag(f *pflag.FlagSet, a *age) {
	*a = age(nixcache.DefaultRetention)
	f.Var(a, "retention", "how long paths live after their last use in caches that do not say otherwise; off for ever")
}

// policy is the flag's value in a collect.Policy, in which 0 is not set.
func (a age) policy() time.Duration {
	if a == 0 {
		return -1
	}
	return time.Duration(a)
}

func ageText(d time.Duration) string {
	switch {
	case d == 0:
		return "off"
	case d%dayTime == 0:
		return fmt.Sprintf("%dd", d/dayTime)
	}
	return d.String()
}

func bytesText(n int64) string {
	if n < 0 {
		return "-" + humanize.IBytes(uint64(-n))
	}
	return humanize.IBytes(uint64(n))
}
