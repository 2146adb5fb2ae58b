package nix

import (
	"slices"
	"strings"
	"testing"
)

func TestEvaluationSeesWhatDecidesIt(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]struct{ evaluation, elsewhere, lookedUpBy string }{
		"": {},
		"--impure --override-input nixpkgs path:../n":          {"--impure --override-input nixpkgs path:../n", "--impure --override-input nixpkgs path:../n", ""},
		"--print-build-logs -L -vvL --log-format raw --impure": {"--impure", "--print-build-logs -L -vvL --log-format raw --impure", ""},
		"-o link --json --no-link --rebuild --max-jobs 1":      {"--max-jobs 1", "-o link --json --no-link --rebuild --max-jobs 1", ""},
		"--argstr name -o --profile p":                         {"--argstr name -o", "--argstr name -o --profile p", ""},
		"--option --expr --file --impure":                      {"--option --expr --file --impure", "--option --expr --file --impure", ""},
		"--impure --expr --dry-run -I x=y":                     {"--impure --expr --dry-run -I x=y", "--impure -I x=y", "--expr"},
		"-f other.nix --system aarch64-linux":                  {"-f other.nix --system aarch64-linux", "--system aarch64-linux", "-f"},
		"--a-flag-of-tomorrow value --out-link":                {"--a-flag-of-tomorrow value", "--a-flag-of-tomorrow value --out-link", ""},
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			given := strings.Fields(args)
			if got := EvaluationArgs(given); !slices.Equal(got, strings.Fields(want.evaluation)) {
				t.Errorf("to evaluate: %q, want %q", got, want.evaluation)
			}
			if got := ElsewhereArgs(given); !slices.Equal(got, strings.Fields(want.elsewhere)) {
				t.Errorf("elsewhere: %q, want %q", got, want.elsewhere)
			}
			if got := LooksUp(given); got != want.lookedUpBy {
				t.Errorf("looked up by %q, want %q", got, want.lookedUpBy)
			}
		})
	}
}
