// Package nixtest gives tests a Nix store of their own, so that none touches
// the system's or meets what another left.
package nixtest

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// conf needs neither a network nor build users nor a sandbox.
const conf = `sandbox = false
build-users-group =
substituters =
experimental-features = nix-command flakes
`

// Environ makes the directories of a store under dir and returns the variables
// by which Nix uses them, and them only.
func Environ(dir string) ([]string, error) {
	home := filepath.Join(dir, "home")
	for _, d := range []string{home, filepath.Join(dir, "conf")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "conf", "nix.conf"), []byte(conf), 0o644); err != nil {
		return nil, err
	}
	return []string{
		"NIX_STORE_DIR=" + filepath.Join(dir, "store"),
		"NIX_STATE_DIR=" + filepath.Join(dir, "state"),
		"NIX_LOG_DIR=" + filepath.Join(dir, "log"),
		"NIX_CONF_DIR=" + filepath.Join(dir, "conf"),
		"HOME=" + home,
		"XDG_CACHE_HOME=" + filepath.Join(home, ".cache"),
		"XDG_CONFIG_HOME=" + filepath.Join(home, ".config"),
		"XDG_DATA_HOME=" + filepath.Join(home, ".local", "share"),
		"XDG_STATE_HOME=" + filepath.Join(home, ".local", "state"),
	}, nil
}

// Thaw makes a store's files writable again, which Nix makes read-only, so that
// whoever is not root can remove them.
func Thaw(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o755)
		}
		return nil // what cannot be changed will be told by who removes it
	})
}

// Store is a Nix store with a state of its own.
type Store struct {
	Dir   string // of the paths
	State string
	// Nix is a program that is nix on this store, whatever the environment.
	Nix string
	env []string
}

// New makes an empty store, which goes with the test. Where nix is not
// installed, the test is skipped.
func New(t testing.TB) *Store {
	t.Helper()
	nix, err := exec.LookPath("nix")
	if err != nil {
		t.Skip("nix is not installed: this test asks a real one")
	}
	dir := t.TempDir()
	t.Cleanup(func() { Thaw(dir) })
	env, err := Environ(dir)
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\nunset NIX_REMOTE NIX_PATH NIX_USER_CONF_FILES\n"
	for _, variable := range env {
		name, value, _ := strings.Cut(variable, "=")
		script += fmt.Sprintf("export %s='%s'\n", name, value)
	}
	s := &Store{
		Dir: filepath.Join(dir, "store"), State: filepath.Join(dir, "state"),
		Nix: filepath.Join(dir, "nix"), env: env,
	}
	WriteProgram(t, s.Nix, script+"exec "+nix+` "$@"`+"\n")
	return s
}

// Run runs one of Nix's programs on the store and returns its output.
func (s *Store) Run(t testing.TB, program string, args ...string) string {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.Command(program, args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "NIX_") }), s.env...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// Build builds attributes of an expression (File) and returns their outputs.
func (s *Store) Build(t testing.TB, expression string, attrs ...string) []string {
	t.Helper()
	return strings.Fields(s.Run(t, "nix-build", append(s.args(t, expression, attrs), "--no-out-link")...))
}

// Instantiate evaluates attributes of an expression and returns their
// derivations.
func (s *Store) Instantiate(t testing.TB, expression string, attrs ...string) []string {
	t.Helper()
	return strings.Fields(s.Run(t, "nix-instantiate", s.args(t, expression, attrs)...))
}

func (s *Store) args(t testing.TB, expression string, attrs []string) []string {
	args := []string{s.File(t, expression)}
	for _, a := range attrs {
		args = append(args, "-A", a)
	}
	return args
}

// Step is the Nix function that makes a small derivation: its name, what it
// refers to, and a script that leaves something at $out.
const Step = `name: needs: script: derivation {
  inherit name needs;
  system = builtins.currentSystem;
  builder = "/bin/sh";
  PATH = "/bin:/usr/bin";
  WORK = builtins.getEnv "WORK";
  args = [ "-e" "-c" script ];
}
`

// File writes an expression, in which step is the function Step, to a file.
func (s *Store) File(t testing.TB, expression string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "default.nix")
	if err := os.WriteFile(file, []byte("let step = "+Step+"; in rec {\n"+expression+"\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
