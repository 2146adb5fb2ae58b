package nixcache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
)

const (
	// maxConfigBody bounds the body of a request that makes or changes a cache, in
	// bytes.
	maxConfigBody = 1 << 20
	// maxUpstreamKeys bounds how many names of upstream keys a cache has, and
	// maxKeyName the bytes of each.
	maxUpstreamKeys = 100
	maxKeyName      = 200
	// maxSigners is how many keys sign for a cache. A new one goes before the
	// others, which go on signing for clients that do not know it yet.
	maxSigners = 4
)

// atticConfig is what Attic's API tells of a cache.
type atticConfig struct {
	SubstituterEndpoint  string         `json:"substituter_endpoint"`
	APIEndpoint          string         `json:"api_endpoint"`
	PublicKey            string         `json:"public_key"`
	IsPublic             bool           `json:"is_public"`
	StoreDir             string         `json:"store_dir"`
	Priority             int            `json:"priority"`
	UpstreamCacheKeyName []string       `json:"upstream_cache_key_names"`
	RetentionPeriod      atticRetention `json:"retention_period"`
}

// atticChange is what a request sets of a cache; nil leaves it as it is.
type atticChange struct {
	Keypair               *atticKeypair   `json:"keypair"`
	IsPublic              *bool           `json:"is_public"`
	StoreDir              *string         `json:"store_dir"`
	Priority              *int32          `json:"priority"`
	UpstreamCacheKeyNames []string        `json:"upstream_cache_key_names"`
	RetentionPeriod       *atticRetention `json:"retention_period"`
}

func (a *atticChange) empty() bool {
	return a.Keypair == nil && a.IsPublic == nil && a.StoreDir == nil && a.Priority == nil &&
		a.UpstreamCacheKeyNames == nil && a.RetentionPeriod == nil
}

// atticKeypair is "Generate" or {"Keypair": "name:base64"}: a key to be made, or
// one that exists.
type atticKeypair struct{ existing string }

// UnmarshalJSON implements json.Unmarshaler.
func (k *atticKeypair) UnmarshalJSON(text []byte) error {
	if string(text) == `"Generate"` {
		return nil
	}
	var given struct{ Keypair string }
	// What json says of malformed text could quote the key.
	if err := json.Unmarshal(text, &given); err != nil || given.Keypair == "" {
		return errors.New(`keypair: want "Generate" or {"Keypair": "name:base64"}`)
	}
	k.existing = given.Keypair
	return nil
}

func (k *atticKeypair) key(cache string) (narinfo.SecretKey, error) {
	if k.existing == "" {
		return narinfo.GenerateKey(cache)
	}
	key, err := narinfo.ParseSecretKey(k.existing)
	if err != nil {
		return narinfo.SecretKey{}, badRequest("keypair: %v", err)
	}
	if len(key.Name) > maxKeyName {
		return narinfo.SecretKey{}, badRequest("keypair: its name has more than %d bytes", maxKeyName)
	}
	return key, nil
}

// atticRetention is "Global" or {"Period": seconds}, of which 0 is for ever.
type atticRetention time.Duration

// MarshalJSON implements json.Marshaler.
func (p atticRetention) MarshalJSON() ([]byte, error) {
	if p == atticRetention(index.GlobalRetention) {
		return []byte(`"Global"`), nil
	}
	seconds := min(int64(time.Duration(p)/time.Second), math.MaxUint32)
	return json.Marshal(map[string]int64{"Period": seconds})
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *atticRetention) UnmarshalJSON(text []byte) error {
	if string(text) == `"Global"` {
		*p = atticRetention(index.GlobalRetention)
		return nil
	}
	var given struct{ Period *uint32 }
	if err := json.Unmarshal(text, &given); err != nil || given.Period == nil {
		return errors.New(`retention_period: want "Global" or {"Period": seconds}`)
	}
	*p = atticRetention(time.Duration(*given.Period) * time.Second)
	return nil
}

func (d *Door) atticInfo(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("cache")
	if name == "" {
		name = d.nameOf(r)
	}
	c, err := d.open(r.Context(), auth.Pull, name)
	if err != nil {
		return err
	}
	api := d.endpoint(r)
	upstream := c.UpstreamKeys
	if upstream == nil {
		upstream = []string{}
	}
	writeJSON(w, http.StatusOK, atticConfig{
		SubstituterEndpoint: api + c.Name, APIEndpoint: api,
		PublicKey: c.keys[0].Public(), IsPublic: c.Public, StoreDir: c.StoreDir, Priority: c.Priority,
		UpstreamCacheKeyName: upstream, RetentionPeriod: atticRetention(c.Retention),
	})
	return nil
}

// endpoint is the URL of the server as its clients know it, with a slash at its
// end, which they append paths to.
func (d *Door) endpoint(r *http.Request) string {
	if d.publicURL != "" {
		return strings.TrimSuffix(d.publicURL, "/") + "/"
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",")
	if first = strings.ToLower(strings.TrimSpace(first)); first == "http" || first == "https" {
		scheme = first
	}
	return scheme + "://" + r.Host + "/"
}

// atticBody reads a request's body as JSON.
func (d *Door) atticBody(w http.ResponseWriter, r *http.Request, limit int64, into any) error {
	b, done, err := d.body(w, r, limit)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(b)
	if err != nil {
		return err
	}
	done()
	if err := json.Unmarshal(text, into); err != nil {
		return badRequest("%v", err)
	}
	return nil
}

func (d *Door) atticCreate(w http.ResponseWriter, r *http.Request) error {
	ctx, name := r.Context(), r.PathValue("cache")
	if err := auth.SubjectOf(ctx).Check(auth.Create, name); err != nil {
		return err
	}
	if err := CheckCacheName(name); err != nil {
		return badRequest("%v", err)
	}
	var asked atticChange
	if err := d.atticBody(w, r, maxConfigBody, &asked); err != nil {
		return err
	}
	if asked.Keypair == nil || asked.IsPublic == nil || asked.StoreDir == nil || asked.Priority == nil || asked.UpstreamCacheKeyNames == nil {
		return badRequest("a new cache needs keypair, is_public, store_dir, priority and upstream_cache_key_names")
	}
	if dir := *asked.StoreDir; !path.IsAbs(dir) || path.Clean(dir) != dir || dir == "/" || strings.ContainsFunc(dir, unprintable) {
		return badRequest("store_dir %.300q is no clean absolute path", dir)
	}
	c := index.Cache{Name: name, StoreDir: *asked.StoreDir, Retention: index.GlobalRetention}
	if err := asked.apply(&c); err != nil {
		return err
	}
	err := d.index.Update(ctx, func(tx index.Tx) error {
		_, err := tx.AddCache(c)
		return err
	})
	if errors.Is(err, index.ErrExists) {
		return errCacheExists
	}
	if err != nil {
		return err
	}
	d.log.Info("cache created", "cache", name, "public", c.Public, "by", auth.SubjectOf(ctx).Name())
	return nil
}

func unprintable(c rune) bool { return c <= ' ' || c >= 0x7f }

// AddKey puts a key before those that sign for a cache, of which the oldest may
// sign no more.
func AddKey(c *index.Cache, key narinfo.SecretKey) {
	others := slices.DeleteFunc(slices.Clone(c.SecretKeys), func(s string) bool { return s == key.Reveal() })
	c.SecretKeys = append([]string{key.Reveal()}, others...)
	c.SecretKeys = c.SecretKeys[:min(maxSigners, len(c.SecretKeys))]
}

// CheckUpstreamKeys returns an error for what no cache can have as UpstreamKeys.
func CheckUpstreamKeys(names []string) error {
	if len(names) > maxUpstreamKeys {
		return fmt.Errorf("more than %d", maxUpstreamKeys)
	}
	for _, n := range names {
		if n == "" || len(n) > maxKeyName || strings.ContainsFunc(n, unprintable) {
			return fmt.Errorf("%.80q is no name of a key", n)
		}
	}
	return nil
}

// apply sets what a request sets, but for the store directory, which a cache has
// for ever.
func (a *atticChange) apply(c *index.Cache) error {
	if a.Keypair != nil {
		key, err := a.Keypair.key(c.Name)
		if err != nil {
			return err
		}
		AddKey(c, key)
	}
	if a.IsPublic != nil {
		c.Public = *a.IsPublic
	}
	if a.StoreDir != nil && *a.StoreDir != c.StoreDir {
		return badRequest("store_dir: a cache keeps the one that it was made with, %s; make another cache", c.StoreDir)
	}
	if a.Priority != nil {
		c.Priority = int(*a.Priority)
	}
	if a.UpstreamCacheKeyNames != nil {
		if err := CheckUpstreamKeys(a.UpstreamCacheKeyNames); err != nil {
			return badRequest("upstream_cache_key_names: %v", err)
		}
		c.UpstreamKeys = a.UpstreamCacheKeyNames
	}
	if a.RetentionPeriod != nil {
		c.Retention = time.Duration(*a.RetentionPeriod)
	}
	return nil
}

func (d *Door) atticConfigure(w http.ResponseWriter, r *http.Request) error {
	ctx, name := r.Context(), r.PathValue("cache")
	c, err := d.open(ctx, auth.Configure, name)
	if err != nil {
		return err
	}
	var asked atticChange
	if err := d.atticBody(w, r, maxConfigBody, &asked); err != nil {
		return err
	}
	if asked.empty() {
		return badRequest(saidNothingSet)
	}
	err = d.index.Update(ctx, func(tx index.Tx) error {
		return tx.UpdateCache(c.ID, func(there *index.Cache) error {
			// Attic's client says Global whenever it says nothing else.
			if p := asked.RetentionPeriod; p != nil && time.Duration(*p) != there.Retention {
				if err := auth.SubjectOf(ctx).Check(auth.ConfigureRetention, name); err != nil {
					return err
				}
			}
			return asked.apply(there)
		})
	})
	d.forgetCache(name)
	if err != nil {
		return d.gone(c, err)
	}
	d.log.Info("cache configured", "cache", name, "by", auth.SubjectOf(ctx).Name())
	return nil
}

func (d *Door) atticDestroy(_ http.ResponseWriter, r *http.Request) error {
	ctx, name := r.Context(), r.PathValue("cache")
	c, err := d.open(ctx, auth.Destroy, name)
	if err != nil {
		return err
	}
	err = d.index.Update(ctx, func(tx index.Tx) error { return tx.RemoveCache(c.ID) })
	d.forgetCache(name)
	if err != nil {
		return d.gone(c, err)
	}
	d.log.Info("cache destroyed", "cache", name, "by", auth.SubjectOf(ctx).Name())
	return nil
}

// forgetCache makes a change of a cache seen at once by this server, and by the
// others within hotFor.
func (d *Door) forgetCache(name string) {
	d.caches.Remove(name)
	// Their signatures may be by keys that sign no more.
	d.commits.Add(1)
	d.narinfos.Clear()
}
