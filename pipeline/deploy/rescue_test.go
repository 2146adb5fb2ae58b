package deploy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A state that is not written is the loss of all that was made: the working
// directory, where OpenTofu leaves it, goes. Not parallel: what is kept is kept
// where the process is.
func TestAStateThatCannotBeWrittenIsNotLost(t *testing.T) {
	state, api := newState(t), newAPI(t)
	o := job(t, state, api)
	var err error
	if o.Sources, err = filepath.Abs(o.Sources); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())

	// OpenTofu tries three times.
	state.failWrites = 3
	_, err = Deploy(t.Context(), o)
	if err == nil || !strings.Contains(shown(o), "state      demo-staging: OpenTofu could not write it; it is written now") {
		t.Errorf("%v\n%s", err, shown(o))
	}
	if got, err := Deploy(t.Context(), o); err != nil || got.Plan.Changes() != 0 {
		t.Errorf("what was made is not in the state: %+v, %v", got.Plan, err)
	}

	state.failWrites, o.Vars = 1000, []string{"text=two"}
	_, err = Deploy(t.Context(), o)
	kept, globErr := filepath.Glob("errored-demo-staging-*.tfstate")
	if globErr != nil || len(kept) != 1 || err == nil || !strings.Contains(err.Error(), "tofu state push") || !strings.Contains(err.Error(), kept[0]) {
		t.Fatalf("kept %v: %v", kept, err)
	}
	info, err := os.Stat(kept[0])
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if text, err := os.ReadFile(kept[0]); err != nil || !strings.Contains(string(text), `"two"`) {
		t.Errorf("%v: %s", err, text)
	}
	if state.holder() != nil {
		t.Errorf("it is locked by %+v", state.holder())
	}
}
