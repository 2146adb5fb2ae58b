package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The stacks that the program was built with take what they are given. Not
// parallel: the provider reads KUBECONFIG of the process.
func TestTheRealStacksArePlanned(t *testing.T) {
	mirror := os.Getenv("TOFU_MIRROR")
	if mirror == "" {
		t.Skip("the providers are not there: set TOFU_MIRROR to a file system mirror, as for deploy/tofu/test")
	}
	dir := t.TempDir()
	files := map[string]string{
		"rc": fmt.Sprintf("provider_installation {\n  filesystem_mirror {\n    path = %q\n  }\n}\n", mirror),
	}
	state, api := newState(t), newAPI(t)
	files["kubeconfig"] = strings.NewReplacer("URL", api.URL).Replace(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "URL"}}]
users: [{name: u, user: {token: job}}]
contexts:
- {name: "bates-ils/projects/kubernetes/gitlab-agents:beehive", context: {cluster: c, user: u}}
- {name: "bates-ils/projects/kubernetes/gitlab-agents:rigel", context: {cluster: c, user: u}}
`)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TF_CLI_CONFIG_FILE", filepath.Join(dir, "rc"))
	t.Setenv("KUBECONFIG", filepath.Join(dir, "kubeconfig"))
	for name, want := range map[string]string{"review/feature/x": "Namespace attic-cache-review-", "production": "Deployment attic-cache"} {
		o := job(t, state, api)
		o.Environment, o.Stack, o.Sources, o.Image = named(t, name), "attic", "", "registry.example.org/attic-cache:v9"
		plan, err := Plan(t.Context(), o)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, shown(o))
		}
		if !slices.ContainsFunc(plan.Resources, func(c Change) bool { return strings.HasPrefix(c.Object, want) }) || plan.Namespace != o.Environment.Namespace {
			t.Errorf("%s: no %s in %+v", name, want, plan)
		}
		if !slices.ContainsFunc(plan.Resources, func(c Change) bool { return c.Data }) {
			t.Errorf("%s: nothing holds data: %+v", name, plan)
		}
	}
}

// A database or a bucket is not destroyed by accident; what holds no data is.
func TestWhatHoldsDataIsGuarded(t *testing.T) {
	t.Parallel()
	object := func(address, kind string, actions ...string) string {
		return fmt.Sprintf(`{"address":%q,"mode":"managed","type":"kubectl_manifest","change":{"actions":["%s"],"before":{"kind":%q,"name":"n"},"after":null}}`,
			address, strings.Join(actions, `","`), kind)
	}
	for _, tt := range []struct{ change, want string }{
		{object("a", "Cluster", "delete"), "Cluster n"},
		{object("a", "Tenant", "delete", "create"), "Tenant n"},
		{object("a", "PersistentVolumeClaim", "create", "delete"), "PersistentVolumeClaim n"},
		{object("a", "Namespace", "delete"), "Namespace n"},
		{object("a", "Cluster", "update"), ""},
		{object("a", "Deployment", "delete"), ""},
		{object("a", "Cluster", "no-op"), ""},
		{`{"address":"aws_s3_bucket.b","type":"aws_s3_bucket","change":{"actions":["delete"],"before":{"name":5}}}`, "aws_s3_bucket.b"},
		{`{"address":"terraform_data.t","type":"terraform_data","change":{"actions":["delete"],"before":{}}}`, ""},
	} {
		s, err := parsePlan([]byte(`{"resource_changes":[` + tt.change + `]}`))
		if err != nil || strings.Join(s.Guarded(), ",") != tt.want {
			t.Errorf("%s: %v, %v", tt.change, s.Guarded(), err)
		}
	}
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte(`{"variables":{"namespace":{"value":"n"}},"resource_changes":[{"address":"a","change":{"actions":["delete","create"],"before":{},"after":null}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parsePlan(text)
		if err == nil && s.Changes() > 0 && s.String() == "no changes" {
			t.Errorf("%+v", s)
		}
	})
}
