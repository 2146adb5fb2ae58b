package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// applyDefinitions makes the CustomResourceDefinitions of the directories and waits
// until the API server serves them.
func applyDefinitions(ctx context.Context, config *rest.Config, dirs []string) error {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	var names []string
	for _, dir := range dirs {
		found, err := readDefinitions(dir)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("there is no CustomResourceDefinition in %s/*.yaml", dir)
		}
		for _, definition := range found {
			if _, err := client.Resource(definitions).Create(ctx, definition, meta.CreateOptions{}); err != nil {
				return fmt.Errorf("applying a definition of %s: %w", dir, err)
			}
			names = append(names, definition.GetName())
		}
	}
	for _, name := range names {
		if err := await(ctx, name+" is not served", func(ctx context.Context) error {
			return established(ctx, client, name)
		}); err != nil {
			return err
		}
	}
	return nil
}

// readDefinitions leaves out what else lies beside them, such as a kustomization.
func readDefinitions(dir string) ([]*unstructured.Unstructured, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("looking into %s: %w", dir, err)
	}
	var found []*unstructured.Unstructured
	for _, file := range files {
		in, err := readObjects(file)
		if err != nil {
			return nil, err
		}
		for _, object := range in {
			if object.GroupVersionKind() == definitions.GroupVersion().WithKind("CustomResourceDefinition") {
				found = append(found, object)
			}
		}
	}
	return found, nil
}

func readObjects(file string) ([]*unstructured.Unstructured, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading definitions: %w", err)
	}
	defer in.Close()
	var objects []*unstructured.Unstructured
	for decoder := yaml.NewYAMLOrJSONDecoder(in, 4096); ; {
		var object unstructured.Unstructured
		switch err := decoder.Decode(&object.Object); {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, fmt.Errorf("reading definitions in %s: %w", file, err)
		}
		objects = append(objects, &object)
	}
}

// established is nil when the API server serves the kind.
func established(ctx context.Context, client dynamic.Interface, name string) error {
	object, err := client.Resource(definitions).Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return err
	}
	conditions, _, err := unstructured.NestedSlice(object.Object, "status", "conditions")
	if err != nil {
		return fmt.Errorf("its conditions: %w", err)
	}
	said := "no condition"
	for _, c := range conditions {
		condition, ok := c.(map[string]any)
		if !ok {
			continue
		}
		if condition["type"] == "Established" && condition["status"] == "True" {
			return nil
		}
		if condition["status"] == "False" {
			said = fmt.Sprint(condition["type"], ": ", condition["message"])
		}
	}
	return errors.New(said)
}
