// Package setup installs Nix on a machine that lacks it, with the package
// manager of the distribution where that has Nix, else with the official
// installer at a pinned release.
//
// Detect reads the machine, Plan decides on the commands, Run runs them and
// announces each. Only Run changes anything.
package setup

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What keeps Plan from making a plan. The errors it returns wrap one of these
// and say what to do about it.
var (
	// ErrUnsupported: nothing known here installs what is missing.
	ErrUnsupported = errors.New("this system cannot be set up for Nix")
	// ErrNeedRoot: a step needs root, and the user is neither root nor has sudo.
	ErrNeedRoot = errors.New("this needs root, and there is no sudo")
	// ErrStoreTaken: /nix is another user's, and no daemon shares it.
	ErrStoreTaken = errors.New("the Nix store in /nix belongs to another user")
)

// Step is one command of a plan.
type Step struct {
	Why     string   // what it does, as a verb phrase: "install Nix"
	Command []string // program and arguments
	Env     []string // variables it needs besides those of this process, as name=value
}

// CommandLine returns the step as a POSIX shell would take it.
func (s Step) CommandLine() string {
	words := make([]string, 0, len(s.Env)+len(s.Command))
	for _, assignment := range s.Env {
		name, value, _ := strings.Cut(assignment, "=")
		words = append(words, name+"="+quote(value))
	}
	for _, word := range s.Command {
		words = append(words, quote(word))
	}
	return strings.Join(words, " ")
}

// Plan returns the commands that give s a Nix with which flakes can be built:
// nix itself, git, and a shell for Nix's sandbox where its build has none. The
// plan is empty when all of it is there. Plan looks at nothing but s. Its
// errors wrap ErrUnsupported, ErrNeedRoot or ErrStoreTaken.
func Plan(s System) ([]Step, error) {
	actions, err := plan(s)
	if err != nil {
		return nil, err
	}
	var steps []Step
	var asRoot []string
	for _, a := range actions {
		if a.root {
			asRoot = append(asRoot, a.CommandLine())
			a.Step = s.privileged(a.Step)
		}
		steps = append(steps, a.Step)
	}
	if len(asRoot) > 0 && !s.Root && !s.Sudo {
		return nil, fmt.Errorf("%w: have root run `%s`, then run this again", ErrNeedRoot, strings.Join(asRoot, " && "))
	}
	return steps, nil
}

// action is a step and whether only root may take it.
type action struct {
	Step
	root bool
}

// privileged returns the step as s.User has to run it. sudo resets the
// environment, so what the step needs of it goes through env(1).
func (s System) privileged(step Step) Step {
	if s.Root {
		return step
	}
	command := []string{"sudo"}
	if len(step.Env) > 0 {
		command = append(append(command, "env"), step.Env...)
	}
	return Step{Why: step.Why, Command: append(command, step.Command...)}
}

// plan returns the actions in order: packages, the store, the installer.
func plan(s System) ([]action, error) {
	packages, err := packageActions(s)
	if err != nil || s.HasNix {
		return packages, err
	}
	store, err := storeActions(s)
	if err != nil {
		return nil, err
	}
	actions := append(packages, store...)
	if s.fromPackage() {
		return actions, nil
	}
	steps, err := installerSteps(s)
	for _, step := range steps {
		actions = append(actions, action{Step: step})
	}
	return actions, err
}

// fromPackage reports whether Nix is to come from the distribution.
func (s System) fromPackage() bool { return s.packaged() && s.manager() != nil }

// packageActions installs, in one transaction, all that the distribution is to
// bring.
func packageActions(s System) ([]action, error) {
	m := s.manager()
	shell := s.NeedsSandboxShell && !s.SandboxShell
	missing := s.missingTools()
	if m == nil {
		byHand := missing
		if shell {
			byHand = append(byHand, "a static busybox as /bin/busybox")
		}
		if len(byHand) == 0 {
			return nil, nil
		}
		return nil, fmt.Errorf("%w: install %s by hand, then run this again", ErrUnsupported, enumerate(byHand))
	}

	var packages []pkg
	switch {
	case s.HasNix:
	case s.fromPackage():
		packages = append(packages, m.nix...)
	default:
		packages = append(packages, m.installer...)
	}
	if shell && m.sandboxShell != (pkg{}) {
		packages = append(packages, m.sandboxShell)
	}
	for _, tool := range missing {
		packages = append(packages, m.tools[tool]...)
	}
	if len(packages) == 0 {
		return nil, nil
	}

	var names, what []string
	for _, p := range packages {
		if !slices.Contains(names, p.name) {
			names, what = append(names, p.name), append(what, p.what)
		}
	}
	var actions []action
	if m.refresh != nil {
		actions = append(actions, action{Step{"refresh the package lists", slices.Clone(m.refresh), slices.Clone(m.env)}, true})
	}
	install := slices.Concat(m.install, names)
	return append(actions, action{Step{"install " + enumerate(what), install, slices.Clone(m.env)}, true}), nil
}

// missingTools are the programs the plan needs beside Nix and s has not: git,
// with which Nix fetches git flakes, and what the official installer runs when
// it comes to that.
func (s System) missingTools() []string {
	needed := []string{"git"}
	if !s.HasNix && !s.fromPackage() {
		needed = append(needed, installerTools...)
	}
	return slices.DeleteFunc(needed, func(tool string) bool { return s.Tools[tool] })
}

// storeActions prepares /nix for a Nix without a daemon, which works on a
// store its user owns.
func storeActions(s System) ([]action, error) {
	fromPackage := s.fromPackage()
	switch {
	case s.Root:
		// Nix makes its directories as root; the installer calls sudo to make
		// /nix, even as root, and images for root have none.
		if s.NixDir || fromPackage {
			return nil, nil
		}
		return []action{{Step{
			Why:     "create the directory of the Nix store",
			Command: []string{"install", "-d", "-m", "0755", "/nix"},
		}, true}}, nil

	case s.Daemon && fromPackage:
		return nil, nil

	case s.NixDir && !s.NixDirWritable:
		return nil, fmt.Errorf("%w: build as its owner, or have root run `%s` to make it yours, then run this again",
			ErrStoreTaken, giveStore(s).CommandLine())

	case s.NixDir:
		// Without /nix/var/nix Nix turns to a store of its own in the home
		// directory, whose paths exist only inside its mount namespace
		// (resolveStoreConfig in Nix's store-registration.cc).
		return []action{{Step{
			Why:     "create the directories of the Nix store",
			Command: []string{"mkdir", "-p", "/nix/store", "/nix/var/nix"},
		}, false}}, nil
	}
	// As upstream's installer does it, with the subdirectories for the reason
	// above.
	actions := []action{{Step{
		Why:     "create the Nix store for " + s.User + ", who will use it without a daemon",
		Command: []string{"install", "-d", "-m", "0755", "-o", s.User, "/nix", "/nix/store", "/nix/var", "/nix/var/nix"},
	}, true}}
	if m := s.manager(); fromPackage && m.ownsStore {
		actions = append(actions, action{giveStore(s), true})
	}
	return actions, nil
}

// giveStore hands a whole store to s.User, in the words of upstream's installer.
func giveStore(s System) Step {
	return Step{Why: "give the Nix store to " + s.User, Command: []string{"chown", "-R", s.User, "/nix"}}
}

// enumerate joins items as a sentence does: "a, b and c".
func enumerate(items []string) string {
	last := len(items) - 1
	if last < 1 {
		return strings.Join(items, "")
	}
	return strings.Join(items[:last], ", ") + " and " + items[last]
}
