package environment

import "regexp"

// ReleaseTag is what the tag of a release looks like, in the syntax that Go and
// GitLab's rules share: v and three numbers without leading zeros. A pre-release
// (v1.2.3-rc.1) is none, since production takes releases only, and nor is a
// version with build metadata (v1.2.3+1): it has the same precedence as v1.2.3,
// so that two tags would be one version.
const ReleaseTag = `^v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$`

var (
	release = regexp.MustCompile(ReleaseTag)
	// more matches the versions of semver.org that are no releases.
	more = regexp.MustCompile(`^v(?:(?:0|[1-9]\d*)\.){2}(?:0|[1-9]\d*)` +
		`(-(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?` +
		`(\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?$`)
)

// notReleased says why a tag is not that of a release; empty when it is.
func notReleased(tag string) string {
	if release.MatchString(tag) {
		return ""
	}
	switch parts := more.FindStringSubmatch(tag); {
	case parts == nil:
		return "it is no version v1.2.3"
	case parts[1] != "":
		return "it is a pre-release, and production takes releases only"
	default:
		return "it has build metadata, and releases have none"
	}
}
