package reporter

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
)

func TestWhatAJobKeepsOfABuild(t *testing.T) {
	t.Parallel()
	record := NewRecord()
	for _, s := range recorded() {
		record.Observe(s.e)
	}
	report := sampleReport()
	report.Missing = nil
	dir := filepath.Join(t.TempDir(), "made", "too")
	if err := WriteArtifacts(dir, report, record); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{JUnitFile, DotenvFile, AnnotationsFile, MetricsFile} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, text)
	}
}

// An error of the evaluation names no derivation; a report without a failure would
// be shown as a success.
func TestAFailureWithoutADerivationIsACase(t *testing.T) {
	t.Parallel()
	text, err := junitOf(&flywheel.Report{Outcome: flywheel.Failed, Message: "error: undefined \x1b variable"}, NewRecord())
	var suites testSuites
	if err != nil || xml.Unmarshal(text, &suites) != nil || suites.Suites[0].Failures != 1 {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestCasesOfOneNameAreToldApart(t *testing.T) {
	t.Parallel()
	text, err := ChecksJUnit("validate", check.Results{
		{Name: "a", Outcome: check.Passed}, {Name: "a", Outcome: check.Failed, Message: "x\ny"}, {Name: "b", Outcome: check.Skipped, Message: "nothing there"},
	})
	if err != nil || !strings.Contains(string(text), `name="a (2)"`) || !strings.Contains(string(text), `<skipped message="nothing there">`) {
		t.Errorf("%v\n%s", err, text)
	}
}

// GitLab refuses a larger file, and the job with it.
func TestTheDotenvHasABound(t *testing.T) {
	t.Parallel()
	report := &flywheel.Report{Outcome: flywheel.Built}
	for i := range 500 {
		report.Results = append(report.Results, fmt.Sprintf("/nix/store/%032d-result", i))
	}
	text := dotenv(report)
	if len(text) > 5<<10 || !strings.Contains(text, "-result\nFLYWHEEL_BUILT=") {
		t.Errorf("%d bytes:\n%s", len(text), text)
	}
}

func TestNobodyIsSentToALoopbackAddress(t *testing.T) {
	t.Parallel()
	for _, cache := range []string{"", "http://127.0.0.1:8080", "http://localhost/main"} {
		if links := annotations(&flywheel.Report{Cache: cache, Results: []string{appPath}})["Nix cache"]; len(links) != 0 {
			t.Errorf("%q: %+v", cache, links)
		}
	}
}
