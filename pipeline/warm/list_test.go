package warm

import (
	"slices"
	"strings"
	"testing"
)

func TestAFlakesHashSignIsNoComment(t *testing.T) {
	t.Parallel()
	list, err := ReadList(strings.NewReader("# the tools\n\n.#app   # our own\nnixpkgs#hello\r\n\t.#app\n#.#not\npath:./x#y"))
	if err != nil || !slices.Equal(list, []string{".#app", "nixpkgs#hello", "path:./x#y"}) {
		t.Errorf("%q, %v", list, err)
	}
}

func TestALineThatIsNoInstallableIsRefusedWithItsNumber(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"a\nb c\n", "a\n--impure\n"} {
		if list, err := ReadList(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %q, %v", text, list, err)
		}
	}
	if _, err := ReadList(strings.NewReader(strings.Repeat("x", 2*maxLine))); err == nil {
		t.Error("a line without an end is taken")
	}
}

func TestNamesOfPinsAreTheSameAtTheNextRun(t *testing.T) {
	t.Parallel()
	for installable, want := range map[string]string{
		".#packages.x86_64-linux.app": "packages.x86_64-linux.app", "nixpkgs#hello": "nixpkgs-hello", ".": "default",
		"path:./x#y": "path-.-x-y",
	} {
		if got := slug(installable); got != want {
			t.Errorf("%s: %s, want %s", installable, got, want)
		}
	}
	if got := outputName("/nix/store/3b3kcp2jd3qzkzm6wl0ygm1w1yqgzvd3-lib-1.0-dev"); got != "lib-1.0-dev" {
		t.Errorf("got %s", got)
	}
}

func FuzzReadList(f *testing.F) {
	f.Add([]byte("# x\n.#app # y\nnixpkgs#hello\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := ReadList(strings.NewReader(string(text)))
		if err != nil {
			return
		}
		for _, i := range list {
			if i == "" || i[0] == '-' || i[0] == '#' || len(strings.Fields(i)) != 1 {
				t.Errorf("%q of %q", i, text)
			}
		}
		again, err := ReadList(strings.NewReader(strings.Join(list, "\n")))
		if err != nil || !slices.Equal(again, list) {
			t.Errorf("%q, read again %q, %v", list, again, err)
		}
	})
}
