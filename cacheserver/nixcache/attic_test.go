package nixcache_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// attic is a client of Attic's API, as attic itself is one: what it does not know
// the server to need, it does not send.
type attic struct {
	t     testing.TB
	url   string
	token string
}

func (r *rig) attic(t testing.TB) *attic {
	t.Helper()
	server := httptest.NewServer(r.Handler())
	t.Cleanup(server.Close)
	return &attic{t: t, url: server.URL + "/"}
}

// do sends a request with a body of unknown length and returns the answer's.
func (a *attic) do(method, route string, body io.Reader, header map[string]string) (int, []byte) {
	a.t.Helper()
	if body != nil {
		body = io.MultiReader(body) // net/http must not find out its length
	}
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url+route, body)
	must(a.t, err)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	if a.token != "" {
		req.Header.Set("Authorization", "bearer "+a.token)
	}
	resp, err := http.DefaultClient.Do(req)
	must(a.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(a.t, err)
	return resp.StatusCode, text
}

func (a *attic) send(method, route string, body any) (int, []byte) {
	a.t.Helper()
	text, err := json.Marshal(body)
	must(a.t, err)
	return a.do(method, route, bytes.NewReader(text), map[string]string{"Content-Type": "application/json"})
}

// wantError checks for an error of Attic's and returns its message.
func (a *attic) wantError(what string, status int, text []byte, want int, name string) string {
	a.t.Helper()
	var e struct {
		Code           int
		Error, Message string
	}
	if err := json.Unmarshal(text, &e); err != nil || status != want || e.Code != want || e.Error != name || e.Message == "" {
		a.t.Errorf("%s: %d %s; want %d %s", what, status, text, want, name)
	}
	return e.Message
}

func (a *attic) want(what string, status int, text []byte, into any) {
	a.t.Helper()
	if status != http.StatusOK {
		a.t.Fatalf("%s: %d %s", what, status, text)
	}
	if into == nil {
		if len(text) != 0 {
			a.t.Errorf("%s: body %q", what, text)
		}
		return
	}
	if err := json.Unmarshal(text, into); err != nil {
		a.t.Fatalf("%s: %s: %v", what, text, err)
	}
}

type configOf struct {
	SubstituterEndpoint   string          `json:"substituter_endpoint"`
	APIEndpoint           string          `json:"api_endpoint"`
	PublicKey             string          `json:"public_key"`
	IsPublic              bool            `json:"is_public"`
	StoreDir              string          `json:"store_dir"`
	Priority              int             `json:"priority"`
	UpstreamCacheKeyNames []string        `json:"upstream_cache_key_names"`
	RetentionPeriod       json.RawMessage `json:"retention_period"`
}

func (a *attic) config(name string) (c configOf) {
	a.t.Helper()
	status, text := a.do(http.MethodGet, "_api/v1/cache-config/"+name, nil, nil)
	if strings.Contains(string(text), "keypair") {
		a.t.Errorf("the keypair is told: %s", text)
	}
	a.want("config", status, text, &c)
	return c
}

// defaults are what attic cache create sends when it is told nothing.
func defaults() map[string]any {
	return map[string]any{
		"keypair": "Generate", "is_public": false, "store_dir": "/nix/store", "priority": 41,
		"upstream_cache_key_names": []string{"cache.nixos.org-1"},
	}
}

func with(m map[string]any, key string, value any) map[string]any {
	m = maps.Clone(m)
	m[key] = value
	return m
}

// create makes a cache.
func (a *attic) create(name string, body any) {
	a.t.Helper()
	status, text := a.send(http.MethodPost, "_api/v1/cache-config/"+name, body)
	a.want("create", status, text, nil)
}

// upload is what attic sends of a path.
func (ar *archive) upload(cache string) map[string]any {
	return map[string]any{
		"cache": cache, "store_path_hash": storepath.Hash(ar.info.StorePath), "store_path": ar.info.StorePath,
		"references": append([]string{}, ar.info.References...), "system": nil, "deriver": nil,
		"sigs": append([]string{}, ar.info.Signatures...), "ca": nil,
		"nar_hash": "sha256:" + ar.info.NarHash.String(), "nar_size": ar.info.NarSize,
	}
}

// put uploads a NAR, with what is said of it in a header or, after that name, in
// the body.
func (a *attic) put(prefix string, preamble bool, info map[string]any, nar io.Reader) (int, []byte) {
	a.t.Helper()
	text, err := json.Marshal(info)
	must(a.t, err)
	header := map[string]string{prefix + "Nar-Info": string(text)}
	if preamble {
		header = map[string]string{prefix + "Nar-Info-Preamble-Size": strconv.Itoa(len(text))}
		nar = io.MultiReader(bytes.NewReader(text), nar)
	}
	return a.do(http.MethodPut, "_api/v1/upload-path", nar, header)
}

type uploaded struct {
	Kind         string
	FileSize     *int64   `json:"file_size"`
	Deduplicated *float64 `json:"frac_deduplicated"`
}

func TestAtticCreatesConfiguresAndDestroysACache(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := r.attic(t)
	a.create("team", defaults())
	c := a.config("team")
	if c.APIEndpoint != a.url || c.SubstituterEndpoint != a.url+"team" || c.IsPublic || c.StoreDir != "/nix/store" || c.Priority != 41 ||
		!slices.Equal(c.UpstreamCacheKeyNames, []string{"cache.nixos.org-1"}) || string(c.RetentionPeriod) != `"Global"` {
		t.Errorf("a new cache: %+v", c)
	}
	// A generated key is named after the cache.
	name, key, _ := strings.Cut(c.PublicKey, ":")
	if b, err := base64.StdEncoding.DecodeString(key); name != "team" || err != nil || len(b) != ed25519.PublicKeySize {
		t.Errorf("public key %q", c.PublicKey)
	}
	status, text := a.do(http.MethodGet, "team/attic-cache-info", nil, nil)
	var same configOf
	a.want("attic-cache-info", status, text, &same)
	if same.PublicKey != c.PublicKey {
		t.Errorf("%+v, then %+v", c, same)
	}

	patch := func(change any) {
		t.Helper()
		status, text := a.send(http.MethodPatch, "_api/v1/cache-config/team", change)
		a.want(fmt.Sprint(change), status, text, nil)
	}
	patch(map[string]any{"is_public": true, "retention_period": "Global"})
	patch(map[string]any{"priority": -3, "keypair": nil})
	patch(map[string]any{"upstream_cache_key_names": []string{}})
	patch(map[string]any{"store_dir": "/nix/store"}) // what it is
	patch(map[string]any{"retention_period": map[string]any{"Period": 86400}})
	c2 := a.config("team")
	if !c2.IsPublic || c2.Priority != -3 || c2.UpstreamCacheKeyNames == nil || len(c2.UpstreamCacheKeyNames) != 0 || string(c2.RetentionPeriod) != `{"Period":86400}` || c2.PublicKey != c.PublicKey {
		t.Errorf("after changes: %+v", c2)
	}
	patch(map[string]any{"retention_period": map[string]any{"Period": 0}})
	if there, err := r.sqlite.Cache(t.Context(), "team"); err != nil || there.Retention != 0 {
		t.Errorf("a period of 0 is %v, %v; want for ever", there.Retention, err)
	}
	if got := string(a.config("team").RetentionPeriod); got != `{"Period":0}` {
		t.Errorf("for ever is told as %s", got)
	}
	patch(map[string]any{"retention_period": "Global"})
	if there, err := r.sqlite.Cache(t.Context(), "team"); err != nil || there.Retention != index.GlobalRetention {
		t.Errorf("Global is %v, %v", there.Retention, err)
	}

	status, text = a.do(http.MethodDelete, "_api/v1/cache-config/team", nil, nil)
	a.want("destroy", status, text, nil)
	status, text = a.do(http.MethodDelete, "_api/v1/cache-config/team", nil, nil)
	a.wantError("destroyed twice", status, text, http.StatusNotFound, "NoSuchCache")
	status, text = a.do(http.MethodGet, "_api/v1/cache-config/team", nil, nil)
	a.wantError("the config afterwards", status, text, http.StatusNotFound, "NoSuchCache")
	// Its name is free again, and a cache of that name has nothing of the other's.
	a.create("team", defaults())
	if again := a.config("team"); again.PublicKey == c.PublicKey {
		t.Error("the new cache has the old one's key")
	}
}

func TestAtticImportsAKeyAndTheOldOneSignsOn(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := r.attic(t)
	first, err := narinfo.GenerateKey("first-1")
	must(t, err)
	second, err := narinfo.GenerateKey("second-1")
	must(t, err)
	import_ := func(k narinfo.SecretKey) map[string]any { return map[string]any{"Keypair": k.Reveal()} }
	a.create("team", with(defaults(), "keypair", import_(first)))
	if got := a.config("team").PublicKey; got != first.Public() {
		t.Errorf("the key is %s, not %s", got, first.Public())
	}
	ar := newArchive(t, "hello", []byte("hello"), 1000)
	ar.info.Signatures = []string{"builder-1:" + strings.Repeat("A", 86) + "==", "first-1:" + strings.Repeat("A", 86) + "=="}
	status, text := a.put("X-Attic-", false, ar.upload("team"), bytes.NewReader(ar.plain))
	a.want("upload", status, text, &uploaded{})
	read := func() *narinfo.NarInfo {
		t.Helper()
		n, err := narinfo.Parse(r.get("/team" + ar.narinfo()).Body.Bytes())
		must(t, err)
		return n
	}
	signed := func(n *narinfo.NarInfo, keys ...narinfo.SecretKey) {
		t.Helper()
		for _, k := range keys {
			if ok, err := n.Signed(k.Public()); err != nil || !ok {
				t.Errorf("not signed by %s:\n%s", k.Name, n.Text())
			}
		}
		if len(n.Signatures) != len(keys)+1 || n.Signatures[len(keys)] != ar.info.Signatures[0] {
			t.Errorf("signatures %q", n.Signatures)
		}
	}
	signed(read(), first)
	status, text = a.send(http.MethodPatch, "_api/v1/cache-config/team", map[string]any{"keypair": import_(second)})
	a.want("a new key", status, text, nil)
	signed(read(), second, first)
	if got := a.config("team").PublicKey; got != second.Public() {
		t.Errorf("the key is %s, not %s", got, second.Public())
	}
	// To make one that is there already the first again is no further key.
	status, text = a.send(http.MethodPatch, "_api/v1/cache-config/team", map[string]any{"keypair": import_(first)})
	a.want("the first key again", status, text, nil)
	signed(read(), first, second)
	status, text = a.send(http.MethodPatch, "_api/v1/cache-config/team", map[string]any{"keypair": "Generate"})
	a.want("a generated key", status, text, nil)
	if n := read(); !strings.HasPrefix(n.Signatures[0], "team:") || len(n.Signatures) != 4 {
		t.Errorf("signatures %q", n.Signatures)
	}
}

// What clients put into the URL of the server is where it was reached.
func TestAtticIsToldWhereTheServerIs(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	public := openRigWith(t, nixcache.Config{PublicURL: "https://cache.example.org/prefix"}, func(p packstore.Store) packstore.Store { return p })
	for _, c := range []struct {
		rig    *rig
		header []string
		want   string
	}{
		{r, nil, "http://example.com/"},
		{r, []string{"X-Forwarded-Proto", "https"}, "https://example.com/"},
		{r, []string{"X-Forwarded-Proto", "HTTPS, http"}, "https://example.com/"},
		{r, []string{"X-Forwarded-Proto", "javascript"}, "http://example.com/"},
		{public, nil, "https://cache.example.org/prefix/"},
		{public, []string{"X-Forwarded-Proto", "http"}, "https://cache.example.org/prefix/"},
	} {
		var got configOf
		must(t, json.Unmarshal(c.rig.get("/_api/v1/cache-config/main", c.header...).Body.Bytes(), &got))
		if got.APIEndpoint != c.want || got.SubstituterEndpoint != c.want+"main" {
			t.Errorf("%v: api %s, substituter %s; want %s", c.header, got.APIEndpoint, got.SubstituterEndpoint, c.want)
		}
	}
}

func TestAtticPushes(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := r.attic(t)
	absent := digest.Of([]byte("absent")).Nix32()[:storepath.HashLen] + "-absent"
	for i, c := range []struct {
		prefix   string
		preamble bool
		nix32    bool
	}{{"X-Attic-", false, false}, {"X-Attic-", true, true}, {"X-Celler-", false, true}, {"X-Celler-", true, false}} {
		ar := newArchive(t, fmt.Sprint("path-", i), noise(300_000, fmt.Sprint(i)), 1<<20)
		ar.info.References = []string{absent, strings.TrimPrefix(ar.info.StorePath, "/nix/store/")}
		info := ar.upload("main")
		if c.nix32 {
			info["nar_hash"] = ar.info.NarHash.Nix()
		}
		status, text := a.put(c.prefix, c.preamble, info, iotest.HalfReader(bytes.NewReader(ar.plain)))
		var u uploaded
		a.want("upload", status, text, &u)
		if u.Kind != "Uploaded" || u.FileSize == nil || *u.FileSize < 300_000 || u.Deduplicated == nil || *u.Deduplicated != 0 {
			t.Errorf("%+v: %s", c, text)
		}
		n, err := narinfo.Parse(r.get(ar.narinfo()).Body.Bytes())
		if err != nil || n.NarHash != ar.info.NarHash || n.NarSize != ar.info.NarSize || !slices.Equal(n.References, slices.Sorted(slices.Values(ar.info.References))) {
			t.Fatalf("narinfo: %+v, %v", n, err)
		}
		if w := r.get("/" + n.URL); w.Code != http.StatusOK || digest.Of(w.Body.Bytes()) != n.FileHash || int64(w.Body.Len()) != n.FileSize {
			t.Errorf("the NAR: %d", w.Code)
		}
		if w := r.get("/nar/" + n.NarHash.String() + ".nar"); !bytes.Equal(w.Body.Bytes(), ar.plain) {
			t.Errorf("the NAR uncompressed: %d, %d bytes", w.Code, w.Body.Len())
		}
		// Again it is there already.
		status, text = a.put(c.prefix, c.preamble, info, bytes.NewReader(ar.plain))
		a.want("the same again", status, text, &u)
		if u.Kind != "Deduplicated" || *u.Deduplicated != 1 {
			t.Errorf("the same again: %s", text)
		}
	}
	// Most of this one is in another.
	ar := newArchive(t, "shares", append(noise(300_000, "0"), noise(600_000, "new")...), 1<<20)
	status, text := a.put("X-Attic-", false, ar.upload("main"), bytes.NewReader(ar.plain))
	var u uploaded
	a.want("upload", status, text, &u)
	if u.Kind != "Uploaded" || *u.Deduplicated < 0 || *u.Deduplicated > 0.5 {
		t.Errorf("a third is there: %s", text)
	}
}

// A path that is uploaded again with other contents has those from then on.
func TestAtticUploadsAPathAgain(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := r.attic(t)
	for _, contents := range []string{"first", "second"} {
		ar := newArchive(t, "again", []byte(contents), 1000)
		status, text := a.put("X-Attic-", false, ar.upload("main"), bytes.NewReader(ar.plain))
		a.want("upload", status, text, &uploaded{})
		if n, err := narinfo.Parse(r.get(ar.narinfo()).Body.Bytes()); err != nil || n.NarHash != ar.info.NarHash {
			t.Errorf("%s: %v, %v", contents, n, err)
		}
		if w := r.get(ar.nar()); w.Code != http.StatusOK {
			t.Errorf("%s: %d", contents, w.Code)
		}
	}
}

func TestAtticAsksForAHundredThousandPathsAtOnce(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := r.attic(t)
	there := newArchive(t, "there", []byte("there"), 1000)
	r.pushArchive(t, there, 1)
	const n = 100_000
	hashes := make([]string, n)
	for i := range hashes {
		hashes[i] = digest.Of([]byte(strconv.Itoa(i))).Nix32()[:storepath.HashLen]
	}
	hashes[n/2] = storepath.Hash(there.info.StorePath)
	status, text := a.send(http.MethodPost, "_api/v1/get-missing-paths", map[string]any{"cache": "main", "store_path_hashes": hashes})
	var got struct {
		Missing []string `json:"missing_paths"`
	}
	a.want("missing", status, text, &got)
	slices.Sort(got.Missing)
	want := slices.Sorted(slices.Values(slices.Delete(slices.Clone(hashes), n/2, n/2+1)))
	if !slices.Equal(got.Missing, want) {
		t.Errorf("%d missing of %d", len(got.Missing), len(want))
	}
	status, text = a.send(http.MethodPost, "_api/v1/get-missing-paths", map[string]any{"cache": "main", "store_path_hashes": hashes[n/2 : n/2+1]})
	if status != http.StatusOK || strings.TrimSpace(string(text)) != `{"missing_paths":[]}` {
		t.Errorf("nothing is missing: %d %s", status, text)
	}
}

// Each row of the table of errors, as far as this server has it.
func TestAtticErrors(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := r.attic(t)
	ar := newArchive(t, "hello", noise(3000, "1"), 1000)
	config := func(method, name string, body any) func() (int, []byte) {
		return func() (int, []byte) { return a.send(method, "_api/v1/cache-config/"+name, body) }
	}
	upload := func(key string, value any) func() (int, []byte) {
		return func() (int, []byte) {
			return a.put("X-Attic-", false, with(ar.upload("main"), key, value), bytes.NewReader(ar.plain))
		}
	}
	sent := func(nar []byte) func() (int, []byte) {
		return func() (int, []byte) { return a.put("X-Attic-", true, ar.upload("main"), bytes.NewReader(nar)) }
	}
	claimed := func(nar []byte) func() (int, []byte) {
		info := with(with(ar.upload("main"), "nar_size", len(nar)), "nar_hash", digest.Of(nar).Nix())
		return func() (int, []byte) { return a.put("X-Attic-", true, info, bytes.NewReader(nar)) }
	}
	missing := func(cache string, hashes ...string) func() (int, []byte) {
		return func() (int, []byte) {
			return a.send(http.MethodPost, "_api/v1/get-missing-paths", map[string]any{"cache": cache, "store_path_hashes": hashes})
		}
	}
	raw := func(method, route, body string, header map[string]string) func() (int, []byte) {
		return func() (int, []byte) { return a.do(method, route, strings.NewReader(body), header) }
	}
	other, err := narinfo.GenerateKey("other")
	must(t, err)
	halves := strings.Replace(other.Reveal(), other.Reveal()[10:20], "AAAAAAAAAA", 1)
	changed := slices.Clone(ar.plain)
	changed[200] ^= 1
	const bad, notFound = http.StatusBadRequest, http.StatusNotFound
	for what, c := range map[string]struct {
		ask    func() (int, []byte)
		status int
		name   string
		says   string
	}{
		"no such route":               {raw(http.MethodGet, "_api/v1/nothing", "", nil), notFound, "NotFound", ""},
		"config of no cache":          {raw(http.MethodGet, "_api/v1/cache-config/none", "", nil), notFound, "NoSuchCache", ""},
		"info of no cache":            {raw(http.MethodGet, "none/attic-cache-info", "", nil), notFound, "NoSuchCache", ""},
		"configure no cache":          {config(http.MethodPatch, "none", with(nil2map(), "priority", 1)), notFound, "NoSuchCache", ""},
		"destroy no cache":            {config(http.MethodDelete, "none", nil), notFound, "NoSuchCache", ""},
		"paths of no cache":           {missing("none"), notFound, "NoSuchCache", ""},
		"upload to no cache":          {upload("cache", "none"), notFound, "NoSuchCache", ""},
		"create twice":                {config(http.MethodPost, "main", defaults()), bad, "CacheAlreadyExists", ""},
		"create a bad name":           {config(http.MethodPost, "-a", defaults()), bad, "RequestError", "cache name"},
		"create a reserved name":      {config(http.MethodPost, "nar", defaults()), bad, "RequestError", "cache name"},
		"create without keypair":      {config(http.MethodPost, "new", with(defaults(), "keypair", nil)), bad, "RequestError", "keypair"},
		"create with half a key":      {config(http.MethodPost, "new", with(defaults(), "keypair", map[string]any{"Keypair": "a:AAAA"})), bad, "RequestError", "key"},
		"create with halves of two":   {config(http.MethodPost, "new", with(defaults(), "keypair", map[string]any{"Keypair": halves})), bad, "RequestError", "key"},
		"create with a strange key":   {config(http.MethodPost, "new", with(defaults(), "keypair", "Other")), bad, "RequestError", "keypair"},
		"create with a bad store":     {config(http.MethodPost, "new", with(defaults(), "store_dir", "nix/store")), bad, "RequestError", "store_dir"},
		"create with a bad upstream":  {config(http.MethodPost, "new", with(defaults(), "upstream_cache_key_names", []string{"a b"})), bad, "RequestError", "upstream"},
		"create with no JSON":         {raw(http.MethodPost, "_api/v1/cache-config/new", "{", nil), bad, "RequestError", ""},
		"create with too much":        {raw(http.MethodPost, "_api/v1/cache-config/new", strings.Repeat(" ", 2<<20), nil), http.StatusRequestEntityTooLarge, "RequestError", ""},
		"configure nothing":           {config(http.MethodPatch, "main", nil2map()), bad, "RequestError", "No modifiable fields were set."},
		"configure a store":           {config(http.MethodPatch, "main", with(nil2map(), "store_dir", "/gnu/store")), bad, "RequestError", "store_dir"},
		"configure a bad priority":    {config(http.MethodPatch, "main", with(nil2map(), "priority", 1<<40)), bad, "RequestError", ""},
		"configure a bad period":      {config(http.MethodPatch, "main", with(nil2map(), "retention_period", map[string]any{"Period": -1})), bad, "RequestError", "retention_period"},
		"paths with a bad hash":       {missing("main", "e123"), http.StatusInternalServerError, "InvalidStorePathHash", ""},
		"paths with no JSON":          {raw(http.MethodPost, "_api/v1/get-missing-paths", "[]x", nil), bad, "RequestError", ""},
		"upload without information":  {raw(http.MethodPut, "_api/v1/upload-path", "x", nil), bad, "RequestError", "X-Attic-Nar-Info"},
		"upload, no JSON":             {raw(http.MethodPut, "_api/v1/upload-path", "x", map[string]string{"X-Attic-Nar-Info": "{"}), bad, "RequestError", ""},
		"upload, preamble too long":   {raw(http.MethodPut, "_api/v1/upload-path", "x", map[string]string{"X-Attic-Nar-Info-Preamble-Size": "1048577"}), bad, "RequestError", "preamble"},
		"upload, preamble negative":   {raw(http.MethodPut, "_api/v1/upload-path", "x", map[string]string{"X-Attic-Nar-Info-Preamble-Size": "-1"}), bad, "RequestError", "preamble"},
		"upload, preamble cut off":    {raw(http.MethodPut, "_api/v1/upload-path", "{", map[string]string{"X-Attic-Nar-Info-Preamble-Size": "2"}), bad, "RequestError", "preamble"},
		"upload, bad path hash":       {upload("store_path_hash", "e"), http.StatusInternalServerError, "InvalidStorePathHash", ""},
		"upload, other path hash":     {upload("store_path_hash", hashA), bad, "RequestError", "store_path_hash"},
		"upload, other store":         {upload("store_path", "/gnu/store/"+hashA+"-x"), bad, "RequestError", "StorePath"},
		"upload, bad reference":       {upload("references", []string{"/nix/store/" + hashA + "-x"}), bad, "RequestError", "References"},
		"upload, bad signature":       {upload("sigs", []string{"x"}), bad, "RequestError", "Sig"},
		"upload, bad hash":            {upload("nar_hash", "sha256:abc"), bad, "RequestError", "nar_hash"},
		"upload, no size":             {upload("nar_size", 0), bad, "RequestError", "nar_size"},
		"upload, huge size":           {upload("nar_size", uint64(1<<63)), bad, "RequestError", "nar_size"},
		"upload, other hash":          {upload("nar_hash", "sha256:"+strings.Repeat("0", 64)), bad, "RequestError", "Bad NAR Hash or Size"},
		"upload, longer than said":    {upload("nar_size", len(ar.plain)-1), bad, "RequestError", "Bad NAR Hash or Size"},
		"upload, shorter than said":   {upload("nar_size", len(ar.plain)+1), bad, "RequestError", "Bad NAR Hash or Size"},
		"upload, changed":             {sent(changed), bad, "RequestError", "Bad NAR Hash or Size"},
		"upload, cut off":             {sent(ar.plain[:1000]), bad, "RequestError", "Bad NAR Hash or Size"},
		"upload, with something more": {sent(append(slices.Clone(ar.plain), 0)), bad, "RequestError", "Bad NAR Hash or Size"},
		"upload, nothing":             {sent(nil), bad, "RequestError", "Bad NAR Hash or Size"},
		"upload of no NAR":            {claimed(noise(100_000, "no NAR")), bad, "RequestError", "NAR"},
		"upload of two NARs":          {claimed(slices.Concat(ar.plain, ar.plain)), bad, "RequestError", "NAR"},
	} {
		t.Run(what, func(t *testing.T) {
			status, text := c.ask()
			said := a.wantError(what, status, text, c.status, c.name)
			if !strings.Contains(said, c.says) || strings.Contains(string(text), other.Reveal()[10:]) {
				t.Errorf("it says %q", said)
			}
			if strings.HasPrefix(c.says, "Bad") && said != c.says {
				t.Errorf("it says %q", said)
			}
		})
	}
	if w := r.get(ar.narinfo()); w.Code != http.StatusNotFound {
		t.Errorf("something was taken: %d %s", w.Code, w.Body)
	}
	if strings.Contains(r.log.String(), "request failed") {
		t.Errorf("a client's fault is in the log:\n%s", r.log)
	}
}

func nil2map() map[string]any { return map[string]any{} }

// A client that streams sees a broken pipe, and no answer, when the server answers
// before it has read all.
func TestAtticReadsTheWholeBodyBeforeItAnswers(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := r.attic(t)
	ar := newArchive(t, "hello", noise(3000, "1"), 1000)
	for what, info := range map[string]map[string]any{
		"no such cache": ar.upload("none"),
		"too long":      ar.upload("main"),
		"malformed":     with(ar.upload("main"), "sigs", []string{"x"}),
	} {
		read := &countingReader{r: io.LimitReader(zeros{}, 20<<20)}
		status, text := a.put("X-Attic-", false, info, read)
		if status/100 != 4 || read.n != 20<<20 {
			t.Errorf("%s: %d %s after %d bytes", what, status, text, read.n)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// A client that goes away in the middle leaves nothing behind that is visible.
func TestAtticUploadBrokenOff(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := r.attic(t)
	ar := newArchive(t, "hello", noise(3000, "1"), 1000)
	text, err := json.Marshal(ar.upload("main"))
	must(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, a.url+"_api/v1/upload-path",
		io.MultiReader(bytes.NewReader(ar.plain[:2000]), iotest.ErrReader(errors.New("gone"))))
	must(t, err)
	req.Header.Set("X-Attic-Nar-Info", string(text))
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_ = resp.Body.Close()
		t.Errorf("answered %s", resp.Status)
	}
	if w := r.get(ar.narinfo()); w.Code != http.StatusNotFound {
		t.Errorf("the path is there: %d", w.Code)
	}
	status, answer := a.put("X-Attic-", false, ar.upload("main"), bytes.NewReader(ar.plain))
	a.want("the upload afterwards", status, answer, &uploaded{})
}

func TestAtticFaultsOfTheEngines(t *testing.T) {
	t.Parallel()
	ar := newArchive(t, "hello", noise(3000, "1"), 1000)
	for name, c := range map[string]struct {
		fault  error
		status int
	}{
		"unavailable": {packstore.ErrUnavailable, http.StatusServiceUnavailable},
		"full":        {packstore.ErrNoSpace, http.StatusInsufficientStorage},
		"other":       {errors.New("input/output error"), http.StatusInternalServerError},
		"collected":   {index.ErrMissingChunks, http.StatusServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := openRig(t)
			a := r.attic(t)
			a.config("main") // so that the cache is known
			want := "InternalServerError"
			if name == "collected" {
				want = "IncompleteNar"
				r.index.fault.Store(&c.fault)
			} else {
				r.packs.fault.Store(&c.fault)
			}
			status, text := a.put("X-Attic-", true, ar.upload("main"), bytes.NewReader(ar.plain))
			if said := a.wantError("upload", status, text, c.status, want); strings.Contains(said, "input/output") {
				t.Errorf("it says %q", said)
			}
			r.index.fault.Store(nil)
			r.packs.fault.Store(nil)
			status, text = a.put("X-Attic-", true, ar.upload("main"), bytes.NewReader(ar.plain))
			a.want("afterwards", status, text, &uploaded{})
		})
	}
}
