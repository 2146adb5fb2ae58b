package flywheel

import (
	"context"
	"errors"
	"fmt"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

// candidate is an installable that is to be built. Whoever listed it may have
// evaluated it, too, or failed to.
type candidate struct {
	installable string
	derivation  nix.Derivation // zero where it is not evaluated yet
	err         error          // why it cannot be
}

// candidates tells of the installables that were given, or, with All, of all
// outputs of those flakes. It may tell of some and then fail.
func (r *run) candidates(ctx context.Context, tell func(candidate)) error {
	if !r.All {
		for _, i := range r.Installables {
			tell(candidate{installable: i})
		}
		return nil
	}
	any := false
	for _, flake := range r.Installables {
		err := r.outputsOf(ctx, flake, func(c candidate) {
			any = true
			tell(c)
		})
		if err != nil {
			return err
		}
	}
	if !any {
		return errors.New("the flake has no packages, checks or development shells for this system")
	}
	return nil
}

// outputsOf tells of a flake's outputs: with nix-eval-jobs of each when it is
// evaluated, so that the first is built meanwhile; else of their names at once.
func (r *run) outputsOf(ctx context.Context, flake string, tell func(candidate)) error {
	told := map[string]bool{}
	once := func(c candidate) {
		if !told[c.installable] {
			told[c.installable] = true
			tell(c)
		}
	}
	list := r.nix.Outputs
	if r.nix.HasEvalJobs() {
		err := r.nix.Jobs(ctx, flake, r.NixArgs, func(j nix.Job) { once(candidate{j.Installable, j.Derivation, j.Err}) })
		switch {
		case err == nil:
			list = r.nix.Machines
		case errors.Is(err, nix.ErrNoEvalJobs):
			r.console.note("%v; nix lists the outputs, and evaluates them one by one", err)
		default:
			return fmt.Errorf("evaluating the outputs of %s: %w", flake, err)
		}
	}
	names, err := list(ctx, flake, r.NixArgs)
	if err != nil {
		return err
	}
	for _, name := range names {
		once(candidate{installable: name})
	}
	return nil
}
