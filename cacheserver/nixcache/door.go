// Package nixcache is the door for Nix: the binary cache that clients read
// (the protocol of Nix's HTTP binary cache stores) and the push protocol that
// fills it (cacheserver/push).
package nixcache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
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
	redirects    bool
	log          *slog.Logger
	patience     time.Duration // bodyTime, but in tests
	uses         *uses

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

// cache is a cache with its key parsed.
type cache struct {
	index.Cache
	key narinfo.SecretKey
}

// Config says how a door behaves.
type Config struct {
	// DefaultCache also answers at the root.
	DefaultCache string
	// Redirect sends clients to the storage itself where it gives URLs for that.
	Redirect bool
	Log      *slog.Logger
}

// New makes the door.
func New(store *cas.Store, idx index.Index, c Config) *Door {
	return &Door{
		store: store, index: idx, defaultCache: c.DefaultCache, redirects: c.Redirect, log: c.Log, patience: bodyTime,
		uses:     newUses(),
		caches:   newHot[string, *cache](hotCaches),
		narinfos: newHot[pathKey, *hotNarinfo](hotNarinfos),
		nars:     newHot[narKey, *nar](hotNARs),
	}
}

var validCacheName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_+-]{0,49}$`)

// EnsureCache returns the public key of a cache, which it creates with a new
// key when there is none of this name.
func EnsureCache(ctx context.Context, idx index.Index, name, storeDir string) (publicKey string, err error) {
	if !validCacheName.MatchString(name) {
		return "", fmt.Errorf("cache name %.80q: want 1 to 50 characters of A-Z, a-z, 0-9, -, _ and +, the first a letter or a digit", name)
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
	key, err := narinfo.ParseSecretKey(there.SecretKey)
	if err != nil {
		return "", fmt.Errorf("the key of cache %q: %w", name, err)
	}
	return key.Public(), nil
}

func createCache(ctx context.Context, idx index.Index, name, storeDir string) error {
	// Nix keeps one key of a name: two caches of the same name, on two machines,
	// must not have keys of the same name, too.
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails
	key, err := narinfo.GenerateKey(fmt.Sprintf("%s-%x", name, random))
	if err != nil {
		return err
	}
	return idx.Update(ctx, func(tx index.Tx) error {
		_, err := tx.AddCache(index.Cache{Name: name, StoreDir: storeDir, Priority: defaultPriority, SecretKey: key.Reveal(), Retention: DefaultRetention})
		return err
	})
}

// DefaultRetention is how long a path of a new cache lives after its last use.
const DefaultRetention = 90 * 24 * time.Hour

// defaultPriority is asked just after cache.nixos.org, which has 40.
const defaultPriority = 41

func (d *Door) cache(r *http.Request) (*cache, error) {
	name := nameOf(r, d.defaultCache)
	if c, ok := d.caches.Get(name); ok {
		return c, nil
	}
	there, err := d.index.Cache(r.Context(), name)
	if errors.Is(err, index.ErrNotFound) {
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
	key, err := narinfo.ParseSecretKey(there.SecretKey)
	if err != nil {
		return nil, fmt.Errorf("the key of cache %q: %w", name, err)
	}
	c := &cache{Cache: there, key: key}
	d.caches.Add(name, c)
	return c, nil
}
