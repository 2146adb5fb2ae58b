package nixconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func adds(line string) func(Text) (Text, error) {
	return func(t Text) (Text, error) { return append(t, line...), nil }
}

func TestAnEditKeepsModeAndFollowsLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, link := filepath.Join(dir, "real", "nix.conf"), filepath.Join(dir, "nix.conf")
	if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("a = b\n"), 0o640), os.Symlink("real/nix.conf", link)); err != nil {
		t.Fatal(err)
	}
	if changed, err := Edit(link, 0o644, adds("c = d\n")); !changed || err != nil {
		t.Fatal(changed, err)
	}
	info, err := os.Lstat(file)
	if text, e := os.ReadFile(file); err != nil || e != nil || string(text) != "a = b\nc = d\n" || info.Mode() != 0o640 {
		t.Errorf("%q, %v, %v", text, info.Mode(), errors.Join(err, e))
	}
	if to, err := os.Readlink(link); err != nil || to != "real/nix.conf" {
		t.Errorf("the link is %q, %v", to, err)
	}
	left, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAFileIsMadeWithItsDirectoryAndGoesWhenNothingIsLeft(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "nix", "nix.conf")
	for _, want := range []bool{true, false} {
		if changed, err := Use(file, mainCache, ""); changed != want || err != nil {
			t.Fatalf("changed %v, %v", changed, err)
		}
	}
	if removed, err := Remove(file, mainCache.URL+"/"); err != nil || len(removed) != 1 {
		t.Fatal(removed, err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty file is left: %v", err)
	}
	if removed, err := Remove(file, ""); err != nil || len(removed) != 0 {
		t.Error(removed, err)
	}
}

func TestEditsOfSeveralAtOnceAreAllKept(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "nix.conf")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := Use(file, Cache{URL: fmt.Sprint("https://", i), PublicKeys: []string{"k:AAAA"}}, ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	text, err := os.ReadFile(file)
	if err != nil || strings.Count(string(text), beginMark) != 20 {
		t.Errorf("%v\n%s", err, text)
	}
}

// The Nix store's files can be written by root all the same.
func TestWhatLiesInTheStoreIsNotEdited(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "nix.conf")
	if err := os.Symlink("/nix/store/00000000000000000000000000000000-nix.conf", link); err != nil {
		t.Fatal(err)
	}
	if _, err := Use(link, mainCache, ""); !errors.Is(err, ErrReadOnly) {
		t.Errorf("got %v", err)
	}
}

func TestATokenIsInNetrcAheadOfOthersAndNowhereElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf, netrc := filepath.Join(dir, "nix.conf"), filepath.Join(dir, "netrc")
	const own = "machine cache.example.org login me password mine\n"
	if err := os.WriteFile(netrc, []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Use(conf, mainCache, "secret"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(netrc)
	if err != nil || !strings.HasSuffix(string(text), own) || !strings.Contains(string(text), "machine cache.example.org\nlogin flywheel\npassword secret\n") {
		t.Errorf("%q, %v", text, err)
	}
	settings, err := os.ReadFile(conf)
	if err != nil || strings.Contains(string(settings), "secret") || !strings.Contains(string(settings), "netrc-file = "+netrc+"\n") {
		t.Errorf("%v\n%s", err, settings)
	}
	if _, err := Remove(conf, ""); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(netrc); err != nil || string(text) != own {
		t.Errorf("%q, %v", text, err)
	}
}

func TestATokenGoesIntoTheNetrcThatIsSet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf, netrc := filepath.Join(dir, "nix.conf"), filepath.Join(dir, "elsewhere")
	before := "netrc-file = " + netrc + "\n"
	if err := os.WriteFile(conf, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Use(conf, mainCache, "secret"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(netrc)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if _, err := Remove(conf, mainCache.URL); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(netrc); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the token is left: %v", err)
	}
	if text, err := os.ReadFile(conf); err != nil || string(text) != before {
		t.Errorf("%q, %v", text, err)
	}
}
