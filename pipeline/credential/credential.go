// Package credential finds the token that a cache wants, where jobs and
// workstations keep such: a variable, a file, netrc, or the identity that a CI
// system gives its jobs.
package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jdx/go-netrc"
)

// Variables that tokens are looked for in. A token is never a flag, which any
// process on the machine could read.
const (
	TokenVariable = "ATTIC_TOKEN"
	// IDTokenVariable is how a job of GitLab names, in its id_tokens, the one for
	// the cache.
	IDTokenVariable = "ATTIC_ID_TOKEN"
	githubURL       = "ACTIONS_ID_TOKEN_REQUEST_URL"
	githubToken     = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
)

const (
	maxToken    = 64 << 10 // bytes
	requestTime = 10 * time.Second
)

// Finder finds tokens. The zero value looks into no variable.
type Finder struct {
	// File holds a token, and nothing else; empty for none.
	File string
	// NetrcFiles are looked into in order; those that are not there are passed
	// over.
	NetrcFiles []string
	// Audience is whom an ID token is made for; empty: the cache's scheme and
	// host.
	Audience string
	Getenv   func(string) string
}

// New returns a finder that looks where this process's environment says.
func New(file, audience string, netrcFiles ...string) Finder {
	if own := os.Getenv("NETRC"); own != "" {
		netrcFiles = append([]string{own}, netrcFiles...)
	}
	if home, err := os.UserHomeDir(); err == nil {
		netrcFiles = append(netrcFiles, filepath.Join(home, ".netrc"))
	}
	return Finder{File: file, NetrcFiles: netrcFiles, Audience: audience, Getenv: os.Getenv}
}

// For returns the token for the cache at a URL, or "" where there is none: the
// one of File, of ATTIC_TOKEN, of netrc, and then the job's own identity.
func (f Finder) For(ctx context.Context, cache string) (string, error) {
	if f.Getenv == nil {
		f.Getenv = func(string) string { return "" }
	}
	if f.File != "" {
		return readFile(f.File)
	}
	if token := strings.TrimSpace(f.Getenv(TokenVariable)); token != "" {
		return token, nil
	}
	u, err := url.Parse(cache)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "", nil //nolint:nilerr // a store that has its credentials elsewhere
	}
	token, err := f.fromNetrc(u.Hostname())
	if token != "" || err != nil {
		return token, err
	}
	if token := strings.TrimSpace(f.Getenv(IDTokenVariable)); token != "" {
		return token, nil
	}
	if f.Getenv(githubURL) == "" || f.Getenv(githubToken) == "" {
		return "", nil
	}
	audience := f.Audience
	if audience == "" {
		audience = u.Scheme + "://" + u.Host
	}
	return f.fromGitHub(ctx, audience)
}

func readFile(file string) (string, error) {
	info, err := os.Stat(file)
	if err == nil && info.Size() > maxToken {
		err = fmt.Errorf("%s has %d bytes: it holds something else", file, info.Size())
	}
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	token := string(bytes.TrimSpace(text))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("reading the token: %s is to hold a token and nothing else", file)
	}
	return token, nil
}

// fromNetrc returns the password that the files have for a host by its name. The
// default entry is for people's logins, and no cache should see it.
func (f Finder) fromNetrc(host string) (string, error) {
	for _, file := range f.NetrcFiles {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("reading a netrc: %w", err)
		}
		entries, err := netrc.ParseString(string(text))
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", file, err)
		}
		if m := entries.Machine(host); m != nil && !m.IsDefault {
			if token := m.Get("password"); token != "" {
				return token, nil
			}
		}
	}
	return "", nil
}

// fromGitHub asks GitHub Actions for an ID token, as
// https://docs.github.com/actions/reference/openid-connect-reference says.
func (f Finder) fromGitHub(ctx context.Context, audience string) (_ string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("asking GitHub for an ID token for %s: %w", audience, err)
		}
	}()
	u, err := url.Parse(f.Getenv(githubURL))
	if err != nil {
		return "", err
	}
	query := u.Query()
	query.Set("audience", audience)
	u.RawQuery = query.Encode()
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+f.Getenv(githubToken))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxToken))
	if err != nil {
		return "", err
	}
	var answer struct {
		Value string `json:"value"`
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("HTTP %s", resp.Status)
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Value == "" {
		return "", errors.New("the answer has no token")
	}
	return answer.Value, nil
}
