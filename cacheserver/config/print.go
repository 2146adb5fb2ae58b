package config

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
)

// toml is a setting's value as it stands in the file.
func (x *Setting) toml(text string) string {
	switch x.Value.Type() {
	case kindBool, kindInt:
		return text
	}
	return strconv.Quote(text)
}

// Show prints the settings that are in effect as TOML, each with where it comes
// from. Secrets are masked.
func (s *Settings) Show(out io.Writer) error {
	w := bufio.NewWriter(out)
	for _, section := range s.sections {
		fmt.Fprintf(w, "# %s\n", section.title)
		for _, x := range section.settings {
			origin := x.origin
			if origin == "" {
				origin = "default"
			}
			if x.key() == authKey && x.origin == "" && s.authDoc != nil {
				continue // the table stands below, and there is one of the two
			}
			fmt.Fprintf(w, "%s = %s # %s\n", x.key(), x.toml(x.shown()), origin)
		}
		fmt.Fprintln(w)
	}
	for _, c := range s.Server.Caches {
		showCache(w, c, s.doc.name)
	}
	if s.authDoc != nil && s.AuthFile == "" {
		if err := s.showAuth(w); err != nil {
			return err
		}
	}
	return w.Flush()
}

func showCache(w io.Writer, c cacheserver.DeclaredCache, file string) {
	fmt.Fprintf(w, "[[cache]] # %s\nname = %q\n", file, c.Name)
	if c.Public != nil {
		fmt.Fprintf(w, "public = %t\n", *c.Public)
	}
	if c.Priority != nil {
		fmt.Fprintf(w, "priority = %d\n", *c.Priority)
	}
	if c.Retention != nil {
		fmt.Fprintf(w, "retention = %q\n", RetentionText(*c.Retention))
	}
	if c.UpstreamKeys != nil {
		fmt.Fprintf(w, "upstream_keys = %s\n", textList(c.UpstreamKeys))
	}
	for _, u := range c.Upstreams {
		fmt.Fprintf(w, "[[cache.upstreams]]\nurl = %q\npublic_keys = %s\n", withoutPassword(u.URL), textList(u.PublicKeys))
	}
	fmt.Fprintln(w)
}

func textList(texts []string) string {
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = strconv.Quote(t)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// showAuth prints the table [auth] as it stands in the file, but for its keys.
func (s *Settings) showAuth(w io.Writer) error {
	given, _ := s.authDoc.values[authKey].(map[string]any)
	shown := map[string]any{}
	for key, value := range given {
		if list, ok := value.([]any); ok && (key == "hs256_secrets" || key == "rs256_keys") {
			masked := make([]string, len(list))
			for i := range masked {
				masked[i] = "…"
			}
			value = masked
		}
		shown[key] = value
	}
	fmt.Fprintf(w, "# %s\n", s.authDoc.name)
	encoder := toml.NewEncoder(w)
	encoder.Indent = ""
	if err := encoder.Encode(map[string]any{authKey: shown}); err != nil {
		return fmt.Errorf("writing the table [auth]: %w", err)
	}
	return nil
}

// Example prints a file with every setting at its default, and what it means.
func Example(out io.Writer) error {
	w := bufio.NewWriter(out)
	fmt.Fprint(w, exampleHead)
	for _, section := range New().sections {
		fmt.Fprintf(w, "\n## %s\n", section.title)
		for _, x := range section.settings {
			fmt.Fprintf(w, "\n# %s\n", strings.ReplaceAll(x.Help, "`", ""))
			if x.Variable != "" {
				fmt.Fprintf(w, "# (in the environment also %s)\n", x.Variable)
			}
			line := x.key() + " = " + x.toml(x.flag.DefValue)
			if x.Secret {
				line = "# " + line
			}
			fmt.Fprintln(w, line)
		}
	}
	fmt.Fprint(w, exampleTables)
	return w.Flush()
}

const exampleHead = `# The configuration of cacheserver: every setting, at its default. Each is also a
# flag and an environment variable, which go before this file: max_size is
# --max-size and CACHESERVER_MAX_SIZE. Names of files are relative to the
# directory that the server is started in.
`

const exampleTables = `
## Caches. Those that are missing are made when the server starts, and what is set
## here is set of those that are there. None is ever removed.

# [[cache]]
# name = "main"                          # answers at the root as well
# public = true                          # anyone may read it
# priority = 41                          # Nix asks those with a lower one first
# retention = "global"                   # or days such as "30d", or "off" for ever
# upstream_keys = ["cache.nixos.org-1"]  # what these signed need not be pushed

# [[cache.upstreams]]                    # where it looks for what it does not have
# url = "https://cache.nixos.org"
# public_keys = ["cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="]

## Who may do what. Without this table, everyone everything. It may stand in a file
## of its own instead: auth = "auth.toml" in its place.

# [auth]
# enabled = true                         # the default, where the table is there
# hs256_files = ["hs256.key"]            # of cacheserver token key
# [[auth.anonymous]]                     # what anybody may do
# caches = ["main"]
# rights = ["pull"]
# [[auth.oidc]]                          # jobs of a GitLab
# issuer = "https://gitlab.example.org"
# audiences = ["https://cache.example.org"]
# [[auth.oidc.rules]]
# claims = { project_path = "bates/*", ref_protected = true }
# caches = ["main"]
# rights = ["pull", "push"]
`
