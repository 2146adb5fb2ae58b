package tofu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
)

// Options say what to check.
type Options struct {
	Dir  string // root of the source tree
	Base string // git revision; only what changed since, and what uses that, is checked; empty for all
	Tofu string // the program; empty for tofu in PATH
}

// Checks returns a check of the formatting and one of the validity of each module
// that is concerned, or one that says why there are none.
func Checks(ctx context.Context, o Options) []check.Check {
	one := func(err error) []check.Check {
		return []check.Check{{Name: "tofu", Run: func(context.Context, io.Writer) error { return err }}}
	}
	graph, err := Read(o.Dir)
	if err != nil {
		return one(err)
	}
	modules := graph.Modules()
	if len(modules) == 0 {
		return one(fmt.Errorf("%w: there are no OpenTofu modules", check.ErrSkip))
	}
	if o.Base != "" {
		changed, err := Changed(ctx, o.Dir, o.Base)
		if err != nil {
			return one(err)
		}
		if modules = graph.Affected(changed); len(modules) == 0 {
			return one(fmt.Errorf("%w: no OpenTofu module changed since %s", check.ErrSkip, o.Base))
		}
	}
	program := o.Tofu
	if program == "" {
		program = "tofu"
	}
	program, err = exec.LookPath(program)
	if err != nil {
		return one(fmt.Errorf("there are OpenTofu modules to check, and no OpenTofu: install it (https://opentofu.org/docs/intro/install), or name it with --tofu: %w", err))
	}
	if program, err = filepath.Abs(program); err != nil {
		return one(err)
	}
	var checks []check.Check
	for _, m := range modules {
		if !graph.present(m) {
			continue // it was removed; those that use it are checked
		}
		checks = append(checks,
			check.Check{Name: "tofu fmt " + m, Run: func(ctx context.Context, out io.Writer) error { return format(ctx, program, o.Dir, m, out) }},
			check.Check{Name: "tofu validate " + m, Run: func(ctx context.Context, out io.Writer) error { return graph.validate(ctx, program, o.Dir, m, out) }},
		)
	}
	return checks
}

func (g *Graph) present(module string) bool {
	_, ok := g.Uses[module]
	return ok
}

func format(ctx context.Context, program, dir, module string, out io.Writer) error {
	cmd := exec.CommandContext(ctx, program, "fmt", "-check", "-diff", "-no-color")
	cmd.Dir = filepath.Join(dir, filepath.FromSlash(module))
	return run(ctx, cmd, out, "it is not formatted: tofu fmt "+module)
}

// validate initialises a module in a directory of its own, so that the source tree
// stays clean, and without a backend, whose state has no part in it.
func (g *Graph) validate(ctx context.Context, program, dir, module string, out io.Writer) error {
	for _, f := range g.Faults {
		if f.Module == module {
			return f.Err
		}
	}
	data, err := os.MkdirTemp("", "flywheel-tofu-")
	if err != nil {
		return fmt.Errorf("validating %s: %w", module, err)
	}
	defer func() { _ = os.RemoveAll(data) }() // what is left, the system clears
	copied, err := g.copy(dir, module, data)
	if err != nil {
		return fmt.Errorf("validating %s: %w", module, err)
	}
	for _, step := range []struct {
		args []string
		what string
	}{
		{[]string{"init", "-backend=false", "-input=false", "-no-color"}, "its providers or modules cannot be had: see above"},
		{[]string{"validate", "-no-color"}, "it is not valid: see above"},
	} {
		cmd := exec.CommandContext(ctx, program, step.args...)
		cmd.Dir = copied
		if err := run(ctx, cmd, out, step.what); err != nil {
			return err
		}
	}
	return nil
}

// copy puts a module and all that it uses into a directory, each at its place, and
// returns where the module is there. tofu init writes beside what it reads.
func (g *Graph) copy(root, module, to string) (string, error) {
	needed := []string{module}
	for i := 0; i < len(needed); i++ {
		for _, used := range g.Uses[needed[i]] {
			if !slices.Contains(needed, used) {
				needed = append(needed, used)
			}
		}
	}
	for _, m := range needed {
		if !g.present(m) {
			continue // tofu says so better
		}
		if err := copyTree(filepath.Join(root, filepath.FromSlash(m)), filepath.Join(to, filepath.FromSlash(m))); err != nil {
			return "", err
		}
	}
	return filepath.Join(to, filepath.FromSlash(module)), nil
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(file string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir() && rel != "." && slices.Contains(passedOver, d.Name()):
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case d.Type().IsRegular():
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			return os.WriteFile(target, text, 0o600)
		}
		return nil
	})
}

// run runs a step of a check; what is said when it fails.
func run(ctx context.Context, cmd *exec.Cmd, out io.Writer, what string) error {
	cmd.Stdout, cmd.Stderr = out, out
	// Nobody is there to be asked, and messages are for tools.
	cmd.Env = append(os.Environ(), "TF_IN_AUTOMATION=1", "TF_INPUT=0")
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &exit):
		return errors.New(what)
	case err != nil:
		return fmt.Errorf("running %s: %w", path.Base(cmd.Path), err)
	}
	return nil
}
