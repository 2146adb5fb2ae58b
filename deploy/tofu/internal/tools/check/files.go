package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	yamlstream "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// checkFiles checks the objects of all YAML files below a directory. What is no
// object of Kubernetes, such as the agent's configuration, is left out, and so are
// kustomizations, which never reach an API server.
func (s *schemas) checkFiles(dir string) error {
	var faults []error
	checked := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" || d.Name() == "kustomization.yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for reader := yamlstream.NewYAMLReader(bufio.NewReader(bytes.NewReader(text))); ; {
			document, err := reader.Read()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			var kind metav1.TypeMeta
			if err := yaml.Unmarshal(document, &kind); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			if kind.Kind == "" {
				continue
			}
			ok, err := s.check(document)
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: %s: %w", path, kind.Kind, err))
			}
			if ok {
				checked++
			}
		}
	})
	if err != nil {
		return fmt.Errorf("reading manifests: %w", err)
	}
	fmt.Printf("%s: %d objects checked\n", dir, checked)
	return errors.Join(faults...)
}
