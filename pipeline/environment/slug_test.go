package environment_test

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/environment"
)

func TestRefSlug(t *testing.T) {
	t.Parallel()
	for ref, want := range map[string]string{
		"main":                         "main",
		"Feature/ABC_123":              "feature-abc-123",
		"release/1.2":                  "release-1-2",
		"--x--":                        "x",
		"a//b":                         "a--b",
		"größe":                        "gr--e",
		"日本":                           "",
		"":                             "",
		"\xff\xfe":                     "",
		strings.Repeat("a", 64):        strings.Repeat("a", 63),
		strings.Repeat("a", 62) + "/b": strings.Repeat("a", 62),
		"/" + strings.Repeat("a", 70):  strings.Repeat("a", 62), // cut before it is trimmed, as GitLab does
	} {
		if got := environment.RefSlug(ref); got != want {
			t.Errorf("RefSlug(%q) = %q, want %q", ref, got, want)
		}
	}
}

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// branches draws names with what makes trouble: long ones that share their
// beginning, ones that differ only in what a slug drops, and ones that look as
// if they had a hash.
func branches() *rapid.Generator[string] {
	part := rapid.OneOf(
		rapid.StringMatching(`[a-z0-9-]{1,20}`),
		rapid.StringMatching(`[A-Za-z0-9/_.-]{1,20}`),
		rapid.StringN(1, 10, -1),
		rapid.StringMatching(`-[0-9a-f]{8}`),
		rapid.Just(strings.Repeat("long-", 15)),
	)
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(part, 1, 4).Draw(t, "parts"), "")
	})
}

// neighbours are names that a careless slug would not tell from a branch.
func neighbours(branch string) []string {
	sum := sha256.Sum256([]byte(branch))
	slug := environment.RefSlug(branch)
	return []string{
		strings.ToUpper(branch), strings.ReplaceAll(branch, "/", "-"), branch + "-", branch + "x", "-" + branch,
		slug, slug + "-" + hex.EncodeToString(sum[:4]), hex.EncodeToString(sum[:4]),
	}
}

func TestEveryBranchHasAnEnvironmentOfItsOwn(t *testing.T) {
	t.Parallel()
	c := builtIn(t)
	rapid.Check(t, func(t *rapid.T) {
		branch := branches().Draw(t, "branch")
		seen := map[string]string{}
		for _, b := range append(neighbours(branch), branch, branches().Draw(t, "other")) {
			if b == "" {
				continue
			}
			e, err := environment.Map(c, environment.OfMergeRequest(b))
			if err != nil {
				t.Fatal(err)
			}
			label, _, _ := strings.Cut(e.Host, ".")
			for _, l := range []string{e.Namespace, e.Slug, label} {
				if !dnsLabel.MatchString(l) {
					t.Fatalf("branch %q: %q is no DNS label", b, l)
				}
				if other, ok := seen[l]; ok && other != b {
					t.Fatalf("branches %q and %q share %q", b, other, l)
				}
			}
			if rest := strings.TrimPrefix(e.Slug, "review-"); rest == e.Slug || !strings.HasSuffix(e.Namespace, rest) {
				t.Fatalf("slug %q and namespace %q do not belong together", e.Slug, e.Namespace)
			}
			for _, l := range []string{e.Namespace, e.Slug, label} {
				seen[l] = b
			}
		}
	})
}

// A branch keeps its namespace, whatever becomes of this package: an environment
// that was deployed before an update has to be found by the stop job after it.
func TestSlugsStayWhatTheyWere(t *testing.T) {
	t.Parallel()
	for branch, want := range map[string]string{
		"fix-cache":             "review-fix-cache",
		"feature/x":             "review-feature-x-217d2bf5",
		"release-2024-20240131": "review-release-2024-20240131-3337b25c",
		"日本":                    "review-cf2abf0c",
		strings.Repeat("a", 44): "review-" + strings.Repeat("a", 44),
		strings.Repeat("a", 45): "review-" + strings.Repeat("a", 35) + "-",
	} {
		e, err := environment.Map(builtIn(t), environment.OfMergeRequest(branch))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(e.Slug, want) || len(e.Namespace) > 63 {
			t.Errorf("branch %q: got %q, want %q", branch, e.Slug, want)
		}
	}
}
