package auth_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
)

const every = auth.Pull | auth.Push | auth.Delete | auth.Create | auth.Configure | auth.ConfigureRetention | auth.Destroy

// What Attic's claims mean.
func TestRightsFollowTheContract(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, caches, cache string
		want                auth.Right
	}{
		{"each bit", `{"a":{"r":1,"w":1,"d":1,"cc":1,"cr":1,"cq":1,"cd":1}}`, "a", every},
		{"r is pull", `{"a":{"r":1}}`, "a", auth.Pull},
		{"w is push", `{"a":{"w":1}}`, "a", auth.Push},
		{"d is delete", `{"a":{"d":1}}`, "a", auth.Delete},
		{"cc is create", `{"a":{"cc":1}}`, "a", auth.Create},
		{"cr is configure", `{"a":{"cr":1}}`, "a", auth.Configure},
		{"cq is retention", `{"a":{"cq":1}}`, "a", auth.ConfigureRetention},
		{"cd is destroy", `{"a":{"cd":1}}`, "a", auth.Destroy},
		{"0 and absent", `{"a":{"r":0,"w":1}}`, "a", auth.Push},
		{"another cache", `{"a":{"r":1}}`, "b", 0},
		{"no prefix match", `{"a":{"r":1}}`, "ab", 0},
		{"case counts", `{"a":{"r":1}}`, "A", 0},
		{"a wildcard", `{"team-*":{"r":1}}`, "team-x", auth.Pull},
		{"a wildcard for nothing", `{"team-*":{"r":1}}`, "team-", auth.Pull},
		{"a wildcard in the middle", `{"a*z":{"r":1}}`, "a-to-z", auth.Pull},
		{"two wildcards", `{"*x*":{"r":1}}`, "axb", auth.Pull},
		{"a wildcard that does not match", `{"a*z":{"r":1}}`, "a-to-y", 0},
		{"everything", `{"*":{"r":1}}`, "whatever", auth.Pull},
		{"the exact key before an earlier wildcard", `{"*":{"r":1,"d":1},"a":{"w":1}}`, "a", auth.Push},
		{"the exact key without rights", `{"*":{"r":1},"a":{}}`, "a", 0},
		{"the first wildcard", `{"z*":{"r":1},"*":{"w":1}}`, "z1", auth.Pull},
		{"the first wildcard, though it is wider", `{"*":{"w":1},"z*":{"r":1}}`, "z1", auth.Push},
		{"the first in the document, not in the alphabet", `{"b*":{"r":1},"a*":{"w":1},"*":{"d":1}}`, "c", auth.Delete},
		{"no adding up", `{"a*":{"r":1},"ab*":{"w":1}}`, "abc", auth.Pull},
		{"a later right's name", `{"a":{"r":1,"zz":7}}`, "a", auth.Pull},
		{"no caches", `{}`, "a", 0},
		{"a pattern is no cache", `{"a*":{"r":1}}`, "a*", 0},
		{"nor is every pattern", `{"*":{"r":1}}`, "*", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, err := auth.RightsIn(fmt.Appendf(nil, `{"sub":"x",%q:{"caches":%s}}`, namespace, test.caches))
			if err != nil {
				t.Fatal(err)
			}
			if got := r.On(test.cache); got != test.want {
				t.Errorf("rights on %s: %v, want %v", test.cache, got, test.want)
			}
		})
	}
}

func TestMalformedRightsGiveNone(t *testing.T) {
	t.Parallel()
	for _, claim := range []string{
		`null`, `1`, `[]`, `"x"`,
		`{"caches":null}`, `{"caches":[]}`, `{"caches":"*"}`,
		`{"caches":{"a":null}}`, `{"caches":{"a":1}}`, `{"caches":{"a":[]}}`,
		`{"caches":{"a":{"r":true}}}`, `{"caches":{"a":{"r":"1"}}}`, `{"caches":{"a":{"r":2}}}`,
		`{"caches":{"a":{"r":-1}}}`, `{"caches":{"a":{"r":1.0}}}`, `{"caches":{"a":{"r":null}}}`,
		`{"caches":{"":{"r":1}}}`, `{"caches":{"-a":{"r":1}}}`, `{"caches":{"a/b":{"r":1}}}`, `{"caches":{"a?":{"r":1}}}`,
		`{"caches":{"` + strings.Repeat("a", 51) + `":{"r":1}}}`,
		`{"caches":{"a":{"r":1},"a":{"r":0}}}`,
	} {
		r, err := auth.RightsIn(fmt.Appendf(nil, `{%q:%s}`, namespace, claim))
		if !errors.Is(err, auth.ErrMalformed) {
			t.Errorf("%s: error %v, want ErrMalformed", claim, err)
		}
		if len(r) > 0 && err == nil {
			t.Errorf("%s: gives %v", claim, r)
		}
	}
	if r, err := auth.RightsIn(fmt.Appendf(nil, `{%q:{}}`, namespace)); err != nil || len(r) != 0 {
		t.Errorf("no caches: %v, %v", r, err)
	}
	if _, err := auth.RightsIn(fmt.Appendf(nil, `{%q:{"caches":{"a":{"r":1}}}}`, strings.ToUpper(namespace))); err == nil {
		t.Error("the claim in capitals was taken")
	}
}

func TestGrantsAddUpWhereOnePatternCoversAnother(t *testing.T) {
	t.Parallel()
	r, err := auth.NewRights(
		auth.Grant{Pattern: "*", Rights: auth.Delete},
		auth.Grant{Pattern: "main*", Rights: auth.Pull},
		auth.Grant{Pattern: "main", Rights: auth.Push},
		auth.Grant{Pattern: "main", Rights: auth.Create},
	)
	if err != nil {
		t.Fatal(err)
	}
	for cache, want := range map[string]auth.Right{
		"main":  auth.Delete | auth.Pull | auth.Push | auth.Create,
		"main2": auth.Delete | auth.Pull,
		"other": auth.Delete,
	} {
		if got := r.On(cache); got != want {
			t.Errorf("%s: %v, want %v", cache, got, want)
		}
	}
	if _, err := auth.NewRights(auth.Grant{Pattern: "a b", Rights: auth.Pull}); err == nil {
		t.Error("a space in a pattern was taken")
	}
	// The second says less although it has more stars.
	r, err = auth.NewRights(
		auth.Grant{Pattern: "*a*", Rights: auth.Push},
		auth.Grant{Pattern: "***a", Rights: auth.Pull},
	)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.On("a"); got != auth.Pull|auth.Push {
		t.Errorf("a: %v of %v, want pull and push", got, r)
	}
}

var patterns = rapid.StringMatching(`[ab*]{1,4}`)

// Whoever is granted something with a pattern has it on the caches that match,
// whatever else is granted, and nobody has what was not granted.
func TestGrantsOverlap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		cache := rapid.StringMatching(`[ab]{1,5}`).Draw(t, "cache")
		grants := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) auth.Grant {
			return auth.Grant{
				Pattern: patterns.Draw(t, "pattern"),
				Rights:  rapid.SampledFrom(auth.AllRights()).Draw(t, "right"),
			}
		}), 0, 5).Draw(t, "grants")
		r, err := auth.NewRights(grants...)
		if err != nil {
			t.Fatal(err)
		}
		var granted auth.Right
		var hits []string
		for _, g := range grants {
			if g.Pattern == cache || auth.Matches(g.Pattern, cache) {
				granted |= g.Rights
				hits = append(hits, g.Pattern)
			}
		}
		got := r.On(cache)
		if got&^granted != 0 {
			t.Fatalf("%s has %v of %v", cache, got, r)
		}
		chain := true // of any two patterns one covers the other
		for _, a := range hits {
			for _, b := range hits {
				chain = chain && (auth.Matches(a, b) || auth.Matches(b, a))
			}
		}
		if chain && got != granted {
			t.Fatalf("%s has %v of %v, want %v", cache, got, r, granted)
		}

		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back auth.Rights
		if err := json.Unmarshal(text, &back); err != nil || !slices.Equal(r, back) && len(r)+len(back) > 0 {
			t.Fatalf("%s is %v after a round trip, was %v; error %v", text, back, r, err)
		}
	})
}

func TestStarsMatchAsInARegularExpression(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab/*]{0,6}`).Draw(t, "pattern")
		text := rapid.StringMatching(`[ab/]{0,8}`).Draw(t, "text")
		want := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$").MatchString(text)
		if got := auth.Matches(pattern, text); got != want {
			t.Fatalf("%q matches %q: %v, want %v", pattern, text, got, want)
		}
	})
}

func TestRightsAreNamedOnce(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, r := range auth.AllRights() {
		var back auth.Right
		if err := back.UnmarshalText([]byte(r.String())); err != nil || back != r || names[r.String()] || bits.OnesCount(uint(r)) != 1 {
			t.Errorf("%v reads back as %v, error %v", r, back, err)
		}
		names[r.String()] = true
	}
	if s := auth.Right(0).String(); s != "none" {
		t.Errorf("no rights are %q", s)
	}
	var r auth.Right
	if err := r.UnmarshalText([]byte("write")); err == nil || !strings.Contains(err.Error(), "configure-cache-retention") {
		t.Errorf("an unknown right: %v", err)
	}
}
