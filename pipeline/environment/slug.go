package environment

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
)

const (
	// maxLabel is how long a DNS label may be (RFC 1035), and with it a
	// namespace and GitLab's slug.
	maxLabel = 63
	// hashLength is of the suffix that tells branches apart: 32 bits.
	hashLength = 8

	reviewPrefix = string(Review) + "-"
)

// RefSlug is what GitLab makes CI_COMMIT_REF_SLUG of a ref: in lower case, all
// but 0-9 and a-z replaced with "-", at most 63 characters, no "-" at the ends.
// Two refs may have the same, and a ref such as "日本" has an empty one.
func RefSlug(ref string) string {
	slug := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(ref))
	return strings.Trim(slug[:min(len(slug), maxLabel)], "-")
}

// hashed matches a slug that ends as one with a hash does.
var hashed = regexp.MustCompile(`(^|-)[0-9a-f]{8}$`)

// branchSlug returns a DNS label of at most limit characters that no other
// branch has. A branch that is such a label is its own; any other gets as much
// of its slug as fits and a hash of its name. A label that could be mistaken for
// one with a hash gets one too. limit is more than hashLength.
func branchSlug(branch string, limit int) string {
	slug := RefSlug(branch)
	if slug == branch && len(slug) <= limit && !hashed.MatchString(slug) {
		return slug
	}
	sum := sha256.Sum256([]byte(branch))
	hash := hex.EncodeToString(sum[:])[:hashLength]
	slug = strings.TrimRight(slug[:min(len(slug), limit-hashLength-1)], "-")
	if slug == "" {
		return hash
	}
	return slug + "-" + hash
}
