package setup

import (
	"os/exec"
	"strings"
	"testing"
)

func TestQuote(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{
		"":                 "''",
		"apt-get":          "apt-get",
		"a=b":              "a=b",
		"=https":           "'=https'",
		"build users":      "'build users'",
		"it's":             `'it'\''s'`,
		"$HOME":            "'$HOME'",
		"~/x":              "'~/x'",
		"https://x.org/?a": "'https://x.org/?a'",
	} {
		if got := quote(word); got != want {
			t.Errorf("quote(%q) = %s, want %s", word, got, want)
		}
	}
}

// A shell reads a quoted word back as it was.
func FuzzQuote(f *testing.F) {
	for _, word := range []string{"", "=https", "it's", "a b\nc", "\\", "$(x)`y`", "é*?[", "-n"} {
		f.Add(word)
	}
	f.Fuzz(func(t *testing.T, word string) {
		if strings.Contains(word, "\x00") {
			t.Skip("no argument holds a NUL")
		}
		got, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+quote(word)).Output()
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != word {
			t.Errorf("sh reads %s as %q, want %q", quote(word), got, word)
		}
	})
}
