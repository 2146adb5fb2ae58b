package auth

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
)

// Config is the table [auth] of the configuration. Its zero value lets everybody
// do everything.
type Config struct {
	// Enabled is true in a file that has the table and does not say false.
	Enabled bool `toml:"enabled"`

	// Keys that sign the tokens that are made for this server: HS256 as base64
	// (the bytes of Attic's secret), RS256 as PEM or as base64 of PEM, private or
	// public. With several of a kind, each is trusted.
	HS256Secrets []Secret `toml:"hs256_secrets"`
	HS256Files   []string `toml:"hs256_files"`
	RS256Keys    []Secret `toml:"rs256_keys"`
	RS256Files   []string `toml:"rs256_files"`
	// Keys are further ones, such as KeysFrom finds in the environment.
	Keys []Key `toml:"-"`
	// Issuer and Audiences are what such tokens must name, the audience one of
	// them; empty asks for nothing.
	Issuer    string   `toml:"issuer"`
	Audiences []string `toml:"audiences"`

	// Anonymous is what anybody may do, with a token or without.
	Anonymous []Allow `toml:"anonymous"`
	// OIDC are the issuers whose ID tokens are taken as well.
	OIDC []OIDC `toml:"oidc"`
}

// Allow gives rights on caches.
type Allow struct {
	Caches []string `toml:"caches"` // names, in which * stands for any characters or none
	Rights []Right  `toml:"rights"`
}

// OIDC is an issuer of ID tokens, such as a GitLab or GitHub's Actions.
type OIDC struct {
	// Issuer is its URL, exactly as its tokens name it. Its configuration is
	// asked for there, and its keys.
	Issuer string `toml:"issuer"`
	// Audiences are those of which a token must name one. It is to be this
	// server's own: a token for another service is not for this one.
	Audiences []string `toml:"audiences"`
	// JWKSURL is where the keys are when they are not on the issuer's own host;
	// the issuer is then not asked for it.
	JWKSURL string `toml:"jwks_url"`
	// CAFile is the PEM of the certificate authority of those URLs, where it is
	// not one that the machine trusts.
	CAFile string `toml:"ca_file"`
	// Rules say what the bearers of its tokens may do. All that match add up.
	Rules []Rule `toml:"rules"`
}

// Rule gives rights to the bearers of tokens of which every claim that it names
// matches. Let it name who owns the project or repository: an issuer that is
// open to all, such as gitlab.com, gives tokens to all.
type Rule struct {
	Claims map[string]Patterns `toml:"claims"`
	Allow
}

func (a Allow) rights() (Rights, error) {
	if len(a.Caches) == 0 || len(a.Rights) == 0 {
		return nil, errors.New("names no caches or no rights")
	}
	var sum Right
	for _, r := range a.Rights {
		sum |= r
	}
	grants := make([]Grant, len(a.Caches))
	for i, pattern := range a.Caches {
		grants[i] = Grant{pattern, sum}
	}
	return NewRights(grants...)
}

// OwnKeys reads all keys that check the tokens that are made for this server, those
// of Keys first.
func (c *Config) OwnKeys() ([]Key, error) {
	keys := slices.Clone(c.Keys)
	for _, kind := range []struct {
		name  string
		texts []Secret
		parse func(Secret) (Key, error)
		files []string
		read  func(string) (Key, error)
	}{
		{"hs256_secrets", c.HS256Secrets, ParseHS256, c.HS256Files, ReadHS256},
		{"rs256_keys", c.RS256Keys, ParseRS256, c.RS256Files, ReadRS256},
	} {
		for i, text := range kind.texts {
			k, err := kind.parse(text)
			if err != nil {
				return nil, fmt.Errorf("auth.%s, number %d: %w", kind.name, i+1, err)
			}
			keys = append(keys, k)
		}
		for _, file := range kind.files {
			k, err := kind.read(file)
			if err != nil {
				return nil, err
			}
			keys = append(keys, k)
		}
	}
	return keys, nil
}

func (c *OIDC) check() error {
	if err := checkURL(c.Issuer); err != nil {
		return err
	}
	if c.JWKSURL != "" {
		if err := checkURL(c.JWKSURL); err != nil {
			return fmt.Errorf("jwks_url: %w", err)
		}
	}
	if len(c.Audiences) == 0 {
		return errors.New("names no audiences: tokens that were meant for other services would be taken")
	}
	for _, a := range c.Audiences {
		if a == "" {
			return errors.New("an audience is empty")
		}
	}
	if len(c.Rules) == 0 {
		return errors.New("has no rules, so that its tokens give no rights")
	}
	for i, r := range c.Rules {
		if err := r.check(); err != nil {
			return fmt.Errorf("rule %d %w", i+1, err)
		}
	}
	return nil
}

func (r *Rule) check() error {
	if len(r.Claims) == 0 {
		return errors.New("names no claims, so that it lets in all whom the issuer knows")
	}
	for name, patterns := range r.Claims {
		if len(patterns) == 0 {
			return fmt.Errorf("has no pattern for the claim %q", name)
		}
	}
	_, err := r.rights()
	return err
}

// checkURL wants https: who can change what an issuer answers makes tokens.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%.200q: want a URL such as https://gitlab.example.org", text)
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("%.200q: want https, but on this machine itself", text)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
