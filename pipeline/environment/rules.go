package environment

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// The rules that values are checked against return what is wrong with one, or
// nothing. None lets a space or a line break through: values end up in dotenv
// files, which cannot carry either.

// pattern makes a rule of an expression and of words for what it wants.
func pattern(expression, want string) func(string) string {
	re := regexp.MustCompile(`^(?:` + expression + `)$`)
	return func(value string) string {
		if re.MatchString(value) {
			return ""
		}
		return fmt.Sprintf("%q: want %s", value, want)
	}
}

const labelExpression = `[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?`

var (
	label       = pattern(labelExpression, "at most 63 of a-z, 0-9 and -, with no - at the ends")
	dnsName     = pattern(labelExpression+`(?:\.`+labelExpression+`)*`, "a name like cache.example.org, each part at most 63 of a-z, 0-9 and -")
	projectPath = pattern(`[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)+`, "a project as group/…/name")
	fileName    = pattern(`[A-Za-z0-9_][A-Za-z0-9_.-]*`, "a file name without directory, of letters, digits, _, . and -")
	word        = pattern(`[!-~]+`, "ASCII without spaces")
	// Spaces, $, { and }, which GitLab allows too, are of no use here.
	nameOfEnvironment = pattern(`[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*`, "what GitLab takes for an environment: letters, digits, _, ., - and / between")
)

// maxName is how long an environment's name may be in GitLab.
const maxName = 255

func environmentName(value string) string {
	if len(value) > maxName {
		return fmt.Sprintf("%q: longer than %d characters", value, maxName)
	}
	return nameOfEnvironment(value)
}

// tiers are GitLab's: https://docs.gitlab.com/ci/environments/#deployment-tier-of-environments
var tiers = []string{"production", "staging", "testing", "development", "other"}

func tier(value string) string {
	if slices.Contains(tiers, value) {
		return ""
	}
	return fmt.Sprintf("%q: want one of GitLab's tiers: %s", value, strings.Join(tiers, ", "))
}

// maxHost is how long a name in the DNS may be.
const maxHost = 253

// reason is a rule's answer for an error.
func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
