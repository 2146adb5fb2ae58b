package reporter

import (
	"regexp"
	"strconv"
	"strings"
)

// screen is a small terminal: as much of a VT100 as the reporter makes use of.
// Lines that are too long go on in the next, and the top goes when it is full.
type screen struct {
	width, height int
	rows          [][]rune
	x, y          int
	rest          string // of an escape that is not whole
}

func newScreen(width, height int) *screen {
	return &screen{width: width, height: height, rows: make([][]rune, 1)}
}

var control = regexp.MustCompile(`^\x1b\[(\d*)([AJK])`)

func (s *screen) Write(b []byte) (int, error) {
	text := s.rest + string(b)
	s.rest = ""
	for text != "" {
		if text[0] == '\x1b' {
			m := control.FindStringSubmatch(text)
			if m == nil {
				s.rest = text
				return len(b), nil
			}
			s.escape(m[1], m[2])
			text = text[len(m[0]):]
			continue
		}
		r := []rune(text)[0]
		text = text[len(string(r)):]
		s.put(r)
	}
	return len(b), nil
}

func (s *screen) escape(number, command string) {
	n, err := strconv.Atoi(number)
	if err != nil {
		n = 1
	}
	switch command {
	case "A":
		s.y = max(0, s.y-n)
	case "J":
		s.rows = s.rows[:s.y+1]
		s.cutLine()
	case "K":
		s.cutLine()
	}
}

func (s *screen) cutLine() { s.rows[s.y] = s.rows[s.y][:min(s.x, len(s.rows[s.y]))] }

func (s *screen) put(r rune) {
	switch r {
	case '\r':
		s.x = 0
		return
	case '\n':
		s.x = 0
		s.down()
		return
	}
	if s.x == s.width {
		s.x = 0
		s.down()
	}
	for len(s.rows[s.y]) <= s.x {
		s.rows[s.y] = append(s.rows[s.y], ' ')
	}
	s.rows[s.y][s.x] = r
	s.x++
}

func (s *screen) down() {
	s.y++
	if s.y == len(s.rows) {
		s.rows = append(s.rows, nil)
	}
	if len(s.rows) > s.height {
		s.rows = s.rows[1:]
		s.y--
	}
}

func (s *screen) String() string {
	var b strings.Builder
	for _, row := range s.rows {
		b.WriteString(strings.TrimRight(string(row), " ") + "\n")
	}
	return b.String()
}
