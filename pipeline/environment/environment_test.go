package environment_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/environment"
)

func builtIn(t testing.TB) *environment.Config {
	t.Helper()
	c, err := environment.Default()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The original system's table: trigger, environment, cluster, automatic or not.
func TestMapTheThreeTriggers(t *testing.T) {
	t.Parallel()
	const agents = "bates-ils/projects/kubernetes/gitlab-agents:"
	for _, tt := range []struct {
		name  string
		facts environment.Facts
		want  environment.Environment
	}{
		{"merge request", environment.OfMergeRequest("fix-cache"), environment.Environment{
			Kind: environment.Review, Name: "review/fix-cache", Slug: "review-fix-cache", Tier: "development",
			Cluster: "beehive", KubeContext: agents + "beehive", Domain: "beehive.bates.edu", VarFile: "beehive.tfvars",
			Namespace: "attic-cache-review-fix-cache", Host: "attic-cache-review-fix-cache.beehive.bates.edu",
			URL:         "https://attic-cache-review-fix-cache.beehive.bates.edu",
			StopOnMerge: true, AutoStop: 3 * 24 * time.Hour, ResourceGroup: "review/fix-cache",
		}},
		{"default branch", environment.OfBranch("main", "main"), environment.Environment{
			Kind: environment.Staging, Name: "staging", Slug: "staging", Tier: "staging",
			Cluster: "rigel", KubeContext: agents + "rigel", Domain: "rigel.bates.edu", VarFile: "rigel.tfvars",
			Namespace: "attic-cache-staging", Host: "attic-cache-staging.rigel.bates.edu",
			URL: "https://attic-cache-staging.rigel.bates.edu", ResourceGroup: "staging",
		}},
		{"release", environment.OfTag("v1.2.3"), environment.Environment{
			Kind: environment.Production, Name: "production", Slug: "production", Tier: "production",
			Cluster: "rigel", KubeContext: agents + "rigel", Domain: "rigel.bates.edu", VarFile: "rigel.tfvars",
			Namespace: "attic-cache", Host: "attic-cache.rigel.bates.edu",
			URL:    "https://attic-cache.rigel.bates.edu",
			Manual: true, Blocking: true, ResourceGroup: "production",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.want.Project = "bates-ils/projects/iac/attic-cache"
			got, err := environment.Map(builtIn(t), tt.facts)
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestMapOddRefs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		facts environment.Facts
		want  string // name of the environment, or
		none  string // why there is none, or
		fault string // what is wrong with the facts
	}{
		{name: "feature branch", facts: environment.OfBranch("feature/x", "main"), none: `branch "feature/x" has no environment: it is not the default branch, and no merge request`},
		{name: "branch like a tag", facts: environment.OfBranch("v1.2.3", "main"), none: "not the default branch"},
		{name: "branch in another case", facts: environment.OfBranch("Main", "main"), none: "not the default branch"},
		{name: "branch called production", facts: environment.OfBranch("production", "main"), none: "not the default branch"},
		{name: "another default branch", facts: environment.OfBranch("trunk", "trunk"), want: "staging"},
		{name: "merge request of the default branch", facts: environment.OfMergeRequest("main"), want: "review/main"},
		{name: "merge request called staging", facts: environment.OfMergeRequest("staging"), want: "review/staging"},
		{name: "merge request like a tag", facts: environment.OfMergeRequest("v1.2.3"), want: "review/v1-2-3"},
		{name: "merge request without letters", facts: environment.OfMergeRequest("日本"), want: "review/cf2abf0c"},
		{name: "GitLab's own slug is kept", facts: environment.Facts{MergeRequest: true, Branch: "Fix_X", Slug: "fix-x"}, want: "review/fix-x"},
		{name: "slug that is none", facts: environment.Facts{MergeRequest: true, Branch: "x", Slug: "x\nKUBE_CONTEXT=y"}, fault: "slug"},
		{name: "fork", facts: environment.Facts{MergeRequest: true, Branch: "main", Fork: "eve/attic-cache"}, none: "its branch is in a fork: eve/attic-cache"},

		{name: "first release", facts: environment.OfTag("v0.0.0"), want: "production"},
		{name: "long numbers", facts: environment.OfTag("v10.200.3000000000000000000000"), want: "production"},
		{name: "pre-release", facts: environment.OfTag("v1.2.3-rc.1"), none: `tag "v1.2.3-rc.1" has no environment: it is a pre-release`},
		{name: "pre-release with a build", facts: environment.OfTag("v1.2.3-rc.1+b"), none: "it is a pre-release"},
		{name: "build metadata", facts: environment.OfTag("v1.2.3+b.1"), none: "it has build metadata"},
		{name: "no v", facts: environment.OfTag("1.2.3"), none: "it is no version v1.2.3"},
		{name: "V", facts: environment.OfTag("V1.2.3"), none: "it is no version"},
		{name: "two numbers", facts: environment.OfTag("v1.2"), none: "it is no version"},
		{name: "four numbers", facts: environment.OfTag("v1.2.3.4"), none: "it is no version"},
		{name: "leading zero", facts: environment.OfTag("v1.02.3"), none: "it is no version"},
		{name: "leading zero of a pre-release", facts: environment.OfTag("v1.2.3-01"), none: "it is no version"},
		{name: "empty pre-release", facts: environment.OfTag("v1.2.3-"), none: "it is no version"},
		{name: "something behind", facts: environment.OfTag("v1.2.3 "), none: "it is no version"},
		{name: "a line behind", facts: environment.OfTag("v1.2.3\n"), none: "it is no version"},
		{name: "something before", facts: environment.OfTag("app-v1.2.3"), none: "it is no version"},
		{name: "other digits", facts: environment.OfTag("v1.2.٣"), none: "it is no version"},

		{name: "schedule on the default branch", facts: environment.Facts{Branch: "main", DefaultBranch: "main", Scheduled: true}, none: "a schedule deploys nothing"},
		{name: "schedule on a release", facts: environment.Facts{Tag: "v1.2.3", Scheduled: true}, none: "a schedule deploys nothing"},

		{name: "nothing", fault: "neither a branch nor a tag"},
		{name: "merge request without branch", facts: environment.OfMergeRequest(""), fault: "neither a branch nor a tag"},
		{name: "branch and tag", facts: environment.Facts{Branch: "main", Tag: "v1.2.3", DefaultBranch: "main"}, fault: "only one of them"},
		{name: "merge request and tag", facts: environment.Facts{MergeRequest: true, Tag: "v1.2.3"}, fault: "only one of them"},
		{name: "unknown default branch", facts: environment.Facts{Branch: "main"}, fault: "which branch is the default one is not known"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := environment.Map(builtIn(t), tt.facts)
			var none *environment.NoEnvironmentError
			switch {
			case tt.none != "":
				if !errors.As(err, &none) || !strings.Contains(err.Error(), tt.none) {
					t.Errorf("got %v, %v, want no environment: %s", got.Name, err, tt.none)
				}
			case tt.fault != "":
				if err == nil || errors.As(err, &none) || !strings.Contains(err.Error(), tt.fault) {
					t.Errorf("got %v, %v, want a fault: %s", got.Name, err, tt.fault)
				}
			case err != nil || got.Name != tt.want:
				t.Errorf("got %q, %v, want %q", got.Name, err, tt.want)
			}
		})
	}
}

func TestMapOfAnEnvironmentLeftOut(t *testing.T) {
	t.Parallel()
	c := builtIn(t)
	delete(c.Environments, environment.Production)
	_, err := environment.Map(c, environment.OfTag("v1.2.3"))
	var none *environment.NoEnvironmentError
	if !errors.As(err, &none) || !strings.Contains(err.Error(), `no environment "production"`) {
		t.Errorf("got %v", err)
	}
}

// .gitlab-ci.yml has the same expression in its rules.
func TestReleaseTagIsARegularExpression(t *testing.T) {
	t.Parallel()
	if !regexp.MustCompile(environment.ReleaseTag).MatchString("v1.2.3") {
		t.Error("v1.2.3 is not matched")
	}
}
