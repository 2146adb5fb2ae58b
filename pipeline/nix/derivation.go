package nix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// Derivation is what an installable evaluates to.
type Derivation struct {
	Path    string
	Outputs []string // store paths; empty where they are known only once it is built
}

// ErrSeveral is wrapped by Evaluate for an installable that is more than one
// derivation, as a whole file may be.
var ErrSeveral = errors.New("it is not one derivation")

// Evaluate evaluates an installable, an attribute of file where that is not
// empty. args are those that the build will be given. What nix says of a failure is
// in a *BuildError.
func (n *Nix) Evaluate(ctx context.Context, file, installable, storeDir string, args []string) (Derivation, error) {
	command := []string{"show-derivation"}
	if n.Newer(2, 16) {
		command = []string{"derivation", "show"}
	}
	if file != "" {
		command = append(command, "--file", file)
	}
	command = append(command, EvaluationArgs(args)...)
	out, err := n.Command(ctx, append(command, installable)...).Output()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return Derivation{}, ctx.Err()
	case errors.As(err, &exit):
		return Derivation{}, &BuildError{Message: strings.TrimSpace(plainText(string(exit.Stderr))), err: err}
	case err != nil:
		return Derivation{}, fmt.Errorf("evaluating %s: %w", installable, err)
	}
	d, err := parseDerivation(out, storeDir)
	if err != nil {
		return Derivation{}, fmt.Errorf("evaluating %s: %w", installable, err)
	}
	return d, nil
}

// parseDerivation reads what `nix derivation show` says of one derivation. New
// versions put it a level deeper, and write base names for store paths.
func parseDerivation(text []byte, storeDir string) (Derivation, error) {
	type derivation struct {
		Outputs map[string]struct {
			Path string `json:"path"`
		} `json:"outputs"`
	}
	var deeper struct {
		Derivations map[string]derivation `json:"derivations"`
	}
	var all map[string]derivation
	if json.Unmarshal(text, &deeper) == nil && len(deeper.Derivations) > 0 {
		all = deeper.Derivations
	} else if err := json.Unmarshal(text, &all); err != nil {
		return Derivation{}, err
	}
	if len(all) != 1 {
		return Derivation{}, fmt.Errorf("%w: it is %d", ErrSeveral, len(all))
	}
	full := func(p string) string {
		if p == "" || path.IsAbs(p) {
			return p
		}
		return storeDir + "/" + p
	}
	var d Derivation
	for drv, what := range all {
		d.Path = full(drv)
		for _, name := range slices.Sorted(maps.Keys(what.Outputs)) {
			out := full(what.Outputs[name].Path)
			if out == "" {
				return Derivation{Path: d.Path}, nil
			}
			d.Outputs = append(d.Outputs, out)
		}
	}
	return d, nil
}

// Link makes symlinks to store paths that keep them from being collected: link,
// and for further paths link-1, link-2 and so on.
func (n *Nix) Link(ctx context.Context, link string, paths []string) error {
	args := append([]string{"build", "--out-link", link}, paths...)
	if _, err := n.Command(ctx, args...).Output(); err != nil {
		return fmt.Errorf("linking %s: %w", link, lastError(ctx, err))
	}
	return nil
}
