package nixconf

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/target"
)

// askTime is how long a cache may take to say what it is.
const askTime = 10 * time.Second

// Cache is what a client writes into its settings of one.
type Cache struct {
	URL        string   // to substitute from
	PublicKeys []string // the newest first
}

// ErrNoKey is wrapped when a cache answers and does not tell its key.
var ErrNoKey = errors.New("the cache does not tell its public key")

// Ask asks a cache for its keys: a server of this project, or one of Attic. Of
// another, or none, Cache has the URL alone.
func Ask(ctx context.Context, cache, token string) (Cache, error) {
	asking, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	found := Cache{URL: strings.TrimSuffix(cache, "/")}
	answer, err := target.Ask(asking, found.URL, token, nil)
	if err != nil {
		var u *url.Error
		switch {
		case ctx.Err() == nil && errors.Is(asking.Err(), context.DeadlineExceeded):
			err = fmt.Errorf("no answer within %v", askTime)
		case errors.As(err, &u):
			err = u.Err
		}
		return found, fmt.Errorf("asking %s for its key: %w", found.URL, err)
	}
	if answer.Target != nil {
		answer.Target.Close()
	}
	for _, key := range answer.PublicKeys {
		if err := CheckKey(key); err != nil {
			return found, fmt.Errorf("cache %s: %w", found.URL, err)
		}
	}
	if len(answer.PublicKeys) == 0 {
		return found, fmt.Errorf("cache %s: %w", found.URL, ErrNoKey)
	}
	found.PublicKeys = answer.PublicKeys
	return found, nil
}

// CheckKey says whether a public key can stand in nix.conf: with one that is none
// Nix does nothing at all, and one with a newline would be a setting of its own.
func CheckKey(key string) error {
	if _, err := (&narinfo.NarInfo{}).Signed(key); err != nil || strings.ContainsAny(key, " \t\r\n") {
		return fmt.Errorf("%.80q is no public key: want NAME:BASE64", key)
	}
	return nil
}
