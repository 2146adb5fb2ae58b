package nixconf

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Use lets a nix.conf use a cache: Nix pulls from it, trusts its keys, and builds
// by itself while it is away. With a token, the netrc file gets an entry; a netrc
// file that was not there can be read by its owner only. What is as it should be
// already stays as it is; changed says whether anything was not.
func Use(file string, c Cache, token string) (changed bool, err error) {
	var more []string
	if token != "" {
		netrc, own, err := netrcOf(file)
		if err != nil {
			return false, err
		}
		changed, err = Edit(netrc, 0o600, func(t Text) (Text, error) { return t.Atop(c.URL, NetrcLines(c.URL, token)) })
		if err != nil {
			return false, err
		}
		if own {
			more = append(more, "netrc-file = "+netrc)
		}
	}
	edited, err := Edit(file, 0o644, func(t Text) (Text, error) { return useIn(t, c, more) })
	return changed || edited, err
}

// netrcOf returns the netrc file that goes with a nix.conf: the one that it
// names, or, as its own, one beside it.
func netrcOf(file string) (netrc string, own bool, err error) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", false, fmt.Errorf("reading %s: %w", file, err)
	}
	foreign, err := Text(text).Foreign()
	if err != nil {
		return "", false, fmt.Errorf("%s: %w", file, err)
	}
	settings, _ := foreign.Settings() // of a broken file, what stands before the fault
	for _, s := range slices.Backward(settings) {
		if s.Name == "netrc-file" && filepath.IsAbs(s.Value()) {
			return s.Value(), false, nil
		}
	}
	return filepath.Join(filepath.Dir(file), "netrc"), true, nil
}

// useIn is Use on the text of nix.conf; more are further lines of the block.
func useIn(t Text, c Cache, more []string) (Text, error) {
	foreign, err := t.Foreign()
	if err != nil {
		return nil, err
	}
	lines, err := Lines(c, foreign)
	if err != nil {
		return nil, err
	}
	behind, err := t.after(c.URL)
	if err != nil {
		return nil, err
	}
	hidden, err := behind.sets("substituters", "trusted-public-keys")
	if err != nil {
		return nil, err
	}
	if hidden {
		// Nix reads in order, and a later line that sets these anew forgets ours:
		// the block has to move behind it.
		if t, err = t.Without(c.URL); err != nil {
			return nil, err
		}
	}
	return t.With(c.URL, append(lines, more...))
}

// Lines returns the lines of nix.conf by which a cache is used. Of a setting
// that the rest of the file holds already, it is the owner's affair how it is.
func Lines(c Cache, rest Text) ([]string, error) {
	lines := []string{
		"extra-substituters = " + c.URL,
		"extra-trusted-public-keys = " + strings.Join(c.PublicKeys, " "),
	}
	for _, s := range []struct{ name, value string }{
		{"fallback", "true"},
		{"connect-timeout", "5"},
	} {
		set, err := rest.sets(s.name)
		if err != nil {
			return nil, err
		}
		if !set {
			lines = append(lines, s.name+" = "+s.value)
		}
	}
	return lines, nil
}

// NetrcLines returns the lines of a netrc file for a cache's token.
func NetrcLines(cache, token string) []string {
	host := cache
	if u, err := url.Parse(cache); err == nil {
		host = u.Hostname()
	}
	return []string{"machine " + host, "login flywheel", "password " + token}
}

// Remove takes back what Use wrote for a cache, or, with an empty URL, for all.
// It returns the caches that it found.
func Remove(file, cache string) ([]string, error) {
	cache = strings.TrimSuffix(cache, "/")
	netrc, _, err := netrcOf(file)
	if err != nil {
		return nil, err
	}
	var removed []string
	// The entry before the setting that names its file.
	for _, f := range []string{netrc, file} {
		if _, err := os.Stat(f); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		_, err := Edit(f, 0o600, func(t Text) (left Text, err error) {
			left, removed, err = cutOut(t, cache)
			return left, err
		})
		if err != nil {
			return nil, err
		}
	}
	return removed, nil
}

func cutOut(t Text, cache string) (left Text, removed []string, err error) {
	names, err := t.Names()
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		if cache != "" && name != cache {
			continue
		}
		if t, err = t.Without(name); err != nil {
			return nil, nil, err
		}
		removed = append(removed, name)
	}
	return t, removed, nil
}

// Module returns the lines for where nix.conf is made by NixOS or Home Manager.
func Module(c Cache) []string {
	quoted := make([]string, len(c.PublicKeys))
	for i, key := range c.PublicKeys {
		quoted[i] = fmt.Sprintf("%q", key)
	}
	return []string{
		fmt.Sprintf("nix.settings.extra-substituters = [ %q ];", c.URL),
		"nix.settings.extra-trusted-public-keys = [ " + strings.Join(quoted, " ") + " ];",
		"nix.settings.fallback = true;",
	}
}
