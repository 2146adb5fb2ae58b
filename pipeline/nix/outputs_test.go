package nix

import (
	"slices"
	"testing"
)

func TestParseOutputs(t *testing.T) {
	t.Parallel()
	const shown = `{
		"packages": {
			"x86_64-linux": {"default": {"type": "derivation"}, "python3.11": {}, "app": {}},
			"aarch64-linux": {"default": {}}
		},
		"checks": {"x86_64-linux": {"unit": {}}},
		"devShells": {"aarch64-linux": {"default": {}}},
		"lib": {"type": "unknown"},
		"overlays": {"default": {"type": "nixpkgs-overlay"}}
	}`
	got, err := parseOutputs([]byte(shown), ".", "x86_64-linux")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		".#packages.x86_64-linux.app",
		".#packages.x86_64-linux.default",
		`.#packages.x86_64-linux."python3.11"`,
		".#checks.x86_64-linux.unit",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := parseOutputs([]byte("nix says"), ".", "x86_64-linux"); err == nil {
		t.Error("no error for what is no JSON")
	}
}
