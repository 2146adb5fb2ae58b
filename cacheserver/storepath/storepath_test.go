package storepath_test

import (
	"errors"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

const hash = "0c5b8vw40dy178xlpddw65q9gf1h2186"

func TestSplit(t *testing.T) {
	t.Parallel()
	for base, ok := range map[string]bool{
		hash + "-hello-2.12.1":                true,
		hash + "-Foo+bar_baz?x=1.0":           true,
		hash + "-" + strings.Repeat("n", 211): true,
		hash + "-.hidden":                     true,
		hash + "-" + strings.Repeat("n", 212): false,
		hash + "-":                            false,
		hash:                                  false,
		"":                                    false,
		hash[1:] + "-hello":                   false,
		"e" + hash[1:] + "-hello":             false, // no e in Nix's base 32
		strings.ToUpper(hash) + "-hello":      false,
		hash + "-a/b":                         false,
		hash + "-a b":                         false,
		hash + "-a\n":                         false,
		hash + "-ä":                           false,
		hash + "-.":                           false,
		hash + "-..":                          false,
		hash + "-..-a":                        false,
		"../" + hash + "-hello":               false,
		hash + "-hello\x00":                   false,
	} {
		h, name, err := storepath.Split(base)
		if (err == nil) != ok {
			t.Errorf("Split(%q): %v, want it valid: %v", base, err, ok)
		}
		if err != nil && !errors.Is(err, storepath.ErrInvalid) {
			t.Errorf("Split(%q): %v is not ErrInvalid", base, err)
		}
		if err == nil && h+"-"+name != base {
			t.Errorf("Split(%q) = %q, %q", base, h, name)
		}
	}
}

func TestBase(t *testing.T) {
	t.Parallel()
	if got, err := storepath.Base("/nix/store", "/nix/store/"+hash+"-a"); got != hash+"-a" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	for _, full := range []string{"/gnu/store/" + hash + "-a", "/nix/store/" + hash + "-a/bin", "/nix/store/../" + hash + "-a", hash + "-a", "/nix/store"} {
		if got, err := storepath.Base("/nix/store", full); err == nil {
			t.Errorf("Base(%q) = %q, want an error", full, got)
		}
	}
}
