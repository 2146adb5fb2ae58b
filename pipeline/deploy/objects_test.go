package deploy

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// plannedObject is an object that a stack would apply.
type plannedObject struct {
	address string
	*unstructured.Unstructured
}

// plannedModule is a module of a plan in OpenTofu's JSON.
type plannedModule struct {
	Resources []struct {
		Address string `json:"address"`
		Type    string `json:"type"`
		Mode    string `json:"mode"`
		Values  struct {
			Body string `json:"yaml_body"` // empty where it is known at apply only
		} `json:"values"`
	} `json:"resources"`
	Modules []plannedModule `json:"child_modules"`
}

// objects returns those of the module and how many are not known yet.
func (m plannedModule) objects(t *testing.T) (objects []plannedObject, unknown int) {
	t.Helper()
	for _, r := range m.Resources {
		if r.Type != "kubectl_manifest" || r.Mode != "managed" {
			continue
		}
		if r.Values.Body == "" {
			unknown++
			continue
		}
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(r.Values.Body), &object.Object); err != nil {
			t.Fatalf("%s: %v", r.Address, err)
		}
		objects = append(objects, plannedObject{r.Address, object})
	}
	for _, child := range m.Modules {
		more, n := child.objects(t)
		objects, unknown = append(objects, more...), unknown+n
	}
	return objects, unknown
}

// warnings keeps what the API server warns of.
type warnings struct {
	mu   sync.Mutex
	told []string
}

// headlessWarning is of every headless Service in 1.34, for the affinity None that
// the API server itself fills in.
const headlessWarning = "spec.SessionAffinity is ignored for headless services"

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	if text == headlessWarning {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, text)
}

func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	told := w.told
	w.told = nil
	return told
}

// validateObjects asks the API server about each object as if it were applied, in
// namespaces with the labels that the stacks give them: unknown fields are errors,
// and so are its warnings, of which Pod Security has some.
func validateObjects(t *testing.T, c *realCluster) {
	dir := os.Getenv("CLUSTERTEST_OBJECTS")
	if dir == "" {
		t.Skip("there are no plans: run deploy/tofu/cluster-test, which renders them and sets CLUSTERTEST_OBJECTS")
	}
	plans, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(plans) == 0 {
		t.Fatalf("no plans in %s: %v", dir, err)
	}
	config := rest.CopyConfig(c.config)
	var warned warnings
	config.WarningHandler = &warned
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.admin.Discovery()))
	apply := func(o *unstructured.Unstructured, dryRun ...string) error {
		kind := o.GroupVersionKind()
		mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil {
			return err
		}
		text, err := json.Marshal(o)
		if err != nil {
			return err
		}
		resource := dynamic.ResourceInterface(client.Resource(mapping.Resource))
		if mapping.Scope.Name() == apimeta.RESTScopeNameNamespace {
			resource = client.Resource(mapping.Resource).Namespace(o.GetNamespace())
		}
		force := true
		_, err = resource.Patch(t.Context(), o.GetName(), types.ApplyPatchType, text, meta.PatchOptions{
			FieldManager: "validation", Force: &force, FieldValidation: meta.FieldValidationStrict, DryRun: dryRun,
		})
		return err
	}
	skipped := map[string]int{}
	for _, plan := range plans {
		objects, unknown := readPlan(t, plan)
		makeNamespaces(t, objects, apply)
		warned.take()
		checked := 0
		for _, o := range objects {
			err := apply(o.Unstructured, meta.DryRunAll)
			switch {
			case apimeta.IsNoMatchError(err):
				skipped[o.GroupVersionKind().GroupKind().String()]++
				continue
			case err != nil:
				t.Errorf("%s: %s: %v", filepath.Base(plan), o.address, err)
			}
			for _, text := range warned.take() {
				t.Errorf("%s: %s: warning: %s", filepath.Base(plan), o.address, text)
			}
			checked++
		}
		t.Logf("%s: %d of %d objects checked; %d more are known at apply only", filepath.Base(plan), checked, len(objects), unknown)
	}
	for _, kind := range slices.Sorted(maps.Keys(skipped)) {
		t.Logf("skipped: %d of %s, whose definition is not here (CRDS)", skipped[kind], kind)
	}
}

func readPlan(t *testing.T, file string) ([]plannedObject, int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var plan struct {
		Planned struct {
			Root plannedModule `json:"root_module"`
		} `json:"planned_values"`
	}
	if err := json.Unmarshal(text, &plan); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	objects, unknown := plan.Planned.Root.objects(t)
	if len(objects) == 0 {
		t.Fatalf("%s: no objects", file)
	}
	return objects, unknown
}

// makeNamespaces makes those that objects are in: a dry run of what is inside needs
// them to be there.
func makeNamespaces(t *testing.T, objects []plannedObject, apply func(*unstructured.Unstructured, ...string) error) {
	t.Helper()
	namespaces := map[string]*unstructured.Unstructured{}
	for _, o := range objects {
		if name := o.GetNamespace(); name != "" && namespaces[name] == nil {
			bare := &unstructured.Unstructured{}
			bare.SetAPIVersion("v1")
			bare.SetKind("Namespace")
			bare.SetName(name)
			if strings.HasPrefix(name, "attic-cache") { // made by the stack cluster
				bare.SetLabels(map[string]string{"pod-security.kubernetes.io/warn": "restricted", "pod-security.kubernetes.io/enforce": "restricted"})
			}
			namespaces[name] = bare
		}
		if o.GetKind() == "Namespace" {
			namespaces[o.GetName()] = o.Unstructured
		}
	}
	for _, namespace := range namespaces {
		if err := apply(namespace); err != nil && !errors.IsAlreadyExists(err) {
			t.Fatalf("the namespace %s: %v", namespace.GetName(), err)
		}
	}
}
