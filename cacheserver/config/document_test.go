package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
)

func TestEveryKeyHasItsLine(t *testing.T) {
	t.Parallel()
	const text = `a = 1
b.c = 2 # [x]

d = [
  "x]",
  "y",
]
e = """
f = 1
"""
[g]
h = { i = 1, j = [ { k = 2 } ] }
[[l]]
m = 1
[[l.n]]
o = 1
[[l.n]]
o = 2
[l.p]
q = 1
[[l]]
m = 3
[["r.s"]]
"t u" = 1
`
	d, err := parse("x", text)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]int{
		"a": 1, "b.c": 2, "d": 4, "d[1]": 4, "e": 8, "f": 0, "g": 11, "g.h": 12, "g.h.i": 12, "g.h.j[0].k": 12,
		"l": 13, "l[0]": 13, "l[0].m": 14, "l[0].n[0]": 15, "l[0].n[0].o": 16, "l[0].n[1].o": 18, "l[0].p.q": 20, "l[1]": 21, "l[1].m": 22,
		"l[1].none": 21, `"r.s"[0]`: 23, `"r.s"[0]."t u"`: 24,
	} {
		if got := d.line(key); got != want {
			t.Errorf("%s: line %d, want %d", key, got, want)
		}
	}
}

// FuzzParse: no text makes it panic, hang, or tell a line that is none; what is
// valid has a line for each of its keys.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", "a = 1", "[a]\nb = [\n1,\n]\n", "[[cache]]\nname = \"a\"\n[[cache.upstreams]]\nurl = \"https://a\"\n", "cache = [{name = \"a\"}]",
		"[auth]\nenabled = true\n[[auth.oidc]]\n[[auth.oidc.rules]]\nclaims = { a = [\"b\"] }\n", "a = \"\"\"\n]\"\"\"", "a.b.c = 1\n\"\" = 2",
		"max_size = 1\r\ngrace = '''1h'''\r\n", "[auth]\nenabled = \"x\"\n", "verbose = 1979-05-27",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parse("x", text)
		lines := strings.Count(text, "\n") + 1
		if err != nil {
			var fault *Fault
			if !errors.As(err, &fault) || fault.Line > lines {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		for key := range d.values {
			if line := d.line(below("", key)); line < 1 || line > lines {
				t.Errorf("%q: line %d of %d in %q", key, line, lines, text)
			}
		}
		s := New()
		s.AddFlags(pflag.NewFlagSet("serve", pflag.ContinueOnError), All)
		s.fromFile(d)
		var c struct {
			Auth auth.Config `toml:"auth"`
		}
		d.decode(authKey, func() any {
			c.Auth = auth.Config{}
			return &c
		})
		for _, fault := range d.faults {
			if fault.Line < 1 || fault.Line > lines || fault.Reason == "" {
				t.Errorf("%+v in %q", fault, text)
			}
		}
		_ = s.check()
	})
}

func TestAFileThatIsTooLongIsNotRead(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "x.toml")
	if err := os.WriteFile(name, []byte(strings.Repeat("# long\n", maxFile/7+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readFile(name); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Error(err)
	}
}
