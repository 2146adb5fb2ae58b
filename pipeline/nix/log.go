package nix

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
)

// Numbers of Nix's logging.hh.
const (
	levelInfo       = 3
	activityCopy    = 100
	activityBuilds  = 104
	activityBuild   = 105
	resultLogLine   = 101
	resultPostBuild = 107
	resultProgress  = 105

	tailLines = 10
	// keptTails bounds the builds that ended and whose last lines are kept for
	// the error that may follow.
	keptTails = 64
	// maxLine bounds a line without an end, in bytes.
	maxLine = 1 << 20
)

// logReader reads what nix says with `--log-format internal-json`, tells of
// builds and fetches, and writes to out what nix would have written without it.
type logReader struct {
	out       io.Writer
	observer  event.Observer
	verbosity int
	buildLogs bool                         // print what builders say
	made      func(derivation string) bool // as Request.Made, or nil
	now       func() time.Time

	line       []byte
	activities map[uint64]*activity
	open       int64 // builds that have begun and whose end was not told
	failed     int64 // builds whose end was told as a failure
	counted    int64 // failed builds that nix has told of
	expected   int64 // builds, as the observer was told
	done       int64 // builds that did not fail, as nix has told
	tails      map[string][]string
	ended      []string // derivations in tails whose build has ended
}

type activity struct {
	kind  int
	began time.Time
	name  string // derivation or path
	from  string
	ended bool // a build whose end was told
}

func newLogReader(out io.Writer, r Request) *logReader {
	l := &logReader{
		out: out, observer: r.Observer, made: r.Made, verbosity: levelInfo, now: time.Now,
		activities: map[uint64]*activity{}, tails: map[string][]string{},
	}
	for _, a := range r.Args {
		switch {
		case a == "--print-build-logs":
			l.buildLogs = true
		case a == "--quiet":
			l.verbosity--
		case a == "--verbose":
			l.verbosity++
		case a == "--debug":
			l.verbosity = 1 << 10
		case shortFlags.MatchString(a):
			l.buildLogs = l.buildLogs || strings.Contains(a, "L")
			l.verbosity += strings.Count(a, "v")
		}
	}
	return l
}

var shortFlags = regexp.MustCompile(`^-[vL]+$`)

// Write implements io.Writer.
func (l *logReader) Write(b []byte) (int, error) {
	n := len(b)
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			l.line = append(l.line, b...)
			if len(l.line) > maxLine {
				l.flush()
			}
			return n, nil
		}
		l.line = append(l.line, b[:i]...)
		l.handle(l.line)
		l.line = l.line[:0]
		b = b[i+1:]
	}
}

// flush handles what came without an end of line.
func (l *logReader) flush() {
	if len(l.line) > 0 {
		l.handle(l.line)
		l.line = l.line[:0]
	}
}

// close is called when nix has ended, which expects nothing more then.
func (l *logReader) close() {
	l.flush()
	l.expect(l.done)
}

type logMessage struct {
	Action string            `json:"action"`
	ID     uint64            `json:"id"`
	Type   int               `json:"type"`
	Level  int               `json:"level"`
	Text   string            `json:"text"`
	Msg    string            `json:"msg"`
	Fields []json.RawMessage `json:"fields"`
}

func (m *logMessage) str(i int) (s string) {
	if i < len(m.Fields) {
		_ = json.Unmarshal(m.Fields[i], &s) // another type: as if it was not there
	}
	return s
}

func (m *logMessage) number(i int) (n int64) {
	if i < len(m.Fields) {
		_ = json.Unmarshal(m.Fields[i], &n)
	}
	return n
}

// handle reads a line. What is no message of Nix's, such as the last words of a
// C++ program that crashed, is let through.
func (l *logReader) handle(line []byte) {
	text, ok := bytes.CutPrefix(line, []byte("@nix "))
	var m logMessage
	if !ok || json.Unmarshal(text, &m) != nil {
		l.print(string(line))
		return
	}
	switch m.Action {
	case "msg":
		l.print(l.withTail(plainText(m.Msg), m.Level))
	case "start":
		l.start(&m)
	case "stop":
		l.stop(m.ID)
	case "result":
		l.result(&m)
	}
}

func (l *logReader) print(text string) { _, _ = io.WriteString(l.out, text+"\n") }

func (l *logReader) start(m *logMessage) {
	if m.Level <= l.verbosity && m.Text != "" {
		l.print(plainText(m.Text) + "...")
	}
	a := &activity{kind: m.Type, began: l.now(), name: m.str(0), from: m.str(1)}
	switch m.Type {
	case activityBuild:
		l.open++
		l.observer.Observe(event.BuildBegan{Derivation: a.name})
	case activityCopy:
		l.observer.Observe(event.FetchBegan{Path: a.name, From: a.from})
	case activityBuilds:
	default:
		return
	}
	l.activities[m.ID] = a
}

func (l *logReader) stop(id uint64) {
	a := l.activities[id]
	if a == nil {
		return
	}
	delete(l.activities, id)
	switch {
	case a.kind == activityBuild && !a.ended:
		// Nix counts a failure before it ends the build.
		l.end(a, l.counted > l.failed && (l.made == nil || !l.made(a.name)))
	case a.kind == activityCopy:
		l.observer.Observe(event.FetchEnded{Path: a.name, From: a.from, Took: l.now().Sub(a.began)})
	}
}

// end tells of a build's end.
func (l *logReader) end(a *activity, failed bool) {
	a.ended = true
	l.open--
	if failed {
		l.failed++
	}
	l.observer.Observe(event.BuildEnded{Derivation: a.name, Took: l.now().Sub(a.began), Failed: failed})
	if l.ended = append(l.ended, a.name); len(l.ended) > keptTails {
		delete(l.tails, l.ended[0])
		l.ended = l.ended[1:]
	}
}

// expect tells how many builds there are to be, if that is another number.
func (l *logReader) expect(builds int64) {
	if builds != l.expected {
		l.observer.Observe(event.BuildsExpected{Change: int(builds - l.expected)})
		l.expected = builds
	}
}

// progress takes in how many builds run, and how many have failed so far. Of what was
// asked for itself, and not as a part of something else, Nix tells the end only when
// all have ended. But one runs less, and what was made is there.
func (l *logReader) progress(running, failed int64) {
	l.counted = failed
	if l.made == nil || l.open-running <= l.counted-l.failed {
		return
	}
	for _, a := range l.activities {
		if a.kind == activityBuild && !a.ended && l.made(a.name) {
			l.end(a, false)
		}
	}
}

func (l *logReader) result(m *logMessage) {
	a := l.activities[m.ID]
	if a == nil {
		return
	}
	switch {
	case m.Type == resultProgress && a.kind == activityBuilds:
		l.done = m.number(0)
		l.expect(m.number(1))
		l.progress(m.number(2), m.number(3))
	case m.Type == resultLogLine && a.kind == activityBuild:
		said := plainText(m.str(0))
		if l.buildLogs {
			l.print(derivationName(a.name) + "> " + said)
			return
		}
		tail := append(l.tails[a.name], said)
		if len(tail) > tailLines {
			tail = slices.Delete(tail, 0, 1)
		}
		l.tails[a.name] = tail
	case m.Type == resultPostBuild && l.buildLogs:
		l.print(derivationName(a.name) + " (post)> " + plainText(m.str(0)))
	}
}

var quotedDerivation = regexp.MustCompile(`'(/[^']+\.drv)'`)

// withTail adds to the error of a build that failed what its builder said last,
// which nix leaves to whoever reads its JSON.
func (l *logReader) withTail(text string, level int) string {
	if level != 0 || !strings.Contains(text, "fail") {
		return text
	}
	m := quotedDerivation.FindStringSubmatch(text)
	if m == nil || len(l.tails[m[1]]) == 0 {
		return text
	}
	tail := l.tails[m[1]]
	delete(l.tails, m[1])
	var b strings.Builder
	fmt.Fprintf(&b, "%s;\n       last %d log lines:\n", strings.TrimRight(text, ".\n"), len(tail))
	for _, line := range tail {
		fmt.Fprintf(&b, "       > %s\n", line)
	}
	fmt.Fprintf(&b, "       For full logs, run 'nix log %s'.", m[1])
	return b.String()
}

// derivationName is what stands between the hash and ".drv".
func derivationName(drv string) string {
	base := path.Base(drv)
	if _, name, err := storepath.Split(base); err == nil {
		base = name
	}
	return strings.TrimSuffix(base, ".drv")
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")

// plainText is a text without colours.
func plainText(s string) string { return escapes.ReplaceAllString(s, "") }
