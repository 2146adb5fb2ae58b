// Command check compares what the stacks would apply with the schemas of
// Kubernetes and of the operators, and the runners' configurations with the keys
// that a runner knows.
//
//	check [-crds DIR] [-manifests DIR] PLAN.json …
//
// A plan is what tofu show -json prints; the objects are its output manifests, the
// configurations its output configs. Manifests are the objects of all YAML files
// below a directory. It is run in its own directory. Kinds whose definition is not
// to be had are named and skipped. The exit status is 1 when something is wrong.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/openapi"
	"sigs.k8s.io/kubectl-validate/pkg/openapiclient"
	"sigs.k8s.io/kubectl-validate/pkg/validator"
	"sigs.k8s.io/yaml"
)

// kubernetes is the newest version whose schemas kubectl-validate brings.
const kubernetes = "1.30"

// definitions are the directories of CustomResourceDefinitions, by Go module.
var definitions = map[string]string{
	"github.com/cloudnative-pg/cloudnative-pg": "config/crd/bases",
	"sigs.k8s.io/external-dns":                 "charts/external-dns/crds",
	"sigs.k8s.io/gateway-api":                  "config/crd/standard",
}

func main() {
	crds := flag.String("crds", "", "directory with further CustomResourceDefinitions")
	manifests := flag.String("manifests", "", "directory with objects as YAML files")
	flag.Parse()
	if flag.NArg() == 0 && *manifests == "" {
		fmt.Fprintln(os.Stderr, "usage: check [-crds DIR] [-manifests DIR] PLAN.json …")
		os.Exit(2)
	}
	if err := run(*crds, *manifests, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(crds, manifests string, plans []string) error {
	schemas, err := newSchemas(crds)
	if err != nil {
		return err
	}
	var faults []error
	if manifests != "" {
		faults = append(faults, schemas.checkFiles(manifests))
	}
	for _, plan := range plans {
		outputs, err := readOutputs(plan)
		if err != nil {
			return err
		}
		checked := 0
		for _, name := range slices.Sorted(maps.Keys(outputs.Manifests.Value)) {
			ok, err := schemas.check([]byte(outputs.Manifests.Value[name]))
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: %s: %w", filepath.Base(plan), name, err))
			}
			if ok {
				checked++
			}
		}
		for name, c := range outputs.Configs.Value {
			if err := checkRunner(c.Global, c.Template); err != nil {
				faults = append(faults, fmt.Errorf("%s: configuration of the runner %s: %w", filepath.Base(plan), name, err))
			}
		}
		fmt.Printf("%s: %d of %d objects and %d configurations checked\n",
			filepath.Base(plan), checked, len(outputs.Manifests.Value), len(outputs.Configs.Value))
	}
	for _, kind := range slices.Sorted(maps.Keys(schemas.skipped)) {
		fmt.Printf("skipped: %d of %s, whose definition is not here (-crds)\n", schemas.skipped[kind], kind)
	}
	return errors.Join(faults...)
}

type outputs struct {
	Manifests struct {
		Value map[string]string `json:"value"`
	} `json:"manifests"`
	Configs struct {
		Value map[string]struct{ Global, Template string } `json:"value"`
	} `json:"configs"`
}

func readOutputs(plan string) (outputs, error) {
	b, err := os.ReadFile(plan)
	if err != nil {
		return outputs{}, fmt.Errorf("reading the plan: %w", err)
	}
	var p struct {
		Planned struct {
			Outputs outputs `json:"outputs"`
		} `json:"planned_values"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return outputs{}, fmt.Errorf("reading the plan %s: %w", plan, err)
	}
	if len(p.Planned.Outputs.Manifests.Value) == 0 {
		return outputs{}, fmt.Errorf("the plan %s has no output manifests", plan)
	}
	return p.Planned.Outputs, nil
}

type schemas struct {
	validator *validator.Validator
	skipped   map[string]int // by kind
}

func newSchemas(crds string) (*schemas, error) {
	sources := []openapi.Client{openapiclient.NewHardcodedBuiltins(kubernetes)}
	for _, module := range slices.Sorted(maps.Keys(definitions)) {
		dir, err := moduleDir(module)
		if err != nil {
			return nil, err
		}
		sources = append(sources, openapiclient.NewLocalCRDFiles(onlyCRDs{os.DirFS(filepath.Join(dir, definitions[module]))}))
	}
	if crds != "" {
		sources = append(sources, openapiclient.NewLocalCRDFiles(onlyCRDs{os.DirFS(crds)}))
	}
	v, err := validator.New(openapiclient.NewComposite(sources...))
	if err != nil {
		return nil, fmt.Errorf("reading the schemas: %w", err)
	}
	return &schemas{validator: v, skipped: map[string]int{}}, nil
}

// check is false, without an error, where the kind's definition is not to be had.
func (s *schemas) check(text []byte) (bool, error) {
	var object unstructured.Unstructured
	if err := yaml.Unmarshal(text, &object.Object); err != nil {
		return false, fmt.Errorf("no YAML: %w", err)
	}
	kind := object.GroupVersionKind()
	_, parsed, err := s.validator.Parse(text)
	if err != nil {
		if parsed == nil && isMissing(err) {
			s.skipped[cmp.Or(kind.Group, "core")+"/"+kind.Kind]++
			return false, nil
		}
		return true, err
	}
	return true, s.validator.Validate(parsed)
}

// isMissing tells a kind without a schema from a field that the schema refuses.
func isMissing(err error) bool {
	var status interface{ Status() metav1.Status }
	return !errors.As(err, &status) && strings.Contains(err.Error(), "failed to locate OpenAPI spec")
}

// moduleDir is where a module of crds/go.mod lies, which is downloaded if need be.
func moduleDir(module string) (string, error) {
	cmd := exec.Command("go", "mod", "download", "-json", module)
	cmd.Dir = filepath.Join("..", "crds")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("downloading the Go module %s: %w\n%s", module, err, out)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		return "", fmt.Errorf("reading where the Go module %s is: %w", module, err)
	}
	return m.Dir, nil
}

// onlyCRDs leaves out what else lies in a directory, such as a README.
type onlyCRDs struct{ fs.FS }

func (o onlyCRDs) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(o.FS, name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		return e.IsDir() || filepath.Ext(e.Name()) != ".yaml" || e.Name() == "kustomization.yaml"
	}), err
}

// checkRunner decodes both files of a runner as the runner does, and refuses keys
// that it would pass over without a word.
func checkRunner(global, template string) error {
	var g globalConfig
	if err := decode(global, &g); err != nil {
		return fmt.Errorf("config.toml: %w", err)
	}
	var t struct {
		Runners []runnerConfig `toml:"runners"`
	}
	if err := decode(template, &t); err != nil {
		return fmt.Errorf("template.toml: %w", err)
	}
	if len(t.Runners) != 1 {
		return fmt.Errorf("template.toml: %d runners, and register merges one", len(t.Runners))
	}
	r := t.Runners[0]
	if r.Executor != "kubernetes" || r.Limit > g.Concurrent || r.Kubernetes.Namespace == "" || r.Kubernetes.Image == "" {
		return fmt.Errorf("template.toml: executor %q, limit %d of %d, namespace %q, image %q", r.Executor, r.Limit, g.Concurrent, r.Kubernetes.Namespace, r.Kubernetes.Image)
	}
	return nil
}

func decode(text string, into any) error {
	meta, err := toml.Decode(text, into)
	if err != nil {
		return err
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return fmt.Errorf("no such keys: %v", unknown)
	}
	return nil
}
