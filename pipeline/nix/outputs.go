package nix

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// outputKinds are the outputs of a flake that can be built for a system.
var outputKinds = []string{"packages", "checks", "devShells"}

// Outputs returns an installable for each package, check and development shell
// of a flake, for the system of this machine, and for the system closure of each
// of its NixOS configurations for that. args are those that the build will be given.
func (n *Nix) Outputs(ctx context.Context, flake string, args []string) ([]string, error) {
	args = EvaluationArgs(args)
	system, err := n.system(ctx, args)
	if err != nil {
		return nil, err
	}
	shown, err := n.Command(ctx, append([]string{"flake", "show", "--json", flake}, args...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("asking nix for the outputs of %s: %w", flake, withStderr(err))
	}
	outputs, err := parseOutputs(shown, flake, system)
	if err != nil {
		return nil, fmt.Errorf("asking nix for the outputs of %s: %w", flake, err)
	}
	var kinds struct {
		Machines map[string]json.RawMessage `json:"nixosConfigurations"`
	}
	if err := json.Unmarshal(shown, &kinds); err != nil {
		return nil, fmt.Errorf("asking nix for the outputs of %s: %w", flake, err)
	}
	return append(outputs, n.machinesFor(ctx, system, flake, slices.Sorted(maps.Keys(kinds.Machines)), args)...), ctx.Err()
}

// Machines returns an installable for the system closure of each of a flake's
// NixOS configurations for the system of this machine. args are those that the
// build will be given.
func (n *Nix) Machines(ctx context.Context, flake string, args []string) ([]string, error) {
	args = EvaluationArgs(args)
	system, err := n.system(ctx, args)
	if err != nil {
		return nil, err
	}
	const set = "nixosConfigurations"
	out, err := n.eval(ctx, args, "--json", flake+"#"+set, "--apply", "builtins.attrNames")
	if err != nil {
		if err := withStderr(err); !strings.Contains(err.Error(), "does not provide attribute") {
			return nil, fmt.Errorf("asking nix for the machines of %s: %w", flake, err)
		}
		return nil, ctx.Err()
	}
	var names []string
	if err := json.Unmarshal(out, &names); err != nil {
		return nil, fmt.Errorf("asking nix for the machines of %s: %w", flake, err)
	}
	return n.machinesFor(ctx, system, flake, names, args), ctx.Err()
}

// machinesFor leaves out the machines that are of another system: neither `nix
// flake show` nor a machine's name tells.
func (n *Nix) machinesFor(ctx context.Context, system, flake string, names, args []string) []string {
	var machines []string
	for _, name := range names {
		toplevel := fmt.Sprintf("%s#nixosConfigurations.%s.config.system.build.toplevel", flake, quoted(name))
		// What cannot be evaluated is to fail as a build, by name.
		of, err := n.eval(ctx, args, "--raw", toplevel+".system")
		if err != nil || string(of) == system {
			machines = append(machines, toplevel)
		}
	}
	return machines
}

// eval runs `nix eval`, with further arguments.
func (n *Nix) eval(ctx context.Context, further []string, args ...string) ([]byte, error) {
	return n.Command(ctx, slices.Concat([]string{"eval"}, args, further)...).Output()
}

// system is the one of this machine, as nix calls it, or the one that args name.
func (n *Nix) system(ctx context.Context, args []string) (string, error) {
	out, err := n.eval(ctx, args, "--impure", "--raw", "--expr", "builtins.currentSystem")
	if err != nil {
		return "", fmt.Errorf("asking nix for the system: %w", withStderr(err))
	}
	return string(out), nil
}

// quoted is an attribute's name as it stands in a path of attributes.
func quoted(name string) string {
	if strings.ContainsAny(name, `."`) {
		return `"` + name + `"`
	}
	return name
}

func parseOutputs(shown []byte, flake, system string) ([]string, error) {
	var kinds map[string]json.RawMessage
	if err := json.Unmarshal(shown, &kinds); err != nil {
		return nil, err
	}
	var outputs []string
	for _, kind := range outputKinds {
		var systems map[string]map[string]json.RawMessage
		if json.Unmarshal(kinds[kind], &systems) != nil {
			continue // the flake has none of this kind
		}
		for _, name := range slices.Sorted(maps.Keys(systems[system])) {
			outputs = append(outputs, fmt.Sprintf("%s#%s.%s.%s", flake, kind, system, quoted(name)))
		}
	}
	return outputs, nil
}
