package environment_test

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/environment"
)

func mapped(t testing.TB, f environment.Facts) environment.Environment {
	t.Helper()
	e, err := environment.Map(builtIn(t), f)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestJSON(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := environment.JSON(&b, mapped(t, environment.OfMergeRequest("fix"))); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"schema": 1.0, "kind": "review", "name": "review/fix", "slug": "review-fix", "tier": "development",
		"project": "bates-ils/projects/iac/attic-cache", "cluster": "beehive",
		"kubeContext": "bates-ils/projects/kubernetes/gitlab-agents:beehive",
		"namespace":   "attic-cache-review-fix", "domain": "beehive.bates.edu",
		"host": "attic-cache-review-fix.beehive.bates.edu", "url": "https://attic-cache-review-fix.beehive.bates.edu",
		"manual": false, "blocking": false, "stopOnMerge": true, "autoStopSeconds": 259200.0,
		"varFile": "beehive.tfvars", "resourceGroup": "review/fix",
	} {
		if got[key] != want {
			t.Errorf("%s: got %v, want %v", key, got[key], want)
		}
		delete(got, key)
	}
	if len(got) > 0 {
		t.Errorf("more keys: %v", got)
	}
}

// GitLab's reader of dotenv reports: no quotes, no comments, no empty lines, no
// spaces, under 5 KiB, 20 variables on the smallest plan.
func TestDotenv(t *testing.T) {
	t.Parallel()
	for _, f := range []environment.Facts{
		environment.OfMergeRequest("Feature/X"), environment.OfBranch("main", "main"), environment.OfTag("v1.2.3"),
	} {
		var b strings.Builder
		if err := environment.Dotenv(&b, mapped(t, f)); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if len(lines) > 20 || b.Len() >= 5<<10 {
			t.Errorf("%d variables in %d bytes", len(lines), b.Len())
		}
		for _, line := range lines {
			if !regexp.MustCompile(`^(KUBE|ENVIRONMENT)_[A-Z_]+=[!-~]+$`).MatchString(line) {
				t.Errorf("%v: line %q", f, line)
			}
		}
		if !strings.Contains(b.String(), "KUBE_CONTEXT=bates-ils/projects/kubernetes/gitlab-agents:") {
			t.Errorf("%v: no context:\n%s", f, &b)
		}
	}
}

func TestDotenvRefusesWhatItCannotCarry(t *testing.T) {
	t.Parallel()
	for _, context := range []string{"", "a b", "a\nKUBE_NAMESPACE=kube-system", "ü"} {
		e := mapped(t, environment.OfTag("v1.2.3"))
		e.KubeContext = context
		var b strings.Builder
		if err := environment.Dotenv(&b, e); err == nil || b.Len() > 0 {
			t.Errorf("%q: got %v and %q", context, err, &b)
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		facts             environment.Facts
		deployed, stopped string
	}{
		{environment.OfMergeRequest("x"), "automatically", "on merge and after 3 days"},
		{environment.OfBranch("main", "main"), "automatically", "never"},
		{environment.OfTag("v1.2.3"), "by hand, the pipeline waits for it", "never"},
	} {
		var b strings.Builder
		if err := environment.Text(&b, mapped(t, tt.facts)); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"(?m)^environment +[a-z/]+$", "(?m)^deployed +" + tt.deployed + "$", "(?m)^stopped +" + tt.stopped + "$",
		} {
			if !regexp.MustCompile(want).MatchString(b.String()) {
				t.Errorf("want %s in\n%s", want, &b)
			}
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestOutputThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	for name, format := range environment.Formats {
		if err := format(full{}, mapped(t, environment.OfTag("v1.2.3"))); err == nil || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
