// Package bazel makes Bazel use a remote cache: it asks a cache how it answers,
// and says with which flags a version of Bazel is to use it.
package bazel

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Version is one of Bazel's. The zero Version is one that is not known.
type Version struct{ Major, Minor int }

// Oldest is the oldest Version that the flags are for. What is not known is taken
// for it, so that no flag is one that Bazel refuses.
var Oldest = Version{4, 0}

func (v Version) String() string {
	if v == (Version{}) {
		return "unknown"
	}
	return fmt.Sprintf("%d.%d", v.Major, v.Minor)
}

// Less says whether v is older than w.
func (v Version) Less(w Version) bool {
	return v.Major < w.Major || v.Major == w.Major && v.Minor < w.Minor
}

var versionText = regexp.MustCompile(`^(?:bazel |release )?(\d{1,4})(?:\.(\d{1,4}))?(?:[.\-+ ].*)?$`)

// ParseVersion reads a version as people write it (8, 8.2, 8.2.1, 9.0.0-pre.1) and
// as Bazel prints it ("bazel 8.2.1").
func ParseVersion(text string) (Version, error) {
	m := versionText.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return Version{}, fmt.Errorf("%.80q is no version of Bazel such as 8.2.1", text)
	}
	var v Version
	var err error
	if v.Major, err = strconv.Atoi(m[1]); err != nil {
		return Version{}, err
	}
	if m[2] != "" {
		if v.Minor, err = strconv.Atoi(m[2]); err != nil {
			return Version{}, err
		}
	}
	if v.Less(Oldest) {
		return Version{}, fmt.Errorf("bazel %s is too old: %s is the oldest that is known", v, Oldest)
	}
	return v, nil
}

// detectTime is enough for Bazelisk to download the Bazel that it then asks.
const detectTime = time.Minute

// Detect asks a command which version it is, in the directory that it will run in
// (empty for the working directory), which may name one to Bazelisk. It starts no
// server of Bazel. Debian's bazel-bootstrap does not tell, for one.
func Detect(ctx context.Context, dir, command string) (Version, error) {
	ctx, cancel := context.WithTimeout(ctx, detectTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, command, "--version")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return Version{}, fmt.Errorf("%s --version: %w", command, err)
	}
	v, err := ParseVersion(string(out))
	if err != nil {
		return Version{}, fmt.Errorf("%s --version: %w", command, err)
	}
	return v, nil
}
