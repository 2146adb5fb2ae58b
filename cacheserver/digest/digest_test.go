package digest_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// The SHA-256 of nothing, as sha256sum and `nix-hash --to-base32` write it.
const (
	hexOfNothing   = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	nix32OfNothing = "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
)

func TestParse(t *testing.T) {
	t.Parallel()
	nothing := digest.Of(nil)
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"hexadecimal":             {hexOfNothing, true},
		"hexadecimal, named":      {"sha256:" + hexOfNothing, true},
		"hexadecimal, capitals":   {strings.ToUpper(hexOfNothing), true},
		"base 32":                 {nix32OfNothing, true},
		"base 32, named":          {"sha256:" + nix32OfNothing, true},
		"base 32, capitals":       {strings.ToUpper(nix32OfNothing), false},
		"nothing":                 {"", false},
		"a name only":             {"sha256:", false},
		"named twice":             {"sha256:sha256:" + hexOfNothing, false},
		"another algorithm":       {"md5:" + nix32OfNothing, false},
		"a name in capitals":      {"SHA256:" + hexOfNothing, false},
		"an SRI hash":             {"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", false},
		"a digit short":           {hexOfNothing[1:], false},
		"a digit long":            {hexOfNothing + "0", false},
		"a character short":       {nix32OfNothing[1:], false},
		"a character long":        {"0" + nix32OfNothing, false},
		"no hexadecimal digit":    {"g" + hexOfNothing[1:], false},
		"a space":                 {" " + hexOfNothing[1:], false},
		"a newline":               {hexOfNothing[1:] + "\n", false},
		"not of base 32":          {"0e" + nix32OfNothing[2:], false},
		"a byte above 127":        {"0\xff" + nix32OfNothing[2:], false},
		"base 32 of 257 bits":     {"2" + nix32OfNothing[1:], false},
		"base 32 of 260 bits":     {strings.Repeat("z", 52), false},
		"a path that climbs":      {"../" + nix32OfNothing[3:], false},
		"a long text of nonsense": {strings.Repeat("x", 1<<20), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, err := digest.Parse(c.text)
			switch {
			case c.ok && (err != nil || h != nothing):
				t.Errorf("got %s, %v", h, err)
			case !c.ok && !errors.Is(err, digest.ErrMalformed):
				t.Errorf("got %s, %v; want ErrMalformed", h, err)
			case !c.ok && h != digest.Hash{}:
				t.Errorf("an error, and with it %s", h)
			case !c.ok && len(err.Error()) > 500:
				t.Errorf("an error of %d bytes quotes what it was given", len(err.Error()))
			}
		})
	}
}

func TestEveryWayToWriteAHashIsRead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var h digest.Hash
		copy(h[:], rapid.SliceOfN(rapid.Byte(), digest.Size, digest.Size).Draw(rt, "hash"))
		for _, text := range []string{h.String(), "sha256:" + h.String(), h.Nix32(), h.Nix()} {
			if got, err := digest.Parse(text); err != nil || got != h {
				rt.Errorf("Parse(%q) = %s, %v; want %s", text, got, err, h)
			}
		}
	})
}

func TestNixWritesTheSameBase32(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("nix-hash")
	if err != nil {
		t.Skip("nix-hash is not installed: the comparison needs it")
	}
	for _, b := range []string{"", "a", "some more"} {
		h := digest.Of([]byte(b))
		out, err := exec.Command(tool, "--type", "sha256", "--to-base32", h.String()).Output()
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.TrimSpace(string(out)); h.Nix32() != want {
			t.Errorf("%s is %s in base 32, Nix says %s", h, h.Nix32(), want)
		}
	}
}

func TestADigestIsWrittenAsBazelWritesIt(t *testing.T) {
	t.Parallel()
	d := digest.Digest{Hash: digest.Of(nil), Size: 42}
	if got, want := d.String(), hexOfNothing+"/42"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{hexOfNothing, "sha256:" + hexOfNothing, nix32OfNothing, "sha256:" + nix32OfNothing, "", "sha256:", "2" + nix32OfNothing[1:]} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := digest.Parse(s)
		if err != nil {
			if !errors.Is(err, digest.ErrMalformed) {
				t.Fatalf("%v is not ErrMalformed", err)
			}
			return
		}
		// One hash has one text of each kind: two names of one thing would be
		// two URLs of one NAR.
		body := strings.TrimPrefix(s, "sha256:")
		if body != h.Nix32() && strings.ToLower(body) != h.String() {
			t.Fatalf("Parse(%q) = %s, which is written %s or %s", s, h, h.String(), h.Nix32())
		}
	})
}
