package push

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
)

// BuiltInParameter is the query parameter of a commit that says how long building
// the path took, in decimal seconds.
const BuiltInParameter = "built-in"

// Limits of what is said beside paths.
const (
	MaxBuildTime     = 30 * 24 * time.Hour
	MaxPinName       = 200 // bytes
	MaxPinBody       = 4 << 10
	MaxPinKeep       = 10_000
	MaxHistoryHashes = 1000 // of one question for build times
)

// PinRequest is the body that pins a path under a name.
type PinRequest struct {
	Path string `json:"path"` // the 32 characters of the store path
	// Keep is how many revisions of the name stay, at least 1: 0 means 1.
	Keep int `json:"keep,omitempty"`
	// ExpiresIn is after how many seconds the pin ends; 0: never.
	ExpiresIn int64 `json:"expiresIn,omitempty"`
}

// BuildTimesAnswer says how long building paths took, in seconds, by their hash.
// Those of which it is not known are not in it.
type BuildTimesAnswer struct {
	BuildTimes map[string]float64 `json:"buildTimes"`
}

// FormatBuildTime is a duration as the parameter says it.
func FormatBuildTime(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64)
}

// ParseBuildTime reads what FormatBuildTime made.
func ParseBuildTime(s string) (time.Duration, error) {
	seconds, err := strconv.ParseFloat(s, 64)
	// The comparison is false for what is no number, too.
	if err != nil || !(seconds >= 0 && seconds <= MaxBuildTime.Seconds()) {
		return 0, fmt.Errorf("%w: %s=%.40q is no number of seconds from 0 to %.0f", ErrMalformed, BuiltInParameter, s, MaxBuildTime.Seconds())
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// CommitBuilt is Commit, and tells the cache how long building the path took; 0
// where that is not known. What a cache cannot take is not told.
func (c *Client) CommitBuilt(ctx context.Context, n *narinfo.NarInfo, chunks []digest.Chunk, buildTime time.Duration) (missingReferences []string, err error) {
	route := "paths"
	if buildTime > 0 && buildTime <= MaxBuildTime {
		route += "?" + BuiltInParameter + "=" + FormatBuildTime(buildTime)
	}
	body, err := c.post(ctx, route, "application/octet-stream", AppendCommit(nil, n, chunks))
	if err != nil {
		return nil, fmt.Errorf("committing: %w", err)
	}
	if err := member(body, "missingReferences", &missingReferences); err != nil {
		return nil, fmt.Errorf("committing: %w", err)
	}
	return missingReferences, nil
}

// Pin keeps a path that the cache holds under a name, whatever the retention.
func (c *Client) Pin(ctx context.Context, name string, p PinRequest) error {
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = c.retry(ctx, http.MethodPut, "pins/"+(&url.URL{Path: name}).EscapedPath(), "application/json", body, http.StatusNoContent)
	return err
}

// BuildTimes asks how long building paths took when they were pushed, by their
// 32-character hashes.
func (c *Client) BuildTimes(ctx context.Context, hashes []string) (map[string]time.Duration, error) {
	known := map[string]time.Duration{}
	for len(hashes) > 0 {
		n := min(MaxHistoryHashes, len(hashes))
		query, err := json.Marshal(PathsQuery{Hashes: hashes[:n]})
		if err != nil {
			return nil, err
		}
		body, err := c.post(ctx, "build-times", "application/json", query)
		if err != nil {
			return nil, fmt.Errorf("asking for build times: %w", err)
		}
		var times map[string]float64
		if err := member(body, "buildTimes", &times); err != nil {
			return nil, fmt.Errorf("asking for build times: %w", err)
		}
		for h, seconds := range times {
			if seconds > 0 && seconds <= MaxBuildTime.Seconds() {
				known[h] = time.Duration(seconds * float64(time.Second))
			}
		}
		hashes = hashes[n:]
	}
	return known, nil
}
