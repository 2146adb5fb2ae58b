package nixconf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"os/user"
	"slices"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

// Effective are Nix's settings as all its files and NIX_CONFIG leave them.
type Effective map[string]json.RawMessage

// Read asks nix for its settings: this user's, or, for machine, those without
// the user's files and NIX_CONFIG, which are the daemon's at its next start.
func Read(ctx context.Context, n *nix.Nix, machine bool) (Effective, error) {
	args := []string{"show-config", "--json"}
	if n.Newer(2, 20) {
		args = []string{"config", "show", "--json"}
	}
	cmd := n.Command(ctx, args...)
	if machine {
		cmd.Env = append(cmd.Env, "NIX_USER_CONF_FILES=/dev/null", "NIX_CONFIG=experimental-features = nix-command")
	}
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			err = errors.New(strings.TrimSpace(string(exit.Stderr)))
		}
		return nil, fmt.Errorf("asking nix for its settings: %w", err)
	}
	var all map[string]struct {
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("asking nix for its settings: %w", err)
	}
	e := Effective{}
	for name, setting := range all {
		e[name] = setting.Value
	}
	return e, nil
}

// List returns a setting of several words; none for one that this nix lacks.
func (e Effective) List(name string) (words []string) {
	_ = json.Unmarshal(e[name], &words) // as documented
	return words
}

// Is says whether a setting is true.
func (e Effective) Is(name string) (on bool) {
	_ = json.Unmarshal(e[name], &on) // another type is not true
	return on
}

// Number returns a setting that is a number, or 0.
func (e Effective) Number(name string) (n int64) {
	_ = json.Unmarshal(e[name], &n) // as documented
	return n
}

// Reason is why Nix does not use a cache.
type Reason struct {
	What string
	Do   []string // a line each
}

// Ignored returns all reasons for which a nix with these settings does not use
// a cache when u builds; none means that it is used. machine are the daemon's
// settings, nil where there is no daemon.
func Ignored(e, machine Effective, u *user.User, c Cache) []Reason {
	var reasons []Reason
	add := func(do []string, format string, args ...any) {
		reasons = append(reasons, Reason{fmt.Sprintf(format, args...), do})
	}
	if !e.Is("substitute") {
		add([]string{"remove `substitute = false` from nix.conf and NIX_CONFIG"}, "`substitute` is off: nix builds everything itself")
	}
	use := []string{"flywheel use " + c.URL}
	if !names(e.List("substituters"), c.URL) {
		add(append(use, "if that was done, a later `substituters =` in "+strings.Join(laterFiles, ", or ")+" undoes it: make it `extra-substituters`"),
			"%s is not among the substituters", c.URL)
	}
	if e.Is("require-sigs") && !trusts(e, c) {
		add(append(use, "if that was done, a later `trusted-public-keys =` undoes it: make it `extra-trusted-public-keys`"),
			"no key of %s is trusted: what it signs is refused", c.URL)
	}
	if machine == nil {
		return reasons
	}
	believed := nix.Settings{TrustedUsers: machine.List("trusted-users")}.Trusts(u)
	offered := slices.Concat(machine.List("trusted-substituters"), machine.List("substituters"))
	if !believed && (!names(offered, c.URL) || !trusts(machine, c)) {
		add([]string{
			"as root, flywheel use --system " + c.URL + ", and restart the daemon",
			"or add to " + SystemFile() + ": trusted-users = root " + u.Username,
		}, "the Nix daemon does not trust %s, so their own substituters and keys do not count", u.Username)
	}
	return reasons
}

var laterFiles = []string{"the user's nix.conf", "NIX_CONFIG"}

// names says whether a list of substituters holds a cache. What a substituter
// sets for itself stands behind a question mark.
func names(substituters []string, cache string) bool {
	return slices.ContainsFunc(substituters, func(s string) bool {
		bare, _, _ := strings.Cut(s, "?")
		return strings.TrimSuffix(bare, "/") == cache
	})
}

func trusts(e Effective, c Cache) bool {
	keys := e.List("trusted-public-keys")
	return slices.ContainsFunc(c.PublicKeys, func(k string) bool { return slices.Contains(keys, k) })
}
