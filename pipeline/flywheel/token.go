package flywheel

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// useToken makes nix send their tokens to the caches, too. Nix knows credentials
// from a netrc file only: this run's holds the user's own entries behind ours.
// Nothing but the file's name is ever printed or passed as an argument.
func (r *run) useToken(urls []string) error {
	urls = slices.DeleteFunc(slices.Clone(urls), func(u string) bool { return r.tokens[u] == "" })
	if len(urls) == 0 {
		return nil
	}
	dir, err := os.MkdirTemp("", "flywheel-")
	if err != nil {
		return fmt.Errorf("writing a netrc for nix: %w", err)
	}
	r.secrets = dir
	var b strings.Builder
	for _, u := range urls {
		if parsed, err := url.Parse(u); err == nil {
			fmt.Fprintf(&b, "machine %s\nlogin flywheel\npassword %s\n", parsed.Hostname(), r.tokens[u])
		}
	}
	if own, err := os.ReadFile(r.settings.NetrcFile); err == nil {
		b.Write(own)
	}
	file := filepath.Join(dir, "netrc")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("writing a netrc for nix: %w", err)
	}
	r.nix.Configure("netrc-file = " + file)
	return nil
}
