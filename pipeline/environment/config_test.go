package environment_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/environment"
)

// elsewhere is another organisation's configuration.
const elsewhere = `project = "example/cache"

[clusters.one]
context = "kind-one"
domain = "one.example.org"
tfvars = "small.tfvars"

[environments.review]
name = "preview/{ref}"
tier = "testing"
cluster = "one"
namespace = "pr-{slug}"
host = "{slug}.cache.{domain}"
auto_stop = "1 week"
manual = true

[environments.production]
name = "live"
tier = "production"
cluster = "one"
namespace = "live"
host = "cache.example.org"
`

func TestAnotherOrganisation(t *testing.T) {
	t.Parallel()
	c, err := environment.Parse("x.toml", elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	e, err := environment.Map(c, environment.OfMergeRequest("7/x"))
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		e.Name: "preview/7-x", e.KubeContext: "kind-one", e.VarFile: "small.tfvars", e.Project: "example/cache",
		e.Tier: "testing", e.Domain: "one.example.org",
		e.Host: strings.TrimPrefix(e.Slug, "review-") + ".cache.one.example.org",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if !e.Manual || e.Blocking || e.AutoStop.Hours() != 7*24 {
		t.Errorf("got %+v", e)
	}
	e, err = environment.Map(c, environment.OfTag("v1.0.0"))
	if err != nil || e.Name != "live" || e.Host != "cache.example.org" || e.Slug != "production" {
		t.Errorf("got %+v, %v", e, err)
	}
	var none *environment.NoEnvironmentError
	if _, err := environment.Map(c, environment.OfBranch("main", "main")); !errors.As(err, &none) {
		t.Errorf("staging was left out: got %v", err)
	}
}

func TestNothingOfTheBuiltInConfigurationIsLeftInAnother(t *testing.T) {
	t.Parallel()
	c, err := environment.Parse("x.toml", elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	e, err := environment.Map(c, environment.OfTag("v1.0.0"))
	var b strings.Builder
	if err := errors.Join(err, environment.Dotenv(&b, e)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "bates") {
		t.Error(b.String())
	}
}

// Every fault names its key and line.
func TestFaultyConfigurations(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		old, new string // in elsewhere
		want     string
	}{
		{"no TOML", `"kind-one"`, `kind-one`, "x.toml:4: clusters.one.context: "},
		{"a key twice", `tier = "testing"`, "tier = \"testing\"\ntier = \"other\"", "x.toml:11: "},
		{"unknown key at the top", "\n[clusters.one]", "porject = 1\n[clusters.one]", "x.toml:2: porject: is not known here; known are agents, clusters, environments, project"},
		{"unknown key of a cluster", "tfvars", "tfvar", "x.toml:6: clusters.one.tfvar: is not known here"},
		{"unknown key of a rule", "manual = true", "manuel = true", "x.toml:15: environments.review.manuel: is not known here"},
		{"another case", "manual = true", "Manual = true", "x.toml:15: environments.review.Manual: is not known here"},
		{"unknown environment", "environments.production", "environments.prod", "x.toml:17: environments.prod: is not known here; known are production, review, staging"},
		{"auto_stop of production", `name = "live"`, "name = \"live\"\nauto_stop = \"1 day\"", "x.toml:19: environments.production.auto_stop: is not known here"},
		{"missing key", `host = "cache.example.org"`, "", "x.toml:17: environments.production.host: is missing"},
		{"missing project", `project = "example/cache"`, "", "x.toml: project: is missing"},
		{"no path", `"example/cache"`, `"cache"`, `x.toml:1: project: "cache": want a project as group/…/name`},
		{"number for a text", `"one.example.org"`, "1", "x.toml:5: clusters.one.domain: want a text in quotes, not 1"},
		{"text for a flag", "manual = true", `manual = "yes"`, "x.toml:15: environments.review.manual: want true or false, not yes"},
		{"text for a table", "[clusters.one]", "[clusters]\none = 1\n[x]", "x.toml:4: clusters.one: want a table"},
		{"domain", `"one.example.org"`, `"One.example.org"`, `x.toml:5: clusters.one.domain: "One.example.org": want a name`},
		{"domain with a dot", `"one.example.org"`, `"one.example.org."`, `x.toml:5: clusters.one.domain:`},
		{"line break in a context", `"kind-one"`, `"kind\none"`, `x.toml:4: clusters.one.context: "kind\none": want ASCII without spaces`},
		{"file elsewhere", "small.tfvars", "../small.tfvars", "x.toml:6: clusters.one.tfvars:"},
		{"no agents", `context = "kind-one"`, "", `x.toml:3: clusters.one.context: is missing, and there is no "agents" at the top`},
		{"agent and context", `context = "kind-one"`, "context = \"kind-one\"\nagent = \"one\"", "x.toml:5: clusters.one.agent: stands beside context"},
		{"agent", `context = "kind-one"`, `agent = "One"`, `x.toml:4: clusters.one.agent: "One": want`},
		{"name of a cluster", "clusters.one", `clusters."o ne"`, `x.toml:3: clusters."o ne": "o ne": want`},
		{"no such cluster", `cluster = "one"`, `cluster = "two"`, `x.toml:11: environments.review.cluster: there is no cluster "two"`},
		{"tier", `"testing"`, `"review"`, "x.toml:10: environments.review.tier: \"review\": want one of GitLab's tiers: production, staging, testing, development, other"},
		{"blocking alone", "manual = true", "blocking = true", "x.toml:15: environments.review.blocking: only a manual deployment can be waited for"},
		{"never", `"1 week"`, `"never"`, `x.toml:14: environments.review.auto_stop: "never": want a number and a unit`},
		{"no time", `"1 week"`, `"0 days"`, "x.toml:14: environments.review.auto_stop:"},
		{"too long a time", `"1 week"`, `"53 weeks"`, `x.toml:14: environments.review.auto_stop: "53 weeks": at most 365 days`},
		{"one name for all branches", "preview/{ref}", "preview", `x.toml:9: environments.review.name: "preview": want {ref} in it once`},
		{"one namespace for all branches", "pr-{slug}", "pr", `x.toml:12: environments.review.namespace: "pr": want {slug} in it once`},
		{"slug twice", "pr-{slug}", "{slug}{slug}", "x.toml:12: environments.review.namespace:"},
		{"unknown placeholder", "pr-{slug}", "{pr}-{slug}", `x.toml:12: environments.review.namespace: "{pr}-{slug}": there is no {pr} at this place`},
		{"branch in production", `"cache.example.org"`, `"{slug}.example.org"`, `x.toml:22: environments.production.host: "{slug}.example.org": there is no {slug} at this place`},
		{"open brace", `"cache.example.org"`, `"{domain"`, "there is no {domain at this place"},
		{"domain before", "{slug}.cache.{domain}", "{domain}.{slug}", "there is no {domain} at this place"},
		{"domain in a label", "{slug}.cache.{domain}", "{slug}-{domain}", "there is no {domain} at this place"},
		{"little room", "pr-{slug}", strings.Repeat("p", 44) + "{slug}", "leaves 19 characters for the branch, want 20 at least"},
		{"no room", "pr-{slug}", strings.Repeat("p", 70) + "{slug}", "leaves 0 characters"},
		{"namespace", "pr-{slug}", "pr_{slug}", `x.toml:12: environments.review.namespace: "pr_`},
		{"name", "preview/{ref}", "/{ref}", "x.toml:9: environments.review.name:"},
		{"long name", `"live"`, `"` + strings.Repeat("x", 256) + `"`, "longer than 255 characters"},
		{"long host", `"one.example.org"`, `"` + strings.Repeat("sixteen-letters.", 14) + `org"`, "a name in the DNS has at most 253"},
		{"no environment", elsewhere[strings.Index(elsewhere, "[environments.review]"):], "[environments]", "x.toml:8: environments: there is none of review, staging, production"},
		{"no environments", elsewhere[strings.Index(elsewhere, "[environments.review]"):], "", "x.toml: environments: is missing"},

		{"a branch's namespace", `namespace = "live"`, `namespace = "pr-live"`, `x.toml:21: environments.production.namespace: "pr-live" is what review gets for a branch "live"`},
		{"a branch's host", `"cache.example.org"`, `"live.cache.{domain}"`, `x.toml:22: environments.production.host: "live.cache.one.example.org" is what review gets for a branch "live"`},
		{"a branch's name", `name = "live"`, `name = "preview/live"`, `x.toml:18: environments.production.name: "preview/live" is what review gets for a branch "live"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(elsewhere, tt.old, tt.new, 1)
			if text == elsewhere {
				t.Fatal("nothing was changed")
			}
			_, err := environment.Parse("x.toml", text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if err != nil && !regexp.MustCompile(`(?m)\Ax\.toml(:\d+)?: `).MatchString(err.Error()) {
				t.Errorf("the file is not named: %v", err)
			}
		})
	}
}

// Staging would be deployed over production, as the shell pipeline did.
func TestTwoEnvironmentsAtOnePlace(t *testing.T) {
	t.Parallel()
	text := strings.ReplaceAll(environment.DefaultText(), "attic-cache-staging", "attic-cache")
	_, err := environment.Parse("x.toml", text)
	for _, key := range []string{"namespace", "host"} {
		want := "environments.production." + key + ": "
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "one would be deployed over the other") {
			t.Errorf("got %v, want %s…", err, want)
		}
	}
}

func TestAllFaultsAreToldAtOnce(t *testing.T) {
	t.Parallel()
	_, err := environment.Parse("x.toml", "a = 1\n[b]\nc = 2\n[environments.x]\n")
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		"x.toml: project: is missing", "x.toml: clusters: is missing", "x.toml:1: a: ", "x.toml:2: b: ", "x.toml:4: environments.x: ",
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Fatalf("got %d faults:\n%v", len(lines), err)
	}
	for i, w := range want {
		if !strings.HasPrefix(lines[i], w) {
			t.Errorf("got %q, want %q", lines[i], w)
		}
	}
}

func TestFaultsInTablesWithoutALineOfTheirOwn(t *testing.T) {
	t.Parallel()
	_, err := environment.Parse("x.toml", "\nfoo.bar = 1\nclusters.a.agent = \"a\"\nclusters.b = {domain = 3}\n")
	for _, want := range []string{"x.toml:2: foo: ", "x.toml:3: clusters.a.domain: is missing", "x.toml:4: clusters.b.domain: want a text"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestReadConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "x.toml")
	if err := os.WriteFile(file, []byte(elsewhere), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := environment.ReadConfig(file); err != nil {
		t.Error(err)
	}
	if _, err := environment.ReadConfig(filepath.Join(dir, "missing.toml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := environment.ReadConfig(dir); err == nil {
		t.Error("a directory was read")
	}
	if err := os.WriteFile(file, make([]byte, 1<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := environment.ReadConfig(file); err == nil || !strings.Contains(err.Error(), "at most 1048576 are read") {
		t.Errorf("got %v", err)
	}
}

// Whatever is accepted maps every ref to something that can be deployed to.
func FuzzParse(f *testing.F) {
	f.Add(environment.DefaultText())
	f.Add(elsewhere)
	f.Add("a.b = {c = [1]}\n[[d]]\n")
	f.Add("\xef\xbb\xbfproject = '''\na'''")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := environment.Parse("x.toml", text)
		if err != nil {
			var fault *environment.ConfigError
			if !errors.As(err, &fault) || fault.Line > strings.Count(text, "\n")+1 {
				t.Fatalf("%v", err)
			}
			return
		}
		for _, facts := range []environment.Facts{
			environment.OfMergeRequest("Feature/" + strings.Repeat("x", 80)), environment.OfMergeRequest("a"),
			environment.OfBranch("main", "main"), environment.OfTag("v1.2.3"),
		} {
			e, err := environment.Map(c, facts)
			var none *environment.NoEnvironmentError
			if errors.As(err, &none) {
				continue
			}
			var b strings.Builder
			if err := errors.Join(err, environment.Dotenv(&b, e)); err != nil {
				t.Fatal(err)
			}
			if !dnsLabel.MatchString(e.Namespace) || len(e.Host) > 253 {
				t.Fatalf("%+v", e)
			}
			for label := range strings.SplitSeq(e.Host, ".") {
				if !dnsLabel.MatchString(label) {
					t.Fatalf("host %q", e.Host)
				}
			}
		}
	})
}
