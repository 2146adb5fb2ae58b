package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// erroredState is where OpenTofu leaves a state that it could not write.
const erroredState = "errored.tfstate"

// rescue sees to a state that OpenTofu could not write, and which alone knows what
// it made: it is written once more, or kept outside the working directory, which
// goes. The error says where, and what to do with it.
func (r *run) rescue(ctx context.Context) error {
	file := filepath.Join(r.stack.dir, erroredState)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// Also when this was interrupted: nobody else has it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	_, err := r.tofu.output(ctx, "state", "push", r.lockTimeout(), file)
	if err == nil {
		r.tell("state", "%s: OpenTofu could not write it; it is written now", r.state.name)
		return nil
	}
	kept, keepErr := keep(file, "errored-"+r.state.name+"-*.tfstate")
	if keepErr != nil {
		return fmt.Errorf("the state %s could not be written, nor kept: what was made is in no state: %w", r.state.name, errors.Join(err, keepErr))
	}
	return fmt.Errorf("the state %s could not be written: what was made is in %s alone, which holds secrets: before anything else is deployed, in stacks/%s, with TF_HTTP_ADDRESS and its like, tofu init and tofu state push %s: %w",
		r.state.name, kept, r.Stack, kept, err)
}

// keep copies a file to a new one, for this user only, in the directory that
// flywheel was started in or, where that cannot be written, in the temporary one.
func keep(file, pattern string) (string, error) {
	from, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer from.Close()
	here, err := os.Getwd()
	if err != nil {
		here = os.TempDir()
	}
	to, err := os.CreateTemp(here, pattern)
	if err != nil {
		if to, err = os.CreateTemp("", pattern); err != nil {
			return "", err
		}
	}
	_, err = io.Copy(to, from)
	return to.Name(), errors.Join(err, to.Sync(), to.Close())
}
