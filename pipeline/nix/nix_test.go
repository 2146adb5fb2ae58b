package nix

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/nixtest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/setup"
)

func TestParseVersion(t *testing.T) {
	t.Parallel()
	for out, want := range map[string][2]int{
		"nix (Nix) 2.8.0\n":                   {2, 8},
		"nix (Nix) 2.4\n":                     {2, 4},
		"nix (Nix) 2.26.3\n":                  {2, 26},
		"nix (Nix) 3.0.0\n":                   {3, 0},
		"nix (Nix) 2.19pre20231103_b7b7cd3\n": {2, 19},
		"nix (Lix, like Nix) 2.91.1\n":        {2, 91},
		"nix (Determinate Nix 3.6.2) 2.29.0":  {3, 6},
	} {
		major, minor, err := parseVersion(out)
		if err != nil || major != want[0] || minor != want[1] {
			t.Errorf("%q: got %d.%d, %v, want %v", out, major, minor, err, want)
		}
	}
	for _, out := range []string{"", "nix", "nix (Nix) two", "nix 2"} {
		if _, _, err := parseVersion(out); err == nil || !strings.Contains(err.Error(), "--version") {
			t.Errorf("%q: got %v, want an error that names the command", out, err)
		}
	}
}

func TestNewer(t *testing.T) {
	t.Parallel()
	n := Nix{Major: 2, Minor: 8}
	for _, tt := range []struct {
		major, minor int
		want         bool
	}{{2, 4, true}, {2, 8, true}, {2, 9, false}, {2, 15, false}, {1, 99, true}, {3, 0, false}} {
		if got := n.Newer(tt.major, tt.minor); got != tt.want {
			t.Errorf("2.8 newer than %d.%d: %t", tt.major, tt.minor, got)
		}
	}
}

// fake puts a program named nix into a directory of its own.
func fake(t *testing.T, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	nixtest.WriteProgram(t, filepath.Join(dir, "nix"), "#!/bin/sh\n"+script+"\n")
	return dir
}

// They set the environment, so none of them is parallel.
func TestFind(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	for name, tt := range map[string]struct {
		script string
		want   error
		says   string
	}{
		"a good one":      {script: `echo "nix (Nix) 2.8.1"`},
		"the oldest":      {script: `echo "nix (Nix) 2.4"`},
		"without flakes":  {script: `echo "nix (Nix) 2.3.16"`, want: ErrTooOld, says: "2.3, flakes need 2.4"},
		"a broken one":    {script: `echo "no libnixstore.so" >&2; exit 127`, says: "no libnixstore.so"},
		"another program": {script: `echo hello`, says: "holds no version"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fake(t, tt.script)
			t.Setenv("PATH", dir)
			n, err := Find(t.Context())
			if tt.says == "" {
				if err != nil || n.Path != filepath.Join(dir, "nix") {
					t.Errorf("got %+v, %v", n, err)
				}
				return
			}
			if err == nil || (tt.want != nil && !errors.Is(err, tt.want)) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want an error with %q", err, tt.says)
			}
		})
	}
}

func TestFindInTheUsersProfile(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("PATH", t.TempDir())
	profile := filepath.Join(home, ".nix-profile")
	if err := os.MkdirAll(profile, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fake(t, `echo "nix (Nix) 2.8.1"`), filepath.Join(profile, "bin")); err != nil {
		t.Fatal(err)
	}
	n, err := Find(t.Context())
	if err != nil || n.Path != filepath.Join(profile, "bin", "nix") {
		t.Errorf("got %+v, %v", n, err)
	}
}

func TestFindNothing(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("PATH", t.TempDir())
	for _, dir := range setup.ExtraPath("") {
		if _, err := exec.LookPath(filepath.Join(dir, "nix")); err == nil {
			t.Skipf("%s has a nix, which is found whatever PATH says", dir)
		}
	}
	if _, err := Find(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func TestCommandAddsItsSettingsBehindTheUsers(t *testing.T) {
	t.Setenv("NIX_CONFIG", "substituters = https://mine\nmax-jobs = 3")
	n := &Nix{Path: "nix", Config: []string{"extra-substituters = http://cache", "fallback = true"}}
	var got string
	for _, v := range n.Command(t.Context(), "build").Env {
		if value, ok := strings.CutPrefix(v, "NIX_CONFIG="); ok {
			got = value // the last one holds
		}
	}
	want := `substituters = https://mine
max-jobs = 3
extra-experimental-features = nix-command flakes
extra-substituters = http://cache
fallback = true`
	if got != want {
		t.Errorf("NIX_CONFIG is\n%s\nwant\n%s", got, want)
	}
}

func TestPingMakesTheDatabase(t *testing.T) {
	t.Parallel()
	s := nixtest.New(t)
	n := &Nix{Path: s.Nix}
	if _, err := OpenDatabase(t.Context(), storeOf(s)); err == nil {
		t.Fatal("there is a database before nix ran")
	}
	if err := n.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDatabase(t.Context(), storeOf(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if c, err := d.Cursor(t.Context()); c != 0 || err != nil {
		t.Errorf("cursor of an empty store: %d, %v", c, err)
	}
}

func TestPingSaysWhatNixSays(t *testing.T) {
	t.Parallel()
	n := &Nix{Path: filepath.Join(fake(t, `echo "error: disk I/O error" >&2; exit 1`), "nix")}
	if err := n.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "disk I/O error") {
		t.Errorf("got %v, want nix's words", err)
	}
}

func storeOf(s *nixtest.Store) Store { return Store{Dir: s.Dir, State: s.State} }
