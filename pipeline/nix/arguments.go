package nix

import "slices"

// role is what an argument of `nix build` is about. The zero value is a setting, or
// a flag that all commands have which evaluate, so that one which a later version
// brings is passed on.
type role int

const (
	evaluating role = iota
	building        // flags of `nix build` alone
	telling         // how much is said, and how: an evaluation's output is read by a program
	finding         // where installables are looked up instead of in flakes
)

// flag is a flag of `nix build`; values is how many arguments belong to it.
type flag struct {
	role   role
	values int
}

// flags are those that are not of the zero role, and those whose values could be
// taken for flags.
var flags = map[string]flag{
	"--dry-run":         {building, 0},
	"--json":            {building, 0},
	"--no-link":         {building, 0},
	"--out-link":        {building, 1},
	"-o":                {building, 1},
	"--print-out-paths": {building, 0},
	"--profile":         {building, 1},
	"--rebuild":         {building, 0},

	"--debug":            {telling, 0},
	"--log-format":       {telling, 1},
	"--print-build-logs": {telling, 0},
	"--quiet":            {telling, 0},
	"--verbose":          {telling, 0},

	"--expr":  {finding, 1},
	"--file":  {finding, 1},
	"-f":      {finding, 1},
	"--stdin": {finding, 0},

	"--arg":            {evaluating, 2},
	"--arg-from-file":  {evaluating, 2},
	"--argstr":         {evaluating, 2},
	"--option":         {evaluating, 2},
	"--override-flake": {evaluating, 2},
	"--override-input": {evaluating, 2},
}

// EvaluationArgs returns those arguments of `nix build` that have a say in what an
// installable evaluates to, for a command that only evaluates it.
func EvaluationArgs(args []string) []string { return without(args, building, telling) }

// ElsewhereArgs returns those arguments of `nix build` that hold for an installable
// which was not looked up by them, such as a derivation's path.
func ElsewhereArgs(args []string) []string { return without(args, finding) }

// LooksUp returns the first argument that names another place than flakes to look
// installables up in, or "".
func LooksUp(args []string) (name string) {
	each(args, func(f flag, words []string) {
		if f.role == finding && name == "" {
			name = words[0]
		}
	})
	return name
}

func without(args []string, roles ...role) (kept []string) {
	each(args, func(f flag, words []string) {
		if !slices.Contains(roles, f.role) {
			kept = append(kept, words...)
		}
	})
	return kept
}

// each calls a function for each flag with its values, which are arguments of their
// own: nix takes no --flag=value. What is not in the table comes word by word.
func each(args []string, call func(flag, []string)) {
	for len(args) > 0 {
		f := flags[args[0]]
		if shortFlags.MatchString(args[0]) {
			f.role = telling
		}
		n := min(len(args), 1+f.values)
		call(f, args[:n])
		args = args[n:]
	}
}
