// Package tofu finds the OpenTofu modules of a source tree, which of them a change
// affects, and checks them with the tofu program.
package tofu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"
)

// Graph is the modules of a source tree and which uses which. Modules are
// directories relative to the tree's root, with slashes; "." is the root itself.
type Graph struct {
	// Uses has an entry for each module: the modules in the tree that it calls.
	Uses map[string][]string
	// Faults are modules that could not be read, or not all of them.
	Faults []Fault
}

// Fault is a module that cannot be read.
type Fault struct {
	Module string
	Err    error
}

// passedOver are directories that are no sources: what tofu init fetched, and
// repositories' own.
var passedOver = []string{".terraform", ".git", ".cache", "node_modules"}

// Read finds the modules below root: directories with .tf or .tofu files, or their
// JSON forms.
func Read(root string) (*Graph, error) {
	g := &Graph{Uses: map[string][]string{}}
	files := map[string][]string{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != root && slices.Contains(passedOver, d.Name()):
			return fs.SkipDir
		case d.Type().IsRegular() && isConfiguration(d.Name()):
			rel, err := filepath.Rel(root, filepath.Dir(file))
			if err != nil {
				return err
			}
			module := filepath.ToSlash(rel)
			files[module] = append(files[module], file)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking for OpenTofu modules: %w", err)
	}
	for module, list := range files {
		uses, err := calls(module, list)
		if err != nil {
			g.Faults = append(g.Faults, Fault{module, err})
		}
		g.Uses[module] = uses
	}
	slices.SortFunc(g.Faults, func(a, b Fault) int { return strings.Compare(a.Module, b.Module) })
	return g, nil
}

func isConfiguration(name string) bool {
	for _, ending := range []string{".tf", ".tofu", ".tf.json", ".tofu.json"} {
		if strings.HasSuffix(name, ending) {
			return true
		}
	}
	return false
}

// configuration is as much of a module as the graph is made of.
type configuration struct {
	Modules []struct {
		Name   string   `hcl:"name,label"`
		Source *string  `hcl:"source"`
		Rest   hcl.Body `hcl:",remain"`
	} `hcl:"module,block"`
	Rest hcl.Body `hcl:",remain"`
}

// calls returns the modules in the tree that a module's files call. Sources that
// are not paths (registries, git) are of other trees.
func calls(module string, files []string) ([]string, error) {
	var uses []string
	var errs []error
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		sources, err := moduleSources(filepath.Base(file), text)
		if err != nil {
			errs = append(errs, err)
		}
		for _, source := range sources {
			if to, ok := inTree(module, source); ok && !slices.Contains(uses, to) {
				uses = append(uses, to)
			}
		}
	}
	slices.Sort(uses)
	return uses, errors.Join(errs...)
}

// moduleSources returns the sources of a file's module blocks, as they are written.
// With an error, those that could be read.
func moduleSources(name string, text []byte) ([]string, error) {
	parser := hclparse.NewParser()
	parse := parser.ParseHCL
	if strings.HasSuffix(name, ".json") {
		parse = parser.ParseJSON
	}
	file, diagnostics := parse(text, name)
	if file == nil {
		return nil, diagnostics
	}
	var c configuration
	// A source may be an expression, which only tofu can evaluate.
	_ = gohcl.DecodeBody(file.Body, nil, &c)
	var sources []string
	for _, m := range c.Modules {
		if m.Source != nil {
			sources = append(sources, *m.Source)
		}
	}
	if diagnostics.HasErrors() {
		return sources, diagnostics
	}
	return sources, nil
}

// inTree returns the module that a source names, where that is a path within the
// tree.
func inTree(module, source string) (string, bool) {
	if !strings.HasPrefix(source, "./") && !strings.HasPrefix(source, "../") {
		return "", false
	}
	to := path.Join(module, source)
	return to, to != ".." && !strings.HasPrefix(to, "../")
}

// Affected returns the modules, in order, that a change of files affects: those
// that hold them, and those that use such a module, at any distance. Files are
// relative to the tree's root, with slashes.
func (g *Graph) Affected(changed []string) []string {
	users := map[string][]string{}
	for module, uses := range g.Uses {
		for _, used := range uses {
			users[used] = append(users[used], module)
		}
	}
	affected := map[string]bool{}
	var mark func(string)
	mark = func(module string) {
		if affected[module] {
			return
		}
		affected[module] = true
		for _, user := range users[module] {
			mark(user)
		}
	}
	for _, file := range changed {
		if module, ok := g.holder(file); ok {
			mark(module)
		}
		// A module that is gone breaks those that use it still.
		for _, user := range users[path.Dir(file)] {
			mark(user)
		}
	}
	var list []string
	for module := range affected {
		list = append(list, module)
	}
	slices.Sort(list)
	return list
}

// holder returns the module that a file belongs to: that of its directory, or the
// nearest one above, which reads templates and the like from below it.
func (g *Graph) holder(file string) (string, bool) {
	for dir := path.Dir(file); ; dir = path.Dir(dir) {
		if _, ok := g.Uses[dir]; ok {
			return dir, true
		}
		if dir == "." || dir == "/" {
			return "", false
		}
	}
}

// Modules returns all modules, in order.
func (g *Graph) Modules() []string {
	var list []string
	for module := range g.Uses {
		list = append(list, module)
	}
	slices.Sort(list)
	return list
}
