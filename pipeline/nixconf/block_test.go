package nixconf

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

var mainCache = Cache{URL: "https://cache.example.org/main", PublicKeys: []string{"main-1:AAAA", "main-0:BBBB"}}

const foreign = "# ours\r\nsubstituters = https://cache.nixos.org\n\n\tsandbox=false is no setting # no\n"

func TestABlockComesAndGoesAndLeavesTheRest(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing": "", "a comment": "# x\n", "CRLF and tabs": "a = b\r\n\tc  =  d # e\r\n", "empty lines": "\n\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			once := must(t)(useIn(Text(text), mainCache, nil))
			if !strings.HasPrefix(string(once), text) {
				t.Errorf("what stood there is not as it was:\n%s", once)
			}
			if twice := must(t)(useIn(once, mainCache, nil)); !bytes.Equal(twice, once) {
				t.Errorf("it is written anew:\n%s", twice)
			}
			other := Cache{URL: "https://other", PublicKeys: []string{"o-1:CCCC"}}
			both := must(t)(useIn(once, other, nil))
			if names, err := both.Names(); err != nil || !slices.Equal(names, []string{mainCache.URL, other.URL}) {
				t.Errorf("%v, %v", names, err)
			}
			left := must(t)(must(t)(both.Without(mainCache.URL)).Without(other.URL))
			if string(left) != text {
				t.Errorf("%q is left of %q", left, text)
			}
		})
	}
}

func TestANewKeyTakesThePlaceOfTheOld(t *testing.T) {
	t.Parallel()
	text := must(t)(useIn(Text("a = b\n"), mainCache, nil))
	text = append(text, "c = d\n"...)
	text = must(t)(useIn(text, Cache{URL: mainCache.URL, PublicKeys: []string{"main-2:CCCC"}}, nil))
	const want = `a = b
# BEGIN flywheel use https://cache.example.org/main
extra-substituters = https://cache.example.org/main
extra-trusted-public-keys = main-2:CCCC
fallback = true
connect-timeout = 5
# END flywheel use https://cache.example.org/main
c = d
`
	if string(text) != want {
		t.Errorf("got\n%s", text)
	}
}

// Nix reads in order: what sets substituters anew forgets what was added.
func TestABlockMovesBehindWhatWouldHideIt(t *testing.T) {
	t.Parallel()
	text := must(t)(useIn(nil, mainCache, nil))
	text = append(text, "substituters = https://cache.nixos.org\n"...)
	text = must(t)(useIn(text, mainCache, nil))
	if !strings.HasPrefix(string(text), "substituters = ") || bytes.Count(text, []byte("BEGIN")) != 1 {
		t.Errorf("got\n%s", text)
	}
}

func TestWhatTheOwnerSetIsTheOwnersAffair(t *testing.T) {
	t.Parallel()
	text := string(must(t)(useIn(Text("fallback = false\nconnect-timeout = 60\n"), mainCache, nil)))
	if strings.Contains(text, "fallback = true") || strings.Contains(text, "timeout = 5\n") {
		t.Errorf("got\n%s", text)
	}
}

func TestAnUnendedLineIsNotJoinedWithTheBlock(t *testing.T) {
	t.Parallel()
	text := must(t)(useIn(Text("a = b"), mainCache, nil))
	if !bytes.HasPrefix(text, []byte("a = b\n# BEGIN")) {
		t.Errorf("got\n%s", text)
	}
}

func TestDamagedBlocksAreLeftAlone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		beginMark + "a\nx = y\n",
		"x = y\n" + endMark + "a\n",
		beginMark + "a\n" + beginMark + "b\n" + endMark + "b\n",
		beginMark + "a\n" + endMark + "b\n",
	} {
		if got, err := Text(text).With("a", nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q, %v", got, err)
		}
		if got, err := Text(text).Without("a"); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q, %v", got, err)
		}
	}
}

func TestWhatNixWouldRefuseIsRefused(t *testing.T) {
	t.Parallel()
	var syntax *SyntaxError
	if _, err := useIn(Text(foreign), mainCache, nil); !errors.As(err, &syntax) || syntax.Line != 4 {
		t.Errorf("got %v", err)
	}
	settings, err := Text("a = 1 2 # 3\nextra-a = 4\ninclude x\n!include y\nb =\n").Settings()
	want := []Setting{{"a", false, []string{"1", "2"}, 1}, {"a", true, []string{"4"}, 2}, {"b", false, []string{}, 5}}
	if err != nil || !slices.EqualFunc(settings, want, func(a, b Setting) bool {
		return a.Name == b.Name && a.Extra == b.Extra && a.Line == b.Line && a.Value() == b.Value()
	}) {
		t.Errorf("%+v, %v", settings, err)
	}
}

func must(t *testing.T) func(Text, error) Text {
	return func(text Text, err error) Text {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

func FuzzNixConf(f *testing.F) {
	f.Add([]byte(foreign))
	f.Add([]byte("a = b\n" + beginMark + "x\na = b\n" + endMark + "x\nc = d"))
	f.Add([]byte(beginMark + "x\n" + endMark + "x\n" + beginMark + "x\n" + endMark + "x\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		settings, _ := Text(text).Settings()
		for _, s := range settings {
			if s.Name == "" && !s.Extra || strings.ContainsAny(s.Value(), "\n#") {
				t.Fatalf("setting %+v", s)
			}
		}
		foreign, err := Text(text).Foreign()
		if err != nil {
			return
		}
		with, err := Text(text).With("x", []string{"a = b"})
		if err != nil {
			t.Fatal(err)
		}
		if again, err := with.With("x", []string{"a = b"}); err != nil || !bytes.Equal(again, with) {
			t.Fatalf("a second time: %q, %v", again, err)
		}
		names, err := with.Names()
		if err != nil || len(slices.DeleteFunc(names, func(n string) bool { return n != "x" })) != 1 {
			t.Fatalf("blocks %q, %v in %q", names, err, with)
		}
		if rest, err := with.Foreign(); err != nil || !bytes.Equal(bytes.TrimSuffix(rest, []byte("\n")), bytes.TrimSuffix(foreign, []byte("\n"))) {
			t.Fatalf("%q became %q, %v", foreign, rest, err)
		}
	})
}
