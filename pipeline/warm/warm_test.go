package warm_test

import (
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/warm"
)

func TestTheTableTellsWhatIsWrongRatherThanWhatNixSaidFirst(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]string{
		"path '/x' does not contain a 'flake.nix', searching up\nerror: could not find a flake.nix file\n": "error: could not find a flake.nix file",
		"warning: dirty\nerror: builder failed\n  and more\nerror: 1 dependency failed":                    "error: builder failed",
		"not in the cache: a\nb": "not in the cache: a",
	} {
		var table strings.Builder
		if err := warm.Table(&table, []warm.Result{{Installable: ".", Outcome: warm.Failed, Message: message}}); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(table.String()); !strings.HasSuffix(got, "  "+want) {
			t.Errorf("%q: %q", want, got)
		}
	}
}
