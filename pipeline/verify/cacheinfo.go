package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

const (
	cacheInfoName = "nix-cache-info"
	// maxCacheInfo bounds its body, in bytes: three lines are sent.
	maxCacheInfo = 4 << 10
)

// CacheInfo is the file nix-cache-info, by which nix knows a binary cache.
type CacheInfo struct {
	StoreDir      string // of the paths it holds
	WantMassQuery bool   // nix may ask for many paths at once
	Priority      int    // lower is asked first
}

// defaultPriority is nix's for a cache that does not say.
const defaultPriority = 50

// ParseCacheInfo reads the text of nix-cache-info. It is stricter than nix,
// which ignores what it does not understand: a page that something else serves
// must not pass for a cache. Keys that are not known here are allowed.
func ParseCacheInfo(text string) (CacheInfo, error) {
	info := CacheInfo{Priority: defaultPriority}
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok || key == "" || strings.ContainsAny(key, " \t<>") {
			return CacheInfo{}, fmt.Errorf("%q is no line of a %s", oneLine(line), cacheInfoName)
		}
		if seen[key] {
			return CacheInfo{}, fmt.Errorf("%s stands there twice", oneLine(key))
		}
		seen[key] = true
		if err := info.set(key, strings.TrimSpace(value)); err != nil {
			return CacheInfo{}, err
		}
	}
	if !seen["StoreDir"] {
		return CacheInfo{}, errors.New("there is no StoreDir")
	}
	return info, nil
}

func (c *CacheInfo) set(key, value string) error {
	switch key {
	case "StoreDir":
		if !strings.HasPrefix(value, "/") {
			return fmt.Errorf("StoreDir %q is no absolute path", oneLine(value))
		}
		c.StoreDir = value
	case "WantMassQuery":
		if value != "0" && value != "1" {
			return fmt.Errorf("WantMassQuery %q is neither 0 nor 1", oneLine(value))
		}
		c.WantMassQuery = value == "1"
	case "Priority":
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return fmt.Errorf("priority %q is no number", oneLine(value))
		}
		c.Priority = int(n)
	}
	return nil
}

// cacheInfo asks the cache what it is.
func (c *cache) cacheInfo(ctx context.Context) (string, error) {
	target := c.base.JoinPath(cacheInfoName)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return "", fmt.Errorf("asking for %s: %w", target.Redacted(), err)
	}
	c.sign(req)
	resp, err := c.client.Do(req)
	if err != nil {
		return "", transportFault(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxCacheInfo+1))
	if err != nil {
		return "", transportFault(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", statusFault(resp.StatusCode, string(body))
	}
	where := ""
	if at := resp.Request.URL; at.Host != target.Host {
		where = fmt.Sprintf(" (redirected to %s)", at.Host)
	}
	if len(body) > maxCacheInfo {
		return "", &fault{reason: fmt.Sprintf("the answer is longer than %d bytes%s", maxCacheInfo, where), look: lookAtRoute}
	}
	info, err := ParseCacheInfo(string(body))
	if err != nil {
		return "", &fault{reason: fmt.Sprintf("the answer is no %s: %v%s", cacheInfoName, err, where), look: lookAtRoute}
	}
	if strings.TrimRight(info.StoreDir, "/") != c.storeDir {
		return "", &fault{
			reason: fmt.Sprintf("the cache is for the store %s, not %s", oneLine(info.StoreDir), c.storeDir),
			look:   "the server's --store-dir, or give the one that is meant with --store-dir here",
			final:  true, // a cache holds paths of one store for all its life
		}
	}
	queries := "wanted"
	if !info.WantMassQuery {
		queries = "not wanted"
	}
	return fmt.Sprintf("store %s, priority %d, mass queries %s", c.storeDir, info.Priority, queries), nil
}
