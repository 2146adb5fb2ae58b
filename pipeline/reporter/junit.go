package reporter

import (
	"encoding/xml"
	"fmt"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
)

// The elements of JUnit's format that GitLab reads.
type (
	testSuites struct {
		XMLName xml.Name    `xml:"testsuites"`
		Suites  []testSuite `xml:"testsuite"`
	}
	testSuite struct {
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Skipped  int        `xml:"skipped,attr"`
		Time     string     `xml:"time,attr"` // seconds
		Cases    []testCase `xml:"testcase"`

		names map[string]int
		total float64
	}
	testCase struct {
		Class   string   `xml:"classname,attr"`
		Name    string   `xml:"name,attr"`
		Time    string   `xml:"time,attr"` // seconds
		Failure *failure `xml:"failure,omitempty"`
		Skipped *skipped `xml:"skipped,omitempty"`
		Output  string   `xml:"system-out,omitempty"`
	}
	failure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
	skipped struct {
		Message string `xml:"message,attr,omitempty"`
	}
)

// add counts a case in. GitLab knows a case by its names, from one pipeline to the
// next: they have no hash, and a second of the same name gets a number.
func (s *testSuite) add(name string, seconds float64, failed *failure, skip *skipped, output string) {
	if s.names == nil {
		s.names = map[string]int{}
	}
	s.names[name]++
	if n := s.names[name]; n > 1 {
		name = fmt.Sprintf("%s (%d)", name, n)
	}
	s.Tests++
	if failed != nil {
		s.Failures++
	}
	if skip != nil {
		s.Skipped++
	}
	s.total += seconds
	s.Time = decimal(s.total)
	s.Cases = append(s.Cases, testCase{Class: s.Name, Name: name, Time: decimal(seconds), Failure: failed, Skipped: skip, Output: output})
}

func decimal(seconds float64) string { return fmt.Sprintf("%.3f", seconds) }

// junitOf returns a case for each output that was asked for and for each
// derivation that was built.
func junitOf(report *flywheel.Report, record *Record) ([]byte, error) {
	outputs := testSuite{Name: "outputs", Time: decimal(0)}
	built := map[string]bool{}
	for _, i := range record.Installables {
		switch i.Outcome {
		case event.Failed:
			outputs.add(i.Name, i.Seconds, failureOf(i.Text), nil, "")
		case event.Skipped:
			outputs.add(i.Name, i.Seconds, nil, &skipped{i.Text}, "")
		default:
			outputs.add(i.Name, i.Seconds, nil, nil, strings.Join(i.Results, "\n"))
		}
		for _, p := range i.Results {
			built[p] = true
		}
	}
	for _, p := range report.Results {
		if !built[p] {
			outputs.add(nameOf(p), 0, nil, nil, p)
		}
	}
	derivations := testSuite{Name: "derivations", Time: decimal(0)}
	for _, d := range record.Derivations {
		var failed *failure
		if d.Failed {
			failed = failureOf(ofDerivation(report.Message, d.Path))
		}
		derivations.add(nameOf(d.Path), d.Seconds, failed, nil, d.Path)
	}
	if report.Outcome != flywheel.Built && outputs.Failures+derivations.Failures == 0 {
		// An evaluation that fails builds nothing that could be named.
		outputs.add("evaluation", report.Seconds, failureOf(report.Message), nil, "")
	}
	return marshal(outputs, derivations)
}

// ChecksJUnit returns a case for each check.
func ChecksJUnit(suite string, results check.Results) ([]byte, error) {
	s := testSuite{Name: suite, Time: decimal(0)}
	for _, r := range results {
		switch r.Outcome {
		case check.Failed:
			s.add(r.Name, r.Seconds, failureOf(r.Message), nil, "")
		case check.Skipped:
			s.add(r.Name, r.Seconds, nil, &skipped{r.Message}, "")
		default:
			s.add(r.Name, r.Seconds, nil, nil, "")
		}
	}
	return marshal(s)
}

func marshal(suites ...testSuite) ([]byte, error) {
	text, err := xml.MarshalIndent(testSuites{Suites: suites}, "", "  ")
	if err != nil {
		return nil, err
	}
	return append([]byte(xml.Header), append(text, '\n')...), nil
}

func failureOf(text string) *failure {
	text = strings.TrimSpace(text)
	if text == "" {
		text = "failed; the job's log says why"
	}
	first, _, _ := strings.Cut(text, "\n")
	return &failure{Message: first, Text: text}
}

// ofDerivation returns the part of nix's words that is about a derivation: from
// the error that names it to the next.
func ofDerivation(message, drv string) string {
	var part []string
	about := false
	for line := range strings.Lines(message) {
		if strings.HasPrefix(strings.TrimSpace(line), "error:") {
			if about && len(part) > 0 {
				break
			}
			about = strings.Contains(line, drv)
		}
		if about {
			part = append(part, line)
		}
	}
	return strings.Join(part, "")
}
