package flywheel

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

const (
	hashA = "0c5b8vw40dy178xlpddw65q9gf1h2186"
	hashB = "1c5b8vw40dy178xlpddw65q9gf1h2186"
)

// fakeStore makes a chroot store, whose paths do not lie where they say.
func fakeStore(t *testing.T) (nix.Store, func(path, contents string, mode fs.FileMode), func(path, target string)) {
	t.Helper()
	s := nix.Store{Dir: "/nix/store", Root: t.TempDir()}
	file := func(path, contents string, mode fs.FileMode) {
		t.Helper()
		full := s.RealPath(path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(contents), mode); err != nil {
			t.Fatal(err)
		}
	}
	link := func(path, target string) {
		t.Helper()
		full := s.RealPath(path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, full); err != nil {
			t.Fatal(err)
		}
	}
	return s, file, link
}

// listing writes a tree as one line an entry.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			fmt.Fprintf(&b, "%s -> %s\n", name, target)
			return err
		}
		contents, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %o %s\n", name, info.Mode().Perm(), contents)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestResultsAreCopiedAsFilesThatNeedNoStore(t *testing.T) {
	t.Parallel()
	store, file, link := fakeStore(t)
	a, b := "/nix/store/"+hashA+"-app", "/nix/store/"+hashB+"-lib"
	file(a+"/bin/app", "run", 0o555)
	file(a+"/share/doc", "words", 0o444)
	link(a+"/bin/alias", "app")
	link(a+"/lib", b)
	link(a+"/up", "../"+hashB+"-lib/so")
	link(a+"/dangling", b+"/none")
	link(a+"/etc", "/etc/hosts")
	file(b+"/so", "library", 0o444)
	link(b+"/more", "so")

	r := &run{store: store, console: newConsole(nil, io.Discard)}
	dir := t.TempDir()
	for range 2 { // a second copy replaces the first
		if err := r.copyResults(dir, []string{a, "/nix/store/" + hashB + "-lib"}); err != nil {
			t.Fatal(err)
		}
	}
	want := strings.Join([]string{
		"app/bin/alias -> app",
		"app/bin/app 755 run",
		"app/dangling -> " + b + "/none",
		"app/etc -> /etc/hosts",
		"app/lib/more 644 library", // within the other path, seen from this one
		"app/lib/so 644 library",
		"app/share/doc 644 words",
		"app/up 644 library",
		"lib/more -> so",
		"lib/so 644 library",
	}, "\n") + "\n"
	if got := listing(t, dir); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestResultsOfOneNameAreKeptApart(t *testing.T) {
	t.Parallel()
	store, file, _ := fakeStore(t)
	file("/nix/store/"+hashA+"-same", "first", 0o444)
	file("/nix/store/"+hashB+"-same", "second", 0o444)
	r := &run{store: store, console: newConsole(nil, io.Discard)}
	dir := t.TempDir()
	if err := r.copyResults(dir, []string{"/nix/store/" + hashA + "-same", "/nix/store/" + hashB + "-same"}); err != nil {
		t.Fatal(err)
	}
	if got, want := listing(t, dir), "same 644 first\nsame-2 644 second\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSymlinksInACircleEnd(t *testing.T) {
	t.Parallel()
	store, _, link := fakeStore(t)
	a, b := "/nix/store/"+hashA+"-a", "/nix/store/"+hashB+"-b"
	link(a+"/x", b+"/y")
	link(b+"/y", a+"/x")
	r := &run{store: store, console: newConsole(nil, io.Discard)}
	if err := r.copyResults(t.TempDir(), []string{a}); err == nil || !strings.Contains(err.Error(), "symlinks") {
		t.Errorf("got %v, want an error about symlinks", err)
	}
}

func TestTheTokenReachesNixThroughAFileOfItsOwn(t *testing.T) {
	t.Parallel()
	own := filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(own, []byte("machine other.example\npassword mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	r := &run{
		tokens: map[string]string{"https://cache.example:8443/main": "s3cret"}, nix: &nix.Nix{}, console: newConsole(nil, &out),
		settings: nix.Settings{NetrcFile: own},
	}
	if err := r.useToken([]string{"https://cache.example:8443/main"}); err != nil {
		t.Fatal(err)
	}
	if len(r.nix.Config) != 1 || strings.Contains(r.nix.Config[0], "s3cret") {
		t.Fatalf("settings %q", r.nix.Config)
	}
	file := strings.TrimPrefix(r.nix.Config[0], "netrc-file = ")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := "machine cache.example\nlogin flywheel\npassword s3cret\nmachine other.example\npassword mine\n"
	if string(text) != want {
		t.Errorf("netrc %q, want %q", text, want)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: others can read it", info.Mode(), err)
	}
	r.close()
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the token is left behind: %v", err)
	}
	if strings.Contains(out.String(), "s3cret") {
		t.Error("the token was printed")
	}
}
