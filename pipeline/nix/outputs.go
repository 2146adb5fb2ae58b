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
// of a flake, for the system of this machine.
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
	return outputs, nil
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
			if strings.ContainsAny(name, `."`) {
				name = `"` + name + `"`
			}
			outputs = append(outputs, fmt.Sprintf("%s#%s.%s.%s", flake, kind, system, name))
		}
	}
	return outputs, nil
}
