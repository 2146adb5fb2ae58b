package setup

import (
	"slices"
	"strconv"
	"strings"
)

// osRelease holds the fields of os-release(5) that name a distribution.
type osRelease struct {
	id        string   // "linux" when the file does not say, as os-release(5) has it
	idLike    []string // closest relative first
	versionID string   // empty on Debian testing and on rolling distributions
}

// parseOSRelease reads the text of an os-release file. Lines that are no
// assignment are skipped and the last of several assignments counts, as for a
// shell that sources the file.
func parseOSRelease(text string) osRelease {
	r := osRelease{id: "linux"}
	for line := range strings.Lines(text) {
		name, raw, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		value, ok := unquote(raw)
		if !ok {
			continue
		}
		switch name {
		case "ID":
			if value != "" {
				r.id = value
			}
		case "ID_LIKE":
			r.idLike = strings.Fields(value)
		case "VERSION_ID":
			r.versionID = value
		}
	}
	return r
}

// unquote returns the value of one assignment: a bare word, or one string in
// single or double quotes. os-release(5) allows neither joined strings nor
// expansions, so what follows the word or the closing quote is ignored. It
// reports false for a quote that is never closed.
func unquote(raw string) (string, bool) {
	var quote byte
	if raw != "" && (raw[0] == '"' || raw[0] == '\'') {
		quote, raw = raw[0], raw[1:]
	}
	var value strings.Builder
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case quote != 0 && c == quote:
			return value.String(), true
		case quote == 0 && (c == ' ' || c == '\t'):
			return value.String(), true
		case c == '\\' && i+1 < len(raw) && escapes(quote, raw[i+1]):
			i++
			value.WriteByte(raw[i])
		default:
			value.WriteByte(c)
		}
	}
	return value.String(), quote == 0
}

// escapes reports whether a shell drops a backslash before c inside quote
// (0 for a bare word).
func escapes(quote, c byte) bool {
	switch quote {
	case '\'':
		return false
	case '"':
		return strings.IndexByte("$\"\\`", c) >= 0
	default:
		return true
	}
}

// parseVersion returns the dotted numbers a release starts with: {22, 4} for
// "22.04", {3, 24} for Alpine's "3.24_alpha20260127", nil for "".
func parseVersion(release string) []int {
	var version []int
	for part := range strings.SplitSeq(release, ".") {
		digits := part
		if end := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
			digits = part[:end]
		}
		n, err := strconv.Atoi(digits)
		if err != nil {
			return version
		}
		version = append(version, n)
		if digits != part {
			return version
		}
	}
	return version
}

// atLeast reports whether release is minimum or later. A release that starts
// with no number is earlier than every other.
func atLeast(release string, minimum ...int) bool {
	return slices.Compare(parseVersion(release), minimum) >= 0
}
