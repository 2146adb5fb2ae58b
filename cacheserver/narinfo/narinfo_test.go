package narinfo_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
)

const (
	hashA = "0c5b8vw40dy178xlpddw65q9gf1h2186"
	hashB = "1c5b8vw40dy178xlpddw65q9gf1h2186"
)

var example = narinfo.NarInfo{
	StorePath: "/nix/store/" + hashA + "-hello", URL: "nar/x.nar.zst", Compression: "zstd",
	FileHash: digest.Of([]byte("file")), FileSize: 4, NarHash: digest.Of([]byte("nar")), NarSize: 3,
	References: []string{hashB + "-dep", hashA + "-hello"},
	Deriver:    hashB + "-hello.drv", Signatures: []string{"a:b", "c:d"}, CA: "fixed:r:sha256:x",
}

func TestTextIsReadBack(t *testing.T) {
	t.Parallel()
	text := example.Text()
	n, err := narinfo.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Check("/nix/store"); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(n.Text(), text) {
		t.Errorf("read back:\n%s\nwritten:\n%s", n.Text(), text)
	}
	if !bytes.HasSuffix(text, []byte("\n")) {
		t.Error("Nix wants a newline at the end")
	}
	want := fmt.Sprintf("1;/nix/store/%s-hello;%s;3;/nix/store/%s-hello,/nix/store/%s-dep", hashA, example.NarHash.Nix(), hashA, hashB)
	if got := n.Fingerprint(); got != want {
		t.Errorf("fingerprint %q, want %q", got, want)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	nar := "NarHash: " + example.NarHash.Nix() + "\nNarSize: 3\n"
	path := "StorePath: /nix/store/" + hashA + "-hello\n"
	for name, c := range map[string]struct{ text, wrong string }{
		"the least":               {path + nar, ""},
		"no newline at the end":   {path + strings.TrimSuffix(nar, "\n"), ""},
		"an unknown field":        {path + nar + "Zukunft: ja\n", ""},
		"a hash in hexadecimal":   {path + "NarHash: sha256:" + example.NarHash.String() + "\nNarSize: 3\n", ""},
		"an empty References":     {path + nar + "References: \n", ""},
		"a bare References":       {path + nar + "References:\n", ""},
		"nothing":                 {"", "no colon"},
		"no StorePath":            {nar, "no StorePath"},
		"no NarHash":              {path + "NarSize: 3\n", "no NarHash"},
		"no NarSize":              {path + "NarHash: " + example.NarHash.Nix() + "\n", "no NarSize"},
		"NarSize 0":               {path + "NarHash: " + example.NarHash.Nix() + "\nNarSize: 0\n", "NarSize"},
		"NarSize with a sign":     {path + "NarHash: " + example.NarHash.Nix() + "\nNarSize: +3\n", "NarSize"},
		"NarSize too large":       {path + "NarHash: " + example.NarHash.Nix() + "\nNarSize: 99999999999999999999\n", "NarSize"},
		"a short hash":            {path + "NarHash: sha256:abc\nNarSize: 3\n", "NarHash"},
		"another hash":            {path + "NarHash: md5:" + example.NarHash.Nix32() + "\nNarSize: 3\n", "NarHash"},
		"a second References":     {path + nar + "References: a\nReferences: b\n", "second References"},
		"a second StorePath":      {path + path + nar, "second StorePath"},
		"a line without a colon":  {path + nar + "hello\n", "no colon"},
		"a file beyond the limit": {path + nar + "X: " + strings.Repeat("x", narinfo.MaxSize) + "\n", "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := narinfo.Parse([]byte(c.text))
			if c.wrong == "" && err != nil {
				t.Fatal(err)
			}
			if c.wrong != "" && (!errors.Is(err, narinfo.ErrMalformed) || !strings.Contains(err.Error(), c.wrong)) {
				t.Errorf("got %v, want ErrMalformed with %q", err, c.wrong)
			}
		})
	}
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(n *narinfo.NarInfo){
		"another store":          func(n *narinfo.NarInfo) { n.StorePath = "/gnu/store/" + hashA + "-x" },
		"a file in a path":       func(n *narinfo.NarInfo) { n.StorePath += "/bin" },
		"a full reference":       func(n *narinfo.NarInfo) { n.References = []string{"/nix/store/" + hashA + "-x"} },
		"an empty reference":     func(n *narinfo.NarInfo) { n.References = []string{""} },
		"a full deriver":         func(n *narinfo.NarInfo) { n.Deriver = "/nix/store/" + hashA + "-x.drv" },
		"a signature of nobody":  func(n *narinfo.NarInfo) { n.Signatures = []string{":abc"} },
		"a signature of nothing": func(n *narinfo.NarInfo) { n.Signatures = []string{"a"} },
		"a signature in two":     func(n *narinfo.NarInfo) { n.Signatures = []string{"a:b c:d"} },
		"a CA of two lines":      func(n *narinfo.NarInfo) { n.CA = "x\nSig: a:b" },
	} {
		n := example
		change(&n)
		if err := n.Check("/nix/store"); !errors.Is(err, narinfo.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func TestSignatures(t *testing.T) {
	t.Parallel()
	key, err := narinfo.GenerateKey("main-1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := narinfo.ParseSecretKey(key.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(fmt.Sprint(key), strings.TrimPrefix(key.Reveal(), "main-1:")) {
		t.Error("a key that is printed shows its secret")
	}
	n := example
	n.Signatures = []string{"other:AAAA", again.Sign(&n)}
	if ok, err := n.Signed(key.Public()); !ok || err != nil {
		t.Errorf("its own signature: %v, %v", ok, err)
	}
	n.References = n.References[:1]
	if ok, err := n.Signed(key.Public()); ok || err != nil {
		t.Errorf("a signature over other references: %v, %v", ok, err)
	}
	for _, bad := range []string{"", "main-1", "main-1:", ":AAAA", "main-1:AAAA", "main-1:" + strings.Repeat("A", 88)} {
		if _, err := narinfo.ParseSecretKey(bad); !errors.Is(err, narinfo.ErrKey) {
			t.Errorf("ParseSecretKey(%q): %v, want ErrKey", bad, err)
		}
	}
}

func TestKeysOfNixAreRead(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("nix-store")
	if err != nil {
		t.Skip("nix-store is not installed: a key of its making cannot be had")
	}
	dir := t.TempDir()
	secret, public := filepath.Join(dir, "secret"), filepath.Join(dir, "public")
	if out, err := exec.Command(tool, "--generate-binary-cache-key", "k-1", secret, public).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	key, err := narinfo.ParseSecretKey(readFile(t, secret))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := key.Public(), readFile(t, public); got != want {
		t.Errorf("public key %q, Nix says %q", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example.Text())
	f.Add([]byte("StorePath: x\nNarHash: y\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := narinfo.Parse(text)
		if err != nil || n.Check("/nix/store") != nil {
			return
		}
		if n.Compression == "bzip2" && n.URL == "" {
			n.Compression = ""
		}
		again, err := narinfo.Parse(n.Text())
		if err != nil {
			t.Fatalf("what was written is not read: %v\n%s", err, n.Text())
		}
		if !bytes.Equal(again.Text(), n.Text()) || again.Fingerprint() != n.Fingerprint() {
			t.Fatalf("read back differently:\n%s\n%s", n.Text(), again.Text())
		}
	})
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
