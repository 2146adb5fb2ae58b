package environment

import (
	"strings"
	"testing"
)

// A job's name of a review is a slug: taken for a branch, it would be another
// environment, with another namespace.
func TestEnvironmentsByName(t *testing.T) {
	t.Parallel()
	c, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	job := Facts{MergeRequest: true, Branch: "feature/X", Slug: "feature-x"}
	own, err := Map(c, job)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		facts Facts
		want  string
	}{
		"staging":          {Facts{}, "attic-cache-staging"},
		"production":       {job, "attic-cache"},
		"review/fix":       {Facts{}, "attic-cache-review-fix"},
		"review/feature/X": {Facts{}, own.Namespace},
		"review/feature-x": {job, own.Namespace},
		"review":           {job, own.Namespace},
	} {
		if e, err := ByName(c, name, tt.facts); err != nil || e.Namespace != tt.want {
			t.Errorf("%s: %s, want %s: %v", name, e.Namespace, tt.want, err)
		}
	}
	for name, want := range map[string]string{
		"prod":    `there is no environment "prod": there are review/BRANCH, staging, production`,
		"":        "there is no environment",
		"review":  "say which, as review/BRANCH",
		"review/": "there is no environment",
	} {
		if _, err := ByName(c, name, Facts{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
