package setup

import (
	"fmt"
	"strings"
)

// MissingMessage returns the sentence with which a build ends that finds no
// nix and may not install it: how --setup would, and the exact commands, or
// why it could not.
func MissingMessage(s System) string {
	s.HasNix = false
	steps, err := Plan(s)
	if err != nil {
		return fmt.Sprintf("nix is not installed, nor can `flywheel build --setup …` install it: %v", err)
	}
	how := "the official installer of Nix " + InstallerVersion
	if s.fromPackage() {
		m := s.manager()
		how = fmt.Sprintf("%s (%s)", m.tool, m.nix[0].name)
	}
	lines := make([]string, len(steps))
	for i, step := range steps {
		lines[i] = step.CommandLine()
	}
	return fmt.Sprintf("nix is not installed: run `flywheel build --setup …` to install it with %s, or run `%s` yourself",
		how, strings.Join(lines, " && "))
}
