package deploy

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"

	deployed "gitlab.com/bates-ils/projects/iac/attic-cache/deploy/tofu"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/environment"
)

// stack is a copy of a stack and its modules that OpenTofu may leave files in.
type stack struct {
	name    string
	root    string // with modules and stacks
	dir     string // the stack's own
	varFile string
	knows   map[string]bool // variables it declares
}

// openStack copies the sources into a temporary directory.
func openStack(name string, e environment.Environment, sources string) (_ *stack, err error) {
	from := fs.FS(deployed.Files)
	if sources != "" {
		from = os.DirFS(sources)
	}
	if !fs.ValidPath(name) || strings.Contains(name, "/") {
		return nil, inputf("there is no stack %q", name)
	}
	if _, err := fs.Stat(from, "stacks/"+name); errors.Is(err, fs.ErrNotExist) {
		return nil, inputf("there is no stack %q; there are %s", name, strings.Join(stacksOf(from), ", "))
	}
	varFile := "stacks/" + name + "/" + e.VarFile
	if _, err := fs.Stat(from, varFile); err != nil {
		return nil, inputf("the stack %s is not for the cluster %s: there is no %s", name, e.Cluster, varFile)
	}
	root, err := os.MkdirTemp("", "flywheel-deploy-")
	if err != nil {
		return nil, fmt.Errorf("making a working directory: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(root)
		}
	}()
	for _, part := range []string{"modules", "stacks/" + name} {
		if err := copyTree(from, part, root); err != nil {
			return nil, fmt.Errorf("copying the stack: %w", err)
		}
	}
	s := &stack{name: name, root: root, dir: filepath.Join(root, "stacks", name), varFile: e.VarFile}
	if s.knows, err = variablesOf(filepath.Join(s.dir, "variables.tf")); err != nil {
		return nil, err
	}
	return s, nil
}

func stacksOf(from fs.FS) []string {
	entries, err := fs.ReadDir(from, "stacks")
	if err != nil {
		return []string{"none"}
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// copyTree leaves out what an init in the sources left behind, such as a state
// of one's own.
func copyTree(from fs.FS, part, to string) error {
	return fs.WalkDir(from, part, func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && p == part: // a stack may need no modules
			return nil
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".terraform":
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, p), 0o700)
		case !d.Type().IsRegular() || strings.HasSuffix(p, "_override.tf"):
			return nil
		}
		text, err := fs.ReadFile(from, p)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, p), text, 0o600)
	})
}

func variablesOf(file string) (map[string]bool, error) {
	parsed, diags := hclparse.NewParser().ParseHCLFile(file)
	if diags.HasErrors() {
		return nil, inputf("the stack's variables: %v", diags)
	}
	content, _, diags := parsed.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "variable", LabelNames: []string{"name"}}}})
	if diags.HasErrors() {
		return nil, inputf("the stack's variables: %v", diags)
	}
	known := map[string]bool{}
	for _, block := range content.Blocks {
		known[block.Labels[0]] = true
	}
	return known, nil
}

// ofEnvironment says whether each environment has a stack of its own. Others are
// once on a cluster.
func (s *stack) ofEnvironment() bool { return s.knows["environment"] }

// stateName is the state's in GitLab.
func (s *stack) stateName(e environment.Environment) string {
	if s.ofEnvironment() {
		return s.name + "-" + e.Slug
	}
	return s.name + "-" + e.Cluster
}

// variables are those that the environment sets, as name=value.
func (s *stack) variables(e environment.Environment, image, project string) []string {
	var set []string
	add := func(name, value string) {
		if s.knows[name] {
			set = append(set, name+"="+value)
		}
	}
	add("kube_context", e.KubeContext)
	if image != "" {
		add("image", image)
	}
	if !s.ofEnvironment() {
		return set
	}
	add("environment", e.Name)
	add("namespace", e.Namespace)
	add("host", e.Host)
	add("wait", "false") // the rollout is waited for here, and explained
	if e.Kind == environment.Review {
		add("create_namespace", "true")
		if project != "" { // outside a job, the rights are there already
			add("deployer", fmt.Sprintf(`{group="gitlab:project_env_tier:%s:%s"}`, project, e.Tier))
		}
	}
	return set
}

// right is something that the cluster must allow.
type right struct{ verb, group, resource, namespace string }

func (r right) String() string {
	resource := r.resource
	if r.group != "" {
		resource += "." + r.group
	}
	return fmt.Sprintf("%s %s in the namespace %s", r.verb, resource, cmp.Or(r.namespace, "(all)"))
}

// rights are those without which an apply stops halfway. In the namespace of a
// review, which is made first, rights come with it.
func (s *stack) rights(e environment.Environment) []right {
	switch {
	case !s.ofEnvironment():
		return nil
	case e.Kind == environment.Review:
		return []right{
			{"create", "", "namespaces", ""},
			{"create", "rbac.authorization.k8s.io", "rolebindings", e.Namespace},
		}
	}
	var rights []right
	for _, resource := range []string{"/secrets", "/services", "apps/deployments"} {
		group, name, _ := strings.Cut(resource, "/")
		for _, verb := range []string{"get", "create", "patch", "delete"} {
			rights = append(rights, right{verb, group, name, e.Namespace})
		}
	}
	return slices.Clip(rights)
}
