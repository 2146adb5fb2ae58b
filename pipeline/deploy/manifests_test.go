package deploy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/config"
)

const (
	manifests     = "../../deploy/manifests"
	kustomization = "kustomization.yaml"
)

// decodeStrictly reads the objects of a YAML stream as the API server does with
// fieldValidation=Strict: kinds that it does not know, and fields that they do not
// have, are errors. deploy/tofu/test compares them with the published schemas, too.
func decodeStrictly(t *testing.T, from string, text []byte) []runtime.Object {
	t.Helper()
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	var objects []runtime.Object
	for reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text))); ; {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatalf("%s: %v", from, err)
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Errorf("%s: %v\n%s", from, err, document)
			continue
		}
		objects = append(objects, object)
	}
}

func render(t *testing.T, dir string) []runtime.Object {
	t.Helper()
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("kubectl apply -k %s: %v", dir, err)
	}
	text, err := rendered.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return decodeStrictly(t, dir, text)
}

// What is applied by hand has no plan that would show a mistyped field.
func TestManifestsHaveNoUnknownKindsOrFields(t *testing.T) {
	t.Parallel()
	files, rendered := map[string]int{}, map[string]int{} // objects, by directory
	err := filepath.WalkDir(manifests, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" || filepath.Base(filepath.Dir(path)) == "agent":
			return err // the agent's configuration is GitLab's
		case d.Name() == kustomization:
			rendered[filepath.Dir(path)] = len(render(t, filepath.Dir(path)))
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil {
			files[filepath.Dir(path)] += len(decodeStrictly(t, path, text))
		}
		return err
	})
	if err != nil || len(files) == 0 || len(rendered) == 0 {
		t.Fatalf("%v: %v %v", err, files, rendered)
	}
	for dir, n := range rendered {
		if n != files[dir] {
			t.Errorf("%s: %d objects are rendered of %d: does the kustomization name each file?", dir, n, files[dir])
		}
	}
}

// A name or label that one object has and another asks for otherwise is valid, and
// serves nothing.
func TestTheBaseOfTheCacheServerHangsTogether(t *testing.T) {
	t.Parallel()
	var set *apps.StatefulSet
	var services []*core.Service
	var policy *networking.NetworkPolicy
	accounts := map[string]bool{}
	for _, object := range render(t, manifests+"/cache-server") {
		if about, ok := object.(meta.Object); !ok || about.GetNamespace() != "attic-cache" {
			t.Errorf("%T is in another namespace", object)
		}
		switch o := object.(type) {
		case *apps.StatefulSet:
			set = o
		case *core.Service:
			services = append(services, o)
		case *networking.NetworkPolicy:
			policy = o
		case *core.ServiceAccount:
			accounts[o.Name] = true
		}
	}
	if set == nil || policy == nil || len(services) != 2 || len(set.Spec.Template.Spec.Containers) != 1 {
		t.Fatalf("%v, %v, %v", set, policy, services)
	}
	pod, container := set.Spec.Template, set.Spec.Template.Spec.Containers[0]
	selects := func(what string, s *meta.LabelSelector) {
		t.Helper()
		selector, err := meta.LabelSelectorAsSelector(s)
		if err != nil || selector.Empty() || !selector.Matches(labels.Set(pod.Labels)) {
			t.Errorf("%s does not select the pod: %v, %v", what, selector, err)
		}
	}
	hasPort := func(what string, port intstr.IntOrString) {
		t.Helper()
		if !slices.ContainsFunc(container.Ports, func(p core.ContainerPort) bool { return p.Name == port.String() }) {
			t.Errorf("%s asks for the port %s, which the server has not", what, port.String())
		}
	}
	selects("the StatefulSet", set.Spec.Selector)
	selects("the NetworkPolicy", &policy.Spec.PodSelector)
	for _, s := range services {
		selects(s.Name, &meta.LabelSelector{MatchLabels: s.Spec.Selector})
		for _, p := range s.Spec.Ports {
			hasPort(s.Name, p.TargetPort)
		}
	}
	for _, rule := range policy.Spec.Ingress {
		for _, p := range rule.Ports {
			hasPort("the NetworkPolicy", *p.Port)
		}
	}
	for name, probe := range map[string]*core.Probe{"startup": container.StartupProbe, "liveness": container.LivenessProbe, "readiness": container.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil {
			t.Errorf("there is no %s probe", name)
			continue
		}
		hasPort(name, probe.HTTPGet.Port)
	}
	volumes := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = true
	}
	for _, c := range set.Spec.VolumeClaimTemplates {
		volumes[c.Name] = true
	}
	for _, m := range container.VolumeMounts {
		if !volumes[m.Name] {
			t.Errorf("there is no volume %s", m.Name)
		}
	}
	if !slices.ContainsFunc(services, func(s *core.Service) bool { return s.Name == set.Spec.ServiceName }) || !accounts[pod.Spec.ServiceAccountName] {
		t.Errorf("there is no service %s or no account %s", set.Spec.ServiceName, pod.Spec.ServiceAccountName)
	}
	if image, tag, _ := strings.Cut(container.Image, ":"); tag == "" || tag == "latest" || image == "" {
		t.Errorf("the image %s has no version", container.Image)
	}
	knownToTheServer(t, container.Env)
}

// knownToTheServer sees that the server has a setting for each variable, and takes
// its value: it passes over the others without a word.
func knownToTheServer(t *testing.T, env []core.EnvVar) {
	t.Helper()
	const prefix = "CACHESERVER_"
	settings, set := config.New(), map[string]string{}
	settings.AddFlags(pflag.NewFlagSet("", pflag.ContinueOnError), ^config.Group(0))
	for _, v := range env {
		name, ours := strings.CutPrefix(v.Name, prefix)
		if ours && !settings.Has(strings.ToLower(strings.ReplaceAll(name, "_", "-"))) {
			t.Errorf("the server has no setting %s", v.Name)
		}
		set[v.Name] = v.Value
	}
	if err := settings.Load(func(name string) string { return set[name] }); err != nil {
		t.Errorf("the server refuses it: %v", err)
	}
}
