package nix

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"testing"
)

func TestParseSettings(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text string
		want Settings
	}{
		"2.8": {`{
			"substituters":{"aliases":["binary-caches"],"defaultValue":["https://cache.nixos.org/"],"description":"…","value":["https://cache.nixos.org/","http://other"]},
			"trusted-substituters":{"value":["http://trusted"]},
			"trusted-public-keys":{"value":["cache.nixos.org-1:6NCH="]},
			"trusted-users":{"value":["root","@wheel"]},
			"store":{"defaultValue":"auto","value":"auto"},
			"build-users-group":{"value":"nixbld"},
			"sandbox":{"aliases":["build-use-chroot"],"defaultValue":true,"value":true},
			"sandbox-paths":{"value":["/bin/sh=/usr/bin/busybox","/dev/kvm?"]},
			"max-jobs":{"defaultValue":1,"value":1}}`, Settings{
			Substituters:        []string{"https://cache.nixos.org/", "http://other"},
			TrustedSubstituters: []string{"http://trusted"},
			TrustedPublicKeys:   []string{"cache.nixos.org-1:6NCH="},
			TrustedUsers:        []string{"root", "@wheel"},
			Store:               "auto",
			BuildUsersGroup:     "nixbld",
			Sandbox:             true,
			SandboxPaths:        []string{"/bin/sh=/usr/bin/busybox", "/dev/kvm?"},
		}},
		"2.26": {`{
			"substituters":{"aliases":["binary-caches"],"defaultValue":["https://cache.nixos.org/"],"description":"…","documentDefault":true,"experimentalFeature":null,"value":["https://cache.nixos.org/"]},
			"store":{"experimentalFeature":null,"value":"daemon"},
			"sandbox":{"experimentalFeature":null,"value":false},
			"sandbox-paths":{"experimentalFeature":null,"value":[]},
			"build-users-group":{"experimentalFeature":null,"value":""}}`, Settings{
			Substituters: []string{"https://cache.nixos.org/"}, Store: "daemon", SandboxPaths: []string{},
		}},
		"a sandbox for most": {`{"sandbox":{"value":"relaxed"}}`, Settings{Sandbox: true}},
		"nothing known":      {`{}`, Settings{}},
		"of other types":     {`{"store":{"value":["auto"]},"substituters":{"value":"a b"},"sandbox":{}}`, Settings{}},
	} {
		got, err := parseSettings([]byte(tt.text))
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, tt.want)
		}
	}
	for _, text := range []string{"", "store = auto", "[]"} {
		if _, err := parseSettings([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestSettingsOfTheInstalledNix(t *testing.T) {
	t.Parallel()
	n, _ := realNix(t)
	n.Config = []string{"substituters = http://a http://b", "extra-substituters = http://c"}
	s, err := n.Settings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"http://a", "http://b", "http://c"}; !reflect.DeepEqual(s.Substituters, want) {
		t.Errorf("substituters %q, want %q", s.Substituters, want)
	}
	if s.Sandbox || s.BuildUsersGroup != "" || s.Store != "auto" || !reflect.DeepEqual(s.TrustedUsers, []string{"root"}) {
		t.Errorf("got %+v, which nix.conf does not say", s)
	}
}

func TestHasSandboxShell(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"/bin/sh": true, "/bin/sh=/usr/bin/busybox": true, "/bin/sh?": true, "/bin": true, "/bin=/nix/bin?": true, "/": true,
		"/bin/shell": false, "/usr/bin/sh=/bin/sh": false, "/dev/kvm?": false, "": false,
	} {
		if got := (Settings{SandboxPaths: []string{"/etc/hosts", path}}).HasSandboxShell(); got != want {
			t.Errorf("%q: %t", path, got)
		}
	}
}

func TestTrusts(t *testing.T) {
	t.Parallel()
	daemon, err := user.Lookup("daemon")
	if err != nil {
		t.Skip("there is no user daemon, whose group this test asks about")
	}
	group, err := user.LookupGroupId(daemon.Gid)
	if err != nil {
		t.Fatal(err)
	}
	stranger := &user.User{Uid: "54321", Gid: "54321", Username: "stranger"}
	for name, tt := range map[string]struct {
		user    *user.User
		trusted []string
		want    bool
	}{
		"root, always":        {&user.User{Uid: "0", Username: "root"}, nil, true},
		"by name":             {daemon, []string{"root", "daemon"}, true},
		"by group":            {daemon, []string{"@" + group.Name}, true},
		"everybody":           {stranger, []string{"*"}, true},
		"nobody":              {daemon, nil, false},
		"another":             {daemon, []string{"root", "@wheel"}, false},
		"a group of the name": {daemon, []string{group.Name + "s", "@" + group.Name + "s"}, false},
		"without groups":      {stranger, []string{"@" + group.Name}, false},
		"named like a group":  {&user.User{Uid: "54321", Gid: "54321", Username: "@wheels"}, []string{"@wheel"}, false},
	} {
		if got := (Settings{TrustedUsers: tt.trusted}).Trusts(tt.user); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// It sets the environment, so it is not parallel.
func TestLocate(t *testing.T) {
	state := t.TempDir() // can be written
	for name, tt := range map[string]struct {
		store string
		env   map[string]string
		want  Store
	}{
		"the daemon":             {store: "daemon", want: Store{Dir: "/nix/store", State: "/nix/var/nix", Daemon: true}},
		"a daemon's socket":      {store: "unix:///run/nix", want: Store{Dir: "/nix/store", State: "/nix/var/nix", Daemon: true}},
		"local":                  {store: "local", want: Store{Dir: "/nix/store", State: "/nix/var/nix"}},
		"a root":                 {store: "local?root=/mnt", want: Store{Dir: "/nix/store", Root: "/mnt", State: "/mnt/nix/var/nix"}},
		"a root, behind another": {store: "local?require-sigs=false&root=/mnt", want: Store{Dir: "/nix/store", Root: "/mnt", State: "/mnt/nix/var/nix"}},
		"a directory":            {store: "/mnt", want: Store{Dir: "/nix/store", Root: "/mnt", State: "/mnt/nix/var/nix"}},
		"auto": {
			store: "auto", env: map[string]string{"NIX_STATE_DIR": state},
			want: Store{Dir: "/nix/store", State: state},
		},
		"auto, unsaid": {
			env:  map[string]string{"NIX_STATE_DIR": state},
			want: Store{Dir: "/nix/store", State: state},
		},
		"directories by variable": {
			store: "auto", env: map[string]string{"NIX_STORE_DIR": "/s", "NIX_STATE_DIR": state},
			want: Store{Dir: "/s", State: state},
		},
		"state by its parent": {
			store: "local", env: map[string]string{"NIX_LOCALSTATE_DIR": "/v"},
			want: Store{Dir: "/nix/store", State: "/v/nix"},
		},
		"NIX_REMOTE wins": {
			store: "local", env: map[string]string{"NIX_REMOTE": "daemon"},
			want: Store{Dir: "/nix/store", State: "/nix/var/nix", Daemon: true},
		},
		"a store that was never made": {
			store: "auto", env: map[string]string{"NIX_STATE_DIR": filepath.Join(state, "absent")},
			want: Store{Dir: "/nix/store", State: filepath.Join(state, "absent")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			setLocations(t, tt.env)
			got, err := Settings{Store: tt.store}.Locate()
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
	for _, store := range []string{"ssh://host", "https://cache.nixos.org", "dummy://"} {
		setLocations(t, nil)
		if got, err := (Settings{Store: store}).Locate(); err == nil || got.State != "" || got.Dir != "/nix/store" {
			t.Errorf("%s: got %+v, %v, want a store without state and an error", store, got, err)
		}
	}
}

// setLocations unsets what tells Nix where its things are, and sets some of it.
func setLocations(t *testing.T, env map[string]string) {
	t.Helper()
	for _, name := range []string{"NIX_REMOTE", "NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_LOCALSTATE_DIR"} {
		t.Setenv(name, env[name])
	}
}

func TestLocateWhereTheStateCannotBeWritten(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere: this test needs to run as another user")
	}
	state := filepath.Join(t.TempDir(), "nix")
	setLocations(t, map[string]string{"NIX_LOCALSTATE_DIR": filepath.Dir(state)})
	data := t.TempDir()
	t.Setenv("XDG_DATA_HOME", data)
	got, err := Settings{Store: "auto"}.Locate()
	if root := filepath.Join(data, "nix", "root"); err != nil || got != chroot("/nix/store", root) {
		t.Errorf("with no state at all: got %+v, %v, want one in %s", got, err, root)
	}

	if err := os.MkdirAll(filepath.Join(state, "daemon-socket"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(state, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(state, 0o755) })
	if got, err := (Settings{Store: "auto"}).Locate(); err != nil || got != (Store{Dir: "/nix/store", State: state}) {
		t.Errorf("without a daemon: got %+v, %v", got, err)
	}
	l, err := net.Listen("unix", filepath.Join(state, "daemon-socket", "socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if got, err := (Settings{Store: "auto"}).Locate(); err != nil || got != (Store{Dir: "/nix/store", State: state, Daemon: true}) {
		t.Errorf("with a daemon: got %+v, %v", got, err)
	}
}

func TestStorePlaces(t *testing.T) {
	t.Parallel()
	s := chroot("/nix/store", "/mnt")
	if got := s.RealPath("/nix/store/h-x"); got != "/mnt/nix/store/h-x" {
		t.Errorf("a path lies at %s", got)
	}
	if got := fmt.Sprint(s.Database()); got != "/mnt/nix/var/nix/db/db.sqlite" {
		t.Errorf("the database lies at %s", got)
	}
}
