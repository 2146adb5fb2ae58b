package nixconf

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Setting is one line of nix.conf that sets something.
type Setting struct {
	Name  string   // without extra-
	Extra bool     // the line adds to what was set before
	Words []string // of the value
	Line  int      // from 1
}

// Value is the setting's value as Nix reads it: its words, a space between.
func (s Setting) Value() string { return strings.Join(s.Words, " ") }

// SyntaxError is a line with which Nix refuses the whole file.
type SyntaxError struct {
	Line int
	Text string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("line %d, %.60q, is no setting: want NAME = VALUE, with spaces around the =", e.Line, e.Text)
}

// Settings reads the lines of a nix.conf as Nix does (applyConfig of its
// config.cc): what follows # is a comment, words are apart by white space, and
// the second is =. Files that it includes are not looked at. The error is a
// *SyntaxError; the settings before it are returned with it.
func (t Text) Settings() ([]Setting, error) {
	var settings []Setting
	number := 0
	for line := range bytes.Lines(t) {
		number++
		bare, _, _ := strings.Cut(string(line), "#")
		words := strings.FieldsFunc(bare, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) })
		switch {
		case len(words) == 0:
		case words[0] == "include" || words[0] == "!include":
			if len(words) != 2 {
				return settings, &SyntaxError{number, strings.TrimSpace(bare)}
			}
		case len(words) < 2 || words[1] != "=":
			return settings, &SyntaxError{number, strings.TrimSpace(bare)}
		default:
			name, extra := strings.CutPrefix(words[0], "extra-")
			settings = append(settings, Setting{Name: name, Extra: extra, Words: words[2:], Line: number})
		}
	}
	return settings, nil
}

// sets says whether a line of the text sets one of the names anew, and so
// forgets what was added to it before.
func (t Text) sets(names ...string) (bool, error) {
	settings, err := t.Settings()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(settings, func(s Setting) bool {
		return !s.Extra && slices.Contains(names, s.Name)
	}), nil
}
