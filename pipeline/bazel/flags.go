package bazel

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Download is which outputs Bazel fetches from the cache.
type Download string

const (
	// Minimal fetches none but what actions that run here need.
	Minimal Download = "minimal"
	// TopLevel fetches those of the targets that were asked for, too.
	TopLevel Download = "toplevel"
	// All fetches every output of every action.
	All Download = "all"
)

// ParseDownload reads a Download.
func ParseDownload(text string) (Download, error) {
	all := []Download{Minimal, TopLevel, All}
	if d := Download(text); slices.Contains(all, d) {
		return d, nil
	}
	return "", fmt.Errorf("%.80q: want minimal, toplevel or all", text)
}

// timeout is how many seconds Bazel waits for one call. Its builds go on without
// the cache then.
const timeout = 60

// Settings are how Bazel is to use a cache.
type Settings struct {
	Cache    Cache
	Version  Version
	Download Download
	// Token is shown to the cache; nothing is when it is empty. Whoever can read the
	// flags can read it.
	Token string
}

// Flags returns the flags of "bazel build", and of all commands that build.
func (s Settings) Flags() []string {
	c := s.Cache
	flags := []string{"--remote_cache=" + c.Remote}
	if c.Instance != "" {
		flags = append(flags, "--remote_instance_name="+c.Instance)
	}
	// True would be an error to Bazel where the cache says that it takes nothing.
	flags = append(flags, fmt.Sprintf("--remote_upload_local_results=%t", c.Writable))
	if s.Download == All {
		flags = append(flags, "--remote_download_outputs=all")
	} else {
		// In old versions these mean more than --remote_download_outputs.
		flags = append(flags, "--remote_download_"+string(s.Download))
	}
	flags = append(flags, fmt.Sprintf("--remote_timeout=%d", timeout), "--remote_local_fallback")
	if c.Zstd {
		switch {
		case !s.Version.Less(Version{7, 0}):
			flags = append(flags, "--remote_cache_compression")
		case !s.Version.Less(Version{5, 0}):
			flags = append(flags, "--experimental_remote_cache_compression")
		}
	}
	if s.Token != "" {
		flags = append(flags, "--remote_header=Authorization=Bearer "+s.Token)
	}
	return flags
}

// Off returns the flags with which Bazel uses no cache, whatever a .bazelrc says: a
// gRPC cache that is away would fail its commands before they begin.
func Off() []string { return []string{"--remote_cache="} }

// RC returns flags as lines of a .bazelrc.
func RC(flags []string) string {
	var b strings.Builder
	for _, f := range flags {
		fmt.Fprintf(&b, "build %s\n", quote(f))
	}
	return b.String()
}

// quote writes a flag so that Bazel's tokenizer of .bazelrc, which is a shell's
// without expansions, reads it as it is.
func quote(flag string) string {
	if !strings.ContainsAny(flag, " \t\"'\\#") {
		return flag
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(flag) + `"`
}

// CredentialFlag is the flag that names a program which tells Bazel the token;
// empty where the version has none.
func (s Settings) CredentialFlag(program string) string {
	u, err := url.Parse(s.Cache.Remote)
	if err != nil {
		return ""
	}
	switch {
	case !s.Version.Less(Version{7, 0}):
		return "--credential_helper=" + u.Hostname() + "=" + program
	case !s.Version.Less(Version{6, 0}):
		return "--experimental_credential_helper=" + u.Hostname() + "=" + program
	}
	return ""
}
