package environment

import (
	"fmt"
	"regexp"
	"strings"
)

// minSlug is how much of a name has to be left for a branch: some of its own
// letters before the hash.
const minSlug = hashLength + 12

// field is one of a rule's values that may hold placeholders.
type field struct {
	key, value string
	branch     string // placeholder that a review has in it once, and no other kind
	domain     bool   // {domain} may end it
	rule       func(string) string
	longest    int // characters of a branch in it
}

// check finds what is wrong with a rule by itself.
func (r Rule) check(kind Kind, t *table) {
	if r.Blocking && !r.Manual {
		t.fault("blocking", "only a manual deployment can be waited for: it needs manual = true")
	}
	for _, f := range []field{
		{"name", r.Name, "{ref}", false, environmentName, maxLabel},
		{"namespace", r.Namespace, "{slug}", false, label, r.slugLimit()},
		{"host", r.Host, "{slug}", true, dnsName, r.slugLimit()},
	} {
		if f.value == "" {
			continue // told already
		}
		if reason := f.check(kind); reason != "" {
			t.fault(f.key, "%s", reason)
		}
	}
}

func (f field) check(kind Kind) string {
	rest := f.value
	if kind == Review {
		if strings.Count(f.value, f.branch) != 1 {
			return fmt.Sprintf("%q: want %s in it once: every branch has an environment of its own", f.value, f.branch)
		}
		rest = strings.Replace(rest, f.branch, "", 1)
	}
	if f.domain {
		rest = strings.TrimSuffix(rest, ".{domain}")
	}
	if unknown := placeholder.FindString(rest); unknown != "" {
		return fmt.Sprintf("%q: there is no %s at this place", f.value, unknown)
	}
	if left := labelRest(f.value); left < minSlug {
		return fmt.Sprintf("%q: leaves %d characters for the branch, want %d at least", f.value, max(left, 0), minSlug)
	}
	sample := sampleOf(f.value, f.longest)
	reason := f.rule(sample)
	if reason != "" && sample != f.value {
		reason += fmt.Sprintf("; it is made of %q", f.value)
	}
	return reason
}

var placeholder = regexp.MustCompile(`\{[^{}]*\}?|\}`)

// sampleOf fills placeholders in, with a branch of so many characters.
func sampleOf(value string, branch int) string {
	x := strings.Repeat("x", max(branch, 1)) // other faults can leave none
	return strings.NewReplacer("{ref}", x, "{slug}", x, "{domain}", "example.org").Replace(value)
}

// labelRest returns how many characters {slug} may have for its label not to be
// too long.
func labelRest(value string) int {
	for part := range strings.SplitSeq(value, ".") {
		if before, after, ok := strings.Cut(part, "{slug}"); ok {
			return maxLabel - len(before) - len(after)
		}
	}
	return maxLabel
}

// slugLimit is how long {slug} may be in all that the rule makes of it, and in
// Environment.Slug.
func (r Rule) slugLimit() int {
	return min(labelRest(r.Namespace), labelRest(r.Host), maxLabel-len(reviewPrefix))
}
