package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// value is a pflag.Value over a variable: parse's errors say what is wanted.
type value[T any] struct {
	at    *T
	kind  string
	parse func(string) (T, error)
	text  func(T) string // what parse reads back
}

func (v value[T]) Set(text string) error {
	parsed, err := v.parse(text)
	if err == nil {
		*v.at = parsed
	}
	return err
}

func (v value[T]) String() string { return v.text(*v.at) }

func (v value[T]) Type() string { return v.kind }

// The kinds of values that TOML has a type of its own for.
const (
	kindBool = "bool"
	kindInt  = "int"
	kindSize = "size"
)

func verbatim(s string) string { return s }

func text(at *string) pflag.Value {
	return value[string]{at, "string", func(s string) (string, error) { return s, nil }, verbatim}
}

func checked(at *string, check func(string) error) pflag.Value {
	return value[string]{at, "string", func(s string) (string, error) { return s, check(s) }, verbatim}
}

func oneOf(at *string, choices ...string) pflag.Value {
	return checked(at, func(s string) error {
		for _, c := range choices {
			if s == c {
				return nil
			}
		}
		return errors.New("want " + strings.Join(choices, " or "))
	})
}

func boolean(at *bool) pflag.Value {
	return value[bool]{at, kindBool, func(s string) (bool, error) {
		b, err := strconv.ParseBool(s)
		if err != nil {
			err = errors.New("want true or false")
		}
		return b, err
	}, strconv.FormatBool}
}

// count is a whole number of at least least.
func count(at *int, least int) pflag.Value {
	return value[int]{at, kindInt, func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < least {
			return 0, fmt.Errorf("want a whole number of at least %d", least)
		}
		return n, nil
	}, strconv.Itoa}
}

func duration(at *time.Duration) pflag.Value {
	return value[time.Duration]{at, "duration", func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return 0, errors.New("want a duration such as 90s, 30m or 1h30m")
		}
		return d, nil
	}, time.Duration.String}
}

func level(at *slog.Level) pflag.Value {
	return value[slog.Level]{at, "level", func(s string) (l slog.Level, err error) {
		if l.UnmarshalText([]byte(s)) != nil {
			err = errors.New("want debug, info, warn or error")
		}
		return l, err
	}, func(l slog.Level) string { return strings.ToLower(l.String()) }}
}

// Size is a flag's number of bytes, such as 200GB or 1.5TiB.
func Size(at *int64) pflag.Value {
	return value[int64]{at, kindSize, func(s string) (int64, error) {
		n, err := bytesize.Parse(s)
		if err != nil {
			return 0, errors.New("want a number of bytes such as 200GB or 1.5TiB")
		}
		return n, nil
	}, sizeText}
}

// sizeText writes a number of bytes without rounding it.
func sizeText(n int64) string {
	if n == 0 {
		return "0"
	}
	for _, unit := range []struct {
		name  string
		bytes int64
	}{
		{"TiB", 1 << 40},
		{"TB", 1e12},
		{"GiB", 1 << 30},
		{"GB", 1e9},
		{"MiB", 1 << 20},
		{"MB", 1e6},
		{"KiB", 1 << 10},
		{"kB", 1e3},
	} {
		if n%unit.bytes == 0 {
			return strconv.FormatInt(n/unit.bytes, 10) + unit.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// Age is a flag's time in days or smaller, such as 90d or 12h; off is 0.
func Age(at *time.Duration) pflag.Value {
	return value[time.Duration]{at, "age", ParseAge, AgeText}
}

// keptFor is an Age that is never 0.
func keptFor(at *time.Duration) pflag.Value {
	return value[time.Duration]{at, "age", func(s string) (time.Duration, error) {
		d, err := ParseAge(s)
		if err != nil || d == 0 {
			err = errors.New("want days such as 30d or hours such as 12h")
		}
		return d, err
	}, AgeText}
}

// retention is an Age as collect.Policy has it, in which below 0 is for ever.
func retention(at *time.Duration) pflag.Value {
	return value[time.Duration]{at, "age", func(s string) (time.Duration, error) {
		d, err := ParseAge(s)
		if err == nil && d == 0 {
			d = -1
		}
		return d, err
	}, func(d time.Duration) string { return AgeText(max(d, 0)) }}
}

const dayTime = 24 * time.Hour

var errAge = errors.New("want days such as 90d, hours such as 12h, or off")

// ParseAge reads days such as 90d (at most 200 years), a Go duration of at least
// a second, or off, which is 0.
func ParseAge(text string) (time.Duration, error) {
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

// AgeText writes what ParseAge reads.
func AgeText(d time.Duration) string {
	switch {
	case d == 0:
		return "off"
	case d%dayTime == 0:
		return fmt.Sprintf("%dd", d/dayTime)
	}
	return d.String()
}

// global is how a cache's retention is written that is the server's.
const global = "global"

// ParseRetention reads the retention of one cache: an age, or global, which is
// index.GlobalRetention.
func ParseRetention(text string) (time.Duration, error) {
	if text == global {
		return index.GlobalRetention, nil
	}
	d, err := ParseAge(text)
	if err != nil {
		err = fmt.Errorf("%w, or %s", err, global)
	}
	return d.Truncate(time.Second), err
}

// RetentionText writes what ParseRetention reads.
func RetentionText(d time.Duration) string {
	if d == index.GlobalRetention {
		return global
	}
	return AgeText(d)
}

func checkAddress(s string) error {
	if s == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return err
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("address %s: invalid port: want one from 0 to 65535", s)
	}
	return nil
}

// CheckStoreDir refuses a store directory that no client could have.
func CheckStoreDir(s string) error {
	if !path.IsAbs(s) || path.Clean(s) == "/" {
		return errors.New("want the whole path of a directory, such as /nix/store")
	}
	return nil
}

// checkURL wants an address of a web server, which may have a path.
func checkURL(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("want a URL such as https://cache.example.org")
	}
	return nil
}

// checkEndpoint wants what packstore.S3Config takes for an endpoint.
func checkEndpoint(s string) error {
	if !strings.Contains(s, "://") && s != "" {
		s = "https://" + s
	}
	if u, _ := url.Parse(s); checkURL(s) != nil || strings.Trim(u.Path, "/") != "" {
		return errors.New("want host:port, http://host:port or https://host:port")
	}
	return nil
}
