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
// of its NixOS configurations for that.
func (n *Nix) Outputs(ctx context.Context, flake string) ([]string, error) {
	system, err := n.Command(ctx, "eval", "--impure", "--raw", "--expr", "builtins.currentSystem").Output()
	if err != nil {
		return nil, fmt.Errorf("asking nix for the system: %w", withStderr(err))
	}
	shown, err := n.Command(ctx, "flake", "show", "--json", flake).Output()
	if err != nil {
		return nil, fmt.Errorf("asking nix for the outputs of %s: %w", flake, withStderr(err))
	}
	outputs, err := parseOutputs(shown, flake, string(system))
	if err != nil {
		return nil, fmt.Errorf("asking nix for the outputs of %s: %w", flake, err)
	}
	machines, err := parseMachines(shown, flake)
	if err != nil {
		return nil, fmt.Errorf("asking nix for the outputs of %s: %w", flake, err)
	}
	for _, m := range machines {
		// What cannot be evaluated is to fail as a build, by name.
		of, err := n.Command(ctx, "eval", "--raw", m+".system").Output()
		if err != nil || string(of) == string(system) {
			outputs = append(outputs, m)
		}
	}
	return outputs, ctx.Err()
}

// parseMachines returns an installable for the system closure of each NixOS
// configuration; `nix flake show` does not tell for which system they are.
func parseMachines(shown []byte, flake string) ([]string, error) {
	var kinds struct {
		Machines map[string]json.RawMessage `json:"nixosConfigurations"`
	}
	if err := json.Unmarshal(shown, &kinds); err != nil {
		return nil, err
	}
	var machines []string
	for _, name := range slices.Sorted(maps.Keys(kinds.Machines)) {
		machines = append(machines, fmt.Sprintf("%s#nixosConfigurations.%s.config.system.build.toplevel", flake, quoted(name)))
	}
	return machines, nil
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
