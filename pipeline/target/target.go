// Package target is the stores that paths can be pushed to: one type for each
// kind, which Ask tells apart by asking the URL what it is.
package target

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/pusher"
)

// Target is a store that takes paths.
type Target interface {
	pusher.Target
	URL() string
	Kind() Kind
	// Jobs is how many paths to send at a time where nobody says otherwise.
	Jobs() int
	// SentBytes is the sum of all request bodies so far, repeats included; 0
	// where other programs send them.
	SentBytes() int64
	Close()
}

// Pinner is a Target that can keep a path under a name, whatever its retention.
type Pinner interface {
	// Pin pins a path that the store holds, as the name's newest revision, and
	// drops all but its newest keep revisions.
	Pin(ctx context.Context, name, storePath string, keep int) error
}

// Historian is a Target that knows what building its paths took.
type Historian interface {
	// BuildTimes returns what is known, by the paths' 32-character hashes.
	BuildTimes(ctx context.Context, hashes []string) (map[string]time.Duration, error)
}

// Kind is how a target is pushed to.
type Kind string

// The kinds.
const (
	Chunks Kind = "chunks"   // this project's server
	Attic  Kind = "attic"    // Attic's API, version 1
	Copy   Kind = "nix copy" // whatever nix itself writes to
)

// Answer is what a URL turned out to be.
type Answer struct {
	URL        string
	StoreDir   string   // of the paths in it; empty: unknown
	PublicKeys []string // as far as it tells them
	// UpstreamKeys are names of keys; what they signed need not be pushed.
	UpstreamKeys []string
	Target       Target // nil where nothing can be pushed
	ReadOnly     error  // says why, then
}

// schemes are those of URLs that nix itself writes to.
var schemes = []string{"file", "s3", "ssh", "ssh-ng"}

// Check finds what is wrong with a cache's URL, without asking anybody.
func Check(cache string) error {
	u, err := url.Parse(cache)
	if err != nil {
		return fmt.Errorf("cache URL: %w", err)
	}
	switch {
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "":
		return nil
	case slices.Contains(schemes, u.Scheme) && u.Host+u.Path != "":
		return nil
	}
	return fmt.Errorf("cache URL %q: want http://HOST[:PORT][/NAME], https://…, or a store that nix copy writes to, such as file:///DIR or s3://BUCKET", cache)
}

// Ask asks a URL what it is: this project's server, Attic's, a plain HTTP cache
// that takes uploads or one that does not. Other schemes than HTTP are nix's own
// affair, which n runs. An error means that nothing answers.
func Ask(ctx context.Context, cache, token string, n *nix.Nix) (Answer, error) {
	if err := Check(cache); err != nil {
		return Answer{}, err
	}
	a := Answer{URL: strings.TrimSuffix(cache, "/")}
	if !strings.HasPrefix(cache, "http://") && !strings.HasPrefix(cache, "https://") {
		a.Target = newCopy(a.URL, token, n)
		return a, nil
	}
	client, err := push.NewClient(cache)
	if err != nil {
		return Answer{}, err
	}
	client.SetToken(token)
	info, err := client.Info(ctx)
	if err == nil {
		a.StoreDir, a.PublicKeys = info.StoreDir, info.PublicKeys
		a.Target = &chunks{Client: client, average: info.Chunking.Average}
		return a, nil
	}
	client.Close()
	if !errors.Is(err, push.ErrNotSpoken) {
		return Answer{}, err
	}
	switch t, err := askAttic(ctx, &a, token); {
	case err == nil:
		a.Target = t
		return a, nil
	case !errors.Is(err, errNoAttic):
		return Answer{}, err
	}
	info2, err := cacheInfo(ctx, a.URL, token)
	if err != nil {
		return Answer{}, err
	}
	a.StoreDir = info2.storeDir
	if err := takesUploads(ctx, a.URL, token, info2); err != nil {
		a.ReadOnly = fmt.Errorf("%w, nor is Attic's, and %w", push.ErrNotSpoken, err)
		return a, nil
	}
	a.Target = newCopy(a.URL, token, n)
	return a, nil
}
