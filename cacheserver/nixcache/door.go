// Package nixcache is the door for Nix: the binary cache that clients read and
// nix copy writes (the protocol of Nix's HTTP binary cache stores), the push
// protocol that fills it (cacheserver/push), and Attic's API, version 1.
package nixcache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"sync/atomic"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
)

const (
	// These bound how much is answered from memory: a narinfo takes about
	// 1 KiB, a NAR 48 bytes for each of its extents.
	hotCaches   = 1 << 10
	hotNarinfos = 64 << 10
	hotNARs     = 4 << 10
	// hotFor is how long a change by another process over the same index may
	// go unseen. Only what is there is kept, never that something is not.
	hotFor = time.Minute
)

// Door serves the caches of an index. Handler gives its routes.
type Door struct {
	store *cas.Store
	index index.Index
	// defaultCache also answers at the root: nix.conf files in use name the
	// bare host.
	defaultCache string
	publicURL    string
	redirects    bool
	log          *slog.Logger
	patience     time.Duration // bodyTime, but in tests
	uses         *uses
	listings     chan struct{} // a place for each that is being made
	pulls        *pulls

	caches   hot[string, *cache]
	narinfos hot[pathKey, *hotNarinfo]
	nars     hot[narKey, *nar]
	// commits counts them: one that came while a path was looked up may have
	// replaced it.
	commits atomic.Int64
}

type pathKey struct {
	cache int64
	hash  string
}

type narKey struct {
	cache int64
	hash  digest.Hash
}

type hotNarinfo struct {
	text []byte
	used lastNoted
}

// nar is a NAR that can be served.
type nar struct {
	index.Blob
	extents []index.Extent
	used    lastNoted
	// checked is when every byte was last seen to be what was stored, in Unix
	// seconds.
	checked atomic.Int64
	// inPack is whether it is all that its pack holds; nil before that was asked.
	inPack atomic.Pointer[bool]
}

// cache is a cache with its keys parsed.
type cache struct {
	index.Cache
	keys []narinfo.SecretKey // the newest first; at least one
}

// Config says how a door behaves.
type Config struct {
	// DefaultCache also answers at the root.
	DefaultCache string
	// PublicURL is where clients reach the root, for Attic's to be told; empty is
	// wherever a request came to.
	PublicURL string
	// Redirect sends clients to the storage itself where it gives URLs for that.
	Redirect bool
	// Upstreams are, by the name of a cache, where paths that it lacks are looked
	// up, in that order. One whose Check fails is not used.
	Upstreams map[string][]Upstream
	Log       *slog.Logger
}

// New makes the door; Close ends what it does beside the requests.
func New(store *cas.Store, idx index.Index, c Config) *Door {
	return &Door{
		store: store, index: idx, defaultCache: c.DefaultCache, publicURL: c.PublicURL, redirects: c.Redirect, log: c.Log, patience: bodyTime,
		uses:     newUses(),
		listings: make(chan struct{}, maxListings),
		pulls:    newPulls(c.Upstreams, c.Log),
		caches:   newHot[string, *cache](hotCaches),
		narinfos: newHot[pathKey, *hotNarinfo](hotNarinfos),
		nars:     newHot[narKey, *nar](hotNARs),
	}
}

var validCacheName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_+-]{0,49}$`)

// CheckCacheName returns an error for a name that no cache can have.
func CheckCacheName(name string) error {
	if !validCacheName.MatchString(name) {
		return fmt.Errorf("cache name %.80q: want 1 to 50 characters of A-Z, a-z, 0-9, -, _ and +, the first a letter or a digit", name)
	}
	if slices.Contains(reserved, name) {
		return fmt.Errorf("cache name %q: the server itself has something of that name", name)
	}
	return nil
}

// EnsureCache returns the public key of a cache, which it creates with a new
// key when there is none of this name.
func EnsureCache(ctx context.Context, idx index.Index, name, storeDir string) (publicKey string, err error) {
	if err := CheckCacheName(name); err != nil {
		return "", err
	}
	there, err := idx.Cache(ctx, name)
	if errors.Is(err, index.ErrNotFound) {
		err = createCache(ctx, idx, name, storeDir)
		if err == nil || errors.Is(err, index.ErrExists) { // another process may have been first
			there, err = idx.Cache(ctx, name)
		}
	}
	if err != nil {
		return "", err
	}
	if there.StoreDir != storeDir {
		return "", fmt.Errorf("cache %q is for the store %s, not %s: use another data directory or cache name", name, there.StoreDir, storeDir)
	}
	keys, err := keysOf(there)
	if err != nil {
		return "", err
	}
	return keys[0].Public(), nil
}

func createCache(ctx context.Context, idx index.Index, name, storeDir string) error {
	c, err := NewCache(name, storeDir)
	if err != nil {
		return err
	}
	return idx.Update(ctx, func(tx index.Tx) error {
		_, err := tx.AddCache(c)
		return err
	})
}

// NewCache returns a cache with a new key, as caches are that nobody has
// configured. It is not recorded yet.
func NewCache(name, storeDir string) (index.Cache, error) {
	if err := CheckCacheName(name); err != nil {
		return index.Cache{}, err
	}
	key, err := NewKey(name)
	if err != nil {
		return index.Cache{}, err
	}
	return index.Cache{
		Name: name, StoreDir: storeDir, Priority: defaultPriority, SecretKeys: []string{key.Reveal()},
		Retention: index.GlobalRetention, Public: true, UpstreamKeys: []string{nixosKey},
	}, nil
}

// NewKey makes a key for a cache. Nix keeps one key of a name: neither two caches
// of the same name, on two machines, nor two keys of one cache may have keys of the
// same name, too.
func NewKey(cache string) (narinfo.SecretKey, error) {
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails
	return narinfo.GenerateKey(fmt.Sprintf("%s-%x", cache, random))
}

// DefaultRetention is how long a path lives after its last use where neither its
// cache nor the server's policy says otherwise.
const DefaultRetention = 90 * 24 * time.Hour

const (
	// defaultPriority is asked just after cache.nixos.org, which has 40.
	defaultPriority = 41
	// nixosKey is the name of the key of cache.nixos.org, which Nix trusts unless it
	// is told not to.
	nixosKey = "cache.nixos.org-1"
)

func keysOf(c index.Cache) ([]narinfo.SecretKey, error) {
	if len(c.SecretKeys) == 0 {
		return nil, fmt.Errorf("cache %q has no key", c.Name)
	}
	keys := make([]narinfo.SecretKey, len(c.SecretKeys))
	for i, s := range c.SecretKeys {
		var err error
		if keys[i], err = narinfo.ParseSecretKey(s); err != nil {
			return nil, fmt.Errorf("key %d of cache %q: %w", i+1, c.Name, err)
		}
	}
	return keys, nil
}

func (d *Door) cache(ctx context.Context, name string) (*cache, error) {
	if c, ok := d.caches.Get(name); ok {
		return c, nil
	}
	if !validCacheName.MatchString(name) {
		return nil, fmt.Errorf("%w %.80q", errNoSuchCache, name)
	}
	there, err := d.index.Cache(ctx, name)
	if errors.Is(err, index.ErrNotFound) {
		d.caches.Remove(name)
		return nil, fmt.Errorf("%w %.80q", errNoSuchCache, name)
	}
	if errors.Is(err, index.ErrUnavailable) {
		if c, ok := d.caches.Stale(name); ok {
			return c, nil
		}
	}
	if err != nil {
		return nil, err
	}
	keys, err := keysOf(there)
	if err != nil {
		return nil, err
	}
	c := &cache{Cache: there, keys: keys}
	d.caches.Add(name, c)
	return c, nil
}
