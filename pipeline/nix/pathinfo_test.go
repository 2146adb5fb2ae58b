package nix

import (
	"cmp"
	"encoding/base64"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

func TestParsePathInfo(t *testing.T) {
	t.Parallel()
	hash := digest.Of([]byte("a NAR"))
	sri := "sha256-" + base64.StdEncoding.EncodeToString(hash[:])
	full := PathInfo{
		Path: "/s/b", NarHash: hash, NarSize: 120, References: []string{"/s/a", "/s/b"},
		Deriver: "/s/b.drv", Ultimate: true, Signatures: []string{"k-1:AA==", "k-2:BB=="},
	}
	source := PathInfo{Path: "/s/a", NarHash: hash, NarSize: 96, References: []string{}, CA: "fixed:r:sha256:x"}
	for name, tt := range map[string]struct {
		text string
		want []PathInfo
	}{
		"nothing": {`[]`, []PathInfo{}},
		"array, as of 2.8": {`[{"path":"/s/a","narHash":"` + sri + `","narSize":96,"references":[],"ca":"fixed:r:sha256:x","registrationTime":1},
			{"path":"/s/b","narHash":"` + sri + `","narSize":120,"references":["/s/a","/s/b"],"deriver":"/s/b.drv",
			 "registrationTime":1,"ultimate":true,"signatures":["k-1:AA==","k-2:BB=="]}]`, []PathInfo{source, full}},
		"object, as of 2.26": {`{"/s/b":{"ca":null,"deriver":"/s/b.drv","narHash":"` + sri + `","narSize":120,
			"references":["/s/a","/s/b"],"registrationTime":1,"signatures":["k-1:AA==","k-2:BB=="],"ultimate":true},
			"/s/a":{"ca":"fixed:r:sha256:x","deriver":null,"narHash":"` + sri + `","narSize":96,"references":[],
			"registrationTime":1,"signatures":null,"ultimate":false}}`, []PathInfo{source, full}},
		"base 32, as of 2.4": {`[{"path":"/s/a","narHash":"` + hash.Nix() + `","narSize":96,"references":[],"ca":"fixed:r:sha256:x"}]`, []PathInfo{source}},
		"hexadecimal":        {`[{"path":"/s/a","narHash":"sha256:` + hash.String() + `","narSize":96,"references":[],"ca":"fixed:r:sha256:x"}]`, []PathInfo{source}},
	} {
		got, err := parsePathInfo([]byte(tt.text))
		slices.SortFunc(got, func(a, b PathInfo) int { return cmp.Compare(a.Path, b.Path) }) // an object has no order
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, tt.want)
		}
	}
	for name, tt := range map[string]struct{ text, says string }{
		"no JSON":             {`error: …`, "invalid character"},
		"a path not valid":    {`{"/s/a":null}`, "/s/a is not valid"},
		"one of 2.8":          {`[{"path":"/s/a","valid":false}]`, "/s/a"},
		"a short hash":        {`[{"path":"/s/a","narHash":"sha256-AAAA"}]`, "malformed hash"},
		"another hash":        {`[{"path":"/s/a","narHash":"sha512-AAAA"}]`, "malformed hash"},
		"base 64 that is not": {`[{"path":"/s/a","narHash":"sha256-` + strings.Repeat("*", 44) + `"}]`, "malformed hash"},
	} {
		if got, err := parsePathInfo([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %+v, %v, want an error with %q", name, got, err, tt.says)
		}
	}
}

func TestWhereAPathComesFrom(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		info                            PathInfo
		derivation, source, substituted bool
	}{
		"built":              {info: PathInfo{Path: "/s/a", Deriver: "/s/a.drv", Ultimate: true}},
		"substituted":        {info: PathInfo{Path: "/s/a", Deriver: "/s/a.drv", Signatures: []string{"k:A"}}, substituted: true},
		"no deriver told":    {info: PathInfo{Path: "/s/a", Signatures: []string{"k:A"}}, substituted: true},
		"a derivation":       {info: PathInfo{Path: "/s/a.drv", CA: "text:sha256:x"}, derivation: true, source: true},
		"a source":           {info: PathInfo{Path: "/s/a", CA: "fixed:r:sha256:x"}, source: true},
		"a source, fetched":  {info: PathInfo{Path: "/s/a", CA: "fixed:r:sha256:x", Signatures: []string{"k:A"}}, substituted: true},
		"a download, built":  {info: PathInfo{Path: "/s/a", CA: "fixed:sha256:x", Deriver: "/s/a.drv", Ultimate: true}},
		"a download, pulled": {info: PathInfo{Path: "/s/a", CA: "fixed:sha256:x", Deriver: "/s/a.drv"}, substituted: true},
	} {
		if d, s, f := tt.info.Derivation(), tt.info.Source(), tt.info.Substituted(); d != tt.derivation || s != tt.source || f != tt.substituted {
			t.Errorf("%s: derivation %t, source %t, substituted %t", name, d, s, f)
		}
	}
}

func TestClosureByNix(t *testing.T) {
	t.Parallel()
	n, s := realNix(t)
	results := s.Build(t, someClosure, "top", "other")
	infos, err := n.Closure(t.Context(), results)
	if err != nil {
		t.Fatal(err)
	}
	checkClosure(t, infos, strings.Fields(s.Run(t, "nix-store", append([]string{"--query", "--requisites"}, results...)...)))

	if infos, err := n.Closure(t.Context(), nil); len(infos) != 0 || err != nil {
		t.Errorf("of nothing, got %v, %v", infos, err)
	}
	if _, err := n.Closure(t.Context(), []string{filepath.Join(s.Dir, strings.Repeat("0", 32)+"-absent")}); err == nil ||
		!strings.Contains(err.Error(), "is not valid") {
		t.Errorf("of a path that is not there, got %v", err)
	}
}
