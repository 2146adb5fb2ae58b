package target

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/pusher"
)

const (
	// maxInfoHeader is up to how many bytes Attic's clients tell of a NAR in a
	// header; more goes before the NAR.
	maxInfoHeader = 4096
	atticAttempts = 3
	atticBackoff  = 500 * time.Millisecond
	// A request may take atticBase, and the NAR's transferTime: the server answers
	// when it has compressed and stored all of it.
	atticBase = 60 * time.Second
	maxAnswer = 16 << 20
)

// errNoAttic is what askAttic returns for a URL that is none of Attic's.
var errNoAttic = errors.New("no Attic server")

// attic is a cache of an Attic server (API version 1). It takes whole NARs.
type attic struct {
	url, api, cache string
	token           string
	sent            atomic.Int64
	// But in tests, atticBase and atticBackoff.
	patience, backoff time.Duration
}

// atticConfig is what Attic says of a cache.
type atticConfig struct {
	API          string   `json:"api_endpoint"`
	PublicKey    string   `json:"public_key"`
	StoreDir     string   `json:"store_dir"`
	UpstreamKeys []string `json:"upstream_cache_key_names"`
}

// readAtticConfig returns false for what is none, such as a login page.
func readAtticConfig(status int, text []byte) (c atticConfig, ok bool) {
	ok = status == http.StatusOK && json.Unmarshal(text, &c) == nil && c.PublicKey != ""
	return c, ok
}

// askAttic reads the cache's configuration and fills in the answer.
func askAttic(ctx context.Context, a *Answer, token string) (*attic, error) {
	bare, _, _ := strings.Cut(a.URL, "?")
	base, err := url.Parse(bare)
	if err != nil {
		return nil, err
	}
	name := path.Base(base.Path)
	if name == "." || name == "/" {
		return nil, errNoAttic // its caches have names
	}
	status, text, err := do(ctx, http.MethodGet, at(a.URL, "attic-cache-info"), token, nil)
	if err != nil {
		return nil, err
	}
	config, ok := readAtticConfig(status, text)
	switch known := atticError(status, text); {
	case ok:
	case status == http.StatusUnauthorized || known.Body.Code != "":
		return nil, fmt.Errorf("attic: %w", known)
	default:
		return nil, errNoAttic
	}
	t := &attic{url: a.URL, api: config.API, cache: name, token: token, patience: atticBase, backoff: atticBackoff}
	if t.api == "" {
		root := *base
		root.Path = strings.TrimSuffix(strings.TrimSuffix(base.Path, "/"), name)
		t.api = root.String()
	}
	t.api = strings.TrimSuffix(t.api, "/") + "/"
	a.StoreDir, a.PublicKeys, a.UpstreamKeys = config.StoreDir, []string{config.PublicKey}, config.UpstreamKeys
	return t, nil
}

func (t *attic) URL() string      { return t.url }
func (*attic) Kind() Kind         { return Attic }
func (*attic) Jobs() int          { return pusher.DefaultJobs }
func (t *attic) SentBytes() int64 { return t.sent.Load() }
func (*attic) Close()             {}

// Probe implements pusher.Target.
func (t *attic) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	status, text, err := do(ctx, http.MethodGet, t.api+"_api/v1/cache-config/"+t.cache, t.token, nil)
	if err != nil {
		return err
	}
	switch _, ok := readAtticConfig(status, text); {
	case ok:
		return nil
	case succeeded(status):
		return &push.ForeignError{Status: status, Body: text}
	}
	return atticError(status, text)
}

// MissingPaths implements pusher.Target.
func (t *attic) MissingPaths(ctx context.Context, hashes []string) ([]string, error) {
	query, err := json.Marshal(map[string]any{"cache": t.cache, "store_path_hashes": hashes})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Missing *[]string `json:"missing_paths"` // nil where the answer is another's
	}
	err = t.again(ctx, int64(len(query)), func(ctx context.Context) error {
		text, err := t.request(ctx, http.MethodPost, "get-missing-paths", http.Header{"Content-Type": {"application/json"}}, bytes.NewReader(query))
		if err != nil {
			return err
		}
		if json.Unmarshal(text, &answer) != nil || answer.Missing == nil {
			return &push.ForeignError{Status: http.StatusOK, Body: text}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("asking which paths are missing: %w", err)
	}
	for _, h := range *answer.Missing {
		if err := storepath.CheckHash(h); err != nil {
			return nil, fmt.Errorf("asking which paths are missing: the answer has an %w", err)
		}
	}
	return *answer.Missing, nil
}

// narInfo is what Attic is told of a NAR.
type narInfo struct {
	Cache         string   `json:"cache"`
	StorePathHash string   `json:"store_path_hash"`
	StorePath     string   `json:"store_path"`
	References    []string `json:"references"`
	System        *string  `json:"system"`
	Deriver       *string  `json:"deriver"`
	Sigs          []string `json:"sigs"`
	CA            *string  `json:"ca"`
	NarHash       string   `json:"nar_hash"`
	NarSize       int64    `json:"nar_size"`
}

// Send implements pusher.Target.
func (t *attic) Send(ctx context.Context, p pusher.Path) error {
	if err := p.Ready(ctx); err != nil {
		return err
	}
	said := narInfo{
		Cache: t.cache, StorePathHash: storepath.Hash(p.StorePath), StorePath: p.StorePath,
		References: append([]string{}, p.References...), Sigs: append([]string{}, p.Signatures...),
		NarHash: "sha256:" + p.NarHash.String(), NarSize: p.NarSize,
	}
	if p.Deriver != "" {
		said.Deriver = &p.Deriver
	}
	if p.CA != "" {
		said.CA = &p.CA
	}
	text, err := json.Marshal(said)
	if err != nil {
		return err
	}
	err = t.again(ctx, p.NarSize, func(ctx context.Context) error { return t.upload(ctx, text, p.Dump) })
	if err != nil {
		return fmt.Errorf("uploading: %w", err)
	}
	return nil
}

func (t *attic) upload(ctx context.Context, said []byte, dump func(io.Writer) error) error {
	pr, pw := io.Pipe()
	dumped := make(chan error, 1)
	go func() {
		err := dump(pw)
		_ = pw.CloseWithError(err)
		dumped <- err
	}()
	header := http.Header{}
	var body io.Reader = pr
	if len(said) < maxInfoHeader {
		header.Set("X-Attic-Nar-Info", string(said))
	} else {
		header.Set("X-Attic-Nar-Info-Preamble-Size", strconv.Itoa(len(said)))
		body = io.MultiReader(bytes.NewReader(said), pr)
	}
	text, err := t.request(ctx, http.MethodPut, "upload-path", header, body)
	_ = pr.CloseWithError(errAnswered)
	if e := <-dumped; e != nil && !errors.Is(e, errAnswered) {
		return e // of the store on this machine: it tells more than the cut connection
	}
	var stored struct {
		Kind string `json:"kind"` // Uploaded or Deduplicated
	}
	if err == nil && (json.Unmarshal(text, &stored) != nil || stored.Kind == "") {
		return &push.ForeignError{Status: http.StatusOK, Body: text}
	}
	return err
}

var errAnswered = errors.New("the server answered before it had read all")

func (t *attic) request(ctx context.Context, method, route string, header http.Header, body io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, t.api+"_api/v1/"+route, &counting{body, &t.sent})
	if err != nil {
		return nil, err
	}
	req.Header = header
	if t.token != "" {
		req.Header.Set("Authorization", "Bearer "+t.token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, push.Cause(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", push.Cause(err))
	}
	if !succeeded(resp.StatusCode) {
		return nil, atticError(resp.StatusCode, text)
	}
	return text, nil
}

// again tries what may succeed a moment later.
func (t *attic) again(ctx context.Context, size int64, try func(context.Context) error) error {
	wait := t.backoff
	for attempt := 1; ; attempt++ {
		limit := t.patience + transferTime(size)
		once, cancel := context.WithTimeoutCause(ctx, limit, push.ErrTooSlow)
		err := try(once)
		slow := errors.Is(context.Cause(once), push.ErrTooSlow)
		cancel()
		var status *push.StatusError
		var foreign *push.ForeignError
		switch {
		case err == nil:
			return nil
		case slow:
			return fmt.Errorf("%w: no answer within %v", push.ErrTooSlow, limit.Round(time.Second))
		case attempt == atticAttempts, ctx.Err() != nil, errors.As(err, &foreign), errors.As(err, &status) && !status.Temporary():
			return err
		}
		select {
		case <-time.After(wait/2 + rand.N(wait)): // #nosec G404 -- no secret depends on it
			wait *= 2
		case <-ctx.Done():
			return err
		}
	}
}

// atticError is an answer that is not a success. Code is empty where it is none
// of Attic's.
func atticError(status int, text []byte) *push.StatusError {
	var said struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}
	_ = json.Unmarshal(text, &said) // a proxy's answer is no JSON
	return &push.StatusError{Status: status, Body: push.Error{Code: said.Error, Message: said.Message}}
}

type counting struct {
	io.Reader
	n *atomic.Int64
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}
