package warm

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// maxLine bounds a line of a list, in bytes.
const maxLine = 64 << 10

// ReadList reads a list of installables, one a line. Empty lines are passed over,
// and what follows a # at a line's beginning or after white space: within a word,
// # is part of a flake reference. One that stands twice counts once.
func ReadList(r io.Reader) ([]string, error) {
	var list []string
	seen := map[string]bool{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for number := 1; lines.Scan(); number++ {
		words := strings.Fields(lines.Text())
		for i, w := range words {
			if strings.HasPrefix(w, "#") {
				words = words[:i]
				break
			}
		}
		switch {
		case len(words) == 0:
			continue
		case len(words) > 1:
			return nil, fmt.Errorf("line %d: %q is more than one installable: each has a line of its own", number, strings.Join(words, " "))
		case strings.HasPrefix(words[0], "-"):
			return nil, fmt.Errorf("line %d: %q is no installable", number, words[0])
		}
		if !seen[words[0]] {
			seen[words[0]] = true
			list = append(list, words[0])
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading the list: %w", err)
	}
	return list, nil
}
