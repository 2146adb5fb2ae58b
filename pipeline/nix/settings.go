package nix

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
)

// Settings are those of Nix's settings, as nix.conf and NIX_CONFIG leave them,
// that decide how a build meets a cache.
type Settings struct {
	Substituters        []string
	TrustedSubstituters []string
	TrustedPublicKeys   []string
	TrustedUsers        []string
	Store               string
	BuildUsersGroup     string
	Sandbox             bool
	SandboxPaths        []string
	NetrcFile           string
}

// Settings asks nix for its settings.
func (n *Nix) Settings(ctx context.Context) (Settings, error) {
	if n.Newer(2, 20) {
		return n.settings(ctx, newSettings)
	}
	return n.settings(ctx, oldSettings)
}

// The words for it until 2.20, which later versions know, too, but for how long
// nobody says, and since.
const oldSettings, newSettings = "show-config", "config show"

func (n *Nix) settings(ctx context.Context, words string) (Settings, error) {
	out, err := n.Command(ctx, append(strings.Fields(words), "--json")...).Output()
	if err != nil {
		return Settings{}, fmt.Errorf("asking nix for its settings: %w", withStderr(err))
	}
	s, err := parseSettings(out)
	if err != nil {
		return Settings{}, fmt.Errorf("asking nix for its settings: %w", err)
	}
	return s, nil
}

func parseSettings(text []byte) (Settings, error) {
	var all map[string]struct {
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return Settings{}, err
	}
	var s Settings
	// A setting that a version does not have, or holds as another type, keeps
	// its zero value: none of them is worth failing a build.
	get := func(name string, into any) { _ = json.Unmarshal(all[name].Value, into) }
	get("substituters", &s.Substituters)
	get("trusted-substituters", &s.TrustedSubstituters)
	get("trusted-public-keys", &s.TrustedPublicKeys)
	get("trusted-users", &s.TrustedUsers)
	get("store", &s.Store)
	get("build-users-group", &s.BuildUsersGroup)
	get("sandbox", &s.Sandbox)
	var mode string
	get("sandbox", &mode)
	s.Sandbox = s.Sandbox || mode == "relaxed" // most builds are in one
	get("sandbox-paths", &s.SandboxPaths)
	get("netrc-file", &s.NetrcFile)
	return s, nil
}

// HasSandboxShell says whether sandboxed builds are given a /bin/sh.
func (s Settings) HasSandboxShell() bool {
	return slices.ContainsFunc(s.SandboxPaths, func(p string) bool {
		inside, _, _ := strings.Cut(strings.TrimSuffix(p, "?"), "=")
		return inside == "/bin/sh" || inside == "/bin" || inside == "/"
	})
}

// Trusts says whether a daemon with these settings lets a user choose
// substituters and keys.
func (s Settings) Trusts(u *user.User) bool {
	if u.Uid == "0" {
		return true
	}
	groups := map[string]bool{}
	ids, _ := u.GroupIds() // a user of unknown groups is trusted by name only
	for _, id := range ids {
		if g, err := user.LookupGroupId(id); err == nil {
			groups["@"+g.Name] = true
		}
	}
	return slices.ContainsFunc(s.TrustedUsers, func(t string) bool {
		return t == "*" || t == u.Username || groups[t]
	})
}

// Store is where a Nix keeps its things.
type Store struct {
	Dir    string // of the paths, as their names say: /nix/store
	Root   string // what stands before Dir on this machine's disk; "" but for chroot stores
	State  string // directory with db/db.sqlite, or "" when it is not on this machine
	Daemon bool   // builds run in a daemon, with the daemon's rights and settings
}

// RealPath returns where a store path lies on disk.
func (s Store) RealPath(storePath string) string { return s.Root + storePath }

// Database returns the file of Nix's database.
func (s Store) Database() string { return filepath.Join(s.State, "db", "db.sqlite") }

// Made says whether the store is one that Nix has opened before, on this machine
// and without a daemon.
func (s Store) Made() bool {
	if s.Daemon || s.State == "" {
		return false
	}
	// The database is the last that Nix makes.
	info, err := os.Stat(s.Database())
	return err == nil && info.Size() > 0
}

// Locate finds the store that nix uses with these settings (nix.conf(5),
// `store`, and the environment variables that Nix takes for it).
func (s Settings) Locate() (Store, error) {
	where := s.Store
	if env := os.Getenv("NIX_REMOTE"); env != "" {
		where = env
	}
	env := func(name, otherwise string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return otherwise
	}
	dir := env("NIX_STORE_DIR", "/nix/store")
	state := env("NIX_STATE_DIR", filepath.Join(env("NIX_LOCALSTATE_DIR", "/nix/var"), "nix"))
	name, query, _ := strings.Cut(where, "?")
	switch {
	case name == "daemon", strings.HasPrefix(name, "unix://"):
		return Store{Dir: dir, State: state, Daemon: true}, nil
	case name == "local":
		for _, pair := range strings.Split(query, "&") {
			if root, ok := strings.CutPrefix(pair, "root="); ok {
				return chroot(dir, root), nil
			}
		}
		return Store{Dir: dir, State: state}, nil
	case strings.HasPrefix(name, "/"):
		return chroot(dir, name), nil
	case name == "auto", name == "":
		return auto(dir, state), nil
	}
	return Store{Dir: dir}, fmt.Errorf("the store %q is not on this machine", where)
}

func chroot(dir, root string) Store {
	return Store{Dir: dir, Root: root, State: filepath.Join(root, "nix", "var", "nix")}
}

// auto follows openFromNonUri of Nix's store-api.cc: the local store where it
// can be written, else a daemon where one listens, else, where there is no
// store at all, one in the user's home.
func auto(dir, state string) Store {
	if writable(state) {
		return Store{Dir: dir, State: state}
	}
	if _, err := os.Stat(filepath.Join(state, "daemon-socket", "socket")); err == nil {
		return Store{Dir: dir, State: state, Daemon: true}
	}
	if _, err := os.Stat(state); err != nil && os.Geteuid() != 0 && os.Getenv("NIX_STORE_DIR") == "" && os.Getenv("NIX_STATE_DIR") == "" {
		data := os.Getenv("XDG_DATA_HOME")
		if data == "" {
			home, _ := os.UserHomeDir() // unset, nix itself fails
			data = filepath.Join(home, ".local", "share")
		}
		return chroot(dir, filepath.Join(data, "nix", "root"))
	}
	return Store{Dir: dir, State: state}
}
