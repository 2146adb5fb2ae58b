package push

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

const (
	attempts     = 3
	firstBackoff = 200 * time.Millisecond

	// A request may take baseTime, and for what it carries the time that a
	// link of slowestRate takes. Slower ones hold a build up for nothing.
	baseTime    = 15 * time.Second
	slowestRate = 128 << 10 // bytes a second

	// clientBudget bounds the bytes of chunks and frames in a client's memory.
	clientBudget = 32 << 20
)

// ErrTooSlow is wrapped when a request was given up because it moved less than
// 128 KiB a second.
var ErrTooSlow = errors.New("the cache is too slow")

// ErrNotSpoken is wrapped by Info when there is a server at the URL, but none
// that speaks this protocol.
var ErrNotSpoken = errors.New("the push protocol is not spoken here")

// StatusError is an answer that is not a success.
type StatusError struct {
	Status int
	Body   Error
}

func (e *StatusError) Error() string {
	if e.Body.Message != "" {
		return fmt.Sprintf("HTTP %d: %s", e.Status, e.Body.Message)
	}
	return fmt.Sprintf("HTTP %d %s", e.Status, http.StatusText(e.Status))
}

// ForeignError is an answer that is a success by its status, and none that a cache
// gives, such as the page of a proxy for everything.
type ForeignError struct {
	Status int
	Body   []byte
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("what answers is no cache (HTTP %d, %.60q): look for a proxy or a login page in between", e.Status, e.Body)
}

// Temporary says whether the same request may succeed a moment later.
func (e *StatusError) Temporary() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusInsufficientStorage:
		return false
	}
	return e.Status >= 500
}

// Client pushes to one cache. Its methods may be called at the same time.
type Client struct {
	base   *url.URL
	http   *http.Client
	token  string
	budget *semaphore.Weighted
	sent   atomic.Int64

	patience time.Duration // baseTime, but in tests
}

// NewClient makes a client of the cache at base, such as
// http://host:8080/main. The http and https schemes are taken.
func NewClient(base string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("cache URL: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("cache URL %q: want http://HOST[:PORT][/NAME] or https://…", base)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	transport.MaxIdleConnsPerHost = 32
	transport.DisableCompression = true
	return &Client{
		base: u, http: &http.Client{Transport: transport, CheckRedirect: noRedirect}, budget: semaphore.NewWeighted(clientBudget),
		patience: baseTime,
	}, nil
}

// noRedirect returns a redirection as it is: followed, a POST becomes a GET, and
// the push would fail with an error that names no cause.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// SetToken makes the client show a token, as a bearer. It is to be called before
// the first request.
func (c *Client) SetToken(token string) { c.token = token }

// URL returns the cache's URL.
func (c *Client) URL() string { return strings.TrimSuffix(c.base.String(), "/") }

// SentBytes is the sum of all request bodies so far, repeats included.
func (c *Client) SentBytes() int64 { return c.sent.Load() }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Info asks the server what it is. It does not try twice: a probe is to be
// quick.
func (c *Client) Info(ctx context.Context) (Info, error) {
	body, err := c.once(ctx, http.MethodGet, Root, "", nil, http.StatusOK)
	var status *StatusError
	var foreign *ForeignError
	if errors.As(err, &foreign) {
		return Info{}, fmt.Errorf("%w: %w", ErrNotSpoken, err)
	}
	if errors.As(err, &status) && status.Body.Code == "" && (status.Status == http.StatusNotFound || status.Status == http.StatusMethodNotAllowed) {
		return Info{}, fmt.Errorf("%w: %w", ErrNotSpoken, err)
	}
	if err != nil {
		return Info{}, err
	}
	var info Info
	if err := json.Unmarshal(body, &info); err != nil || info.Protocol == 0 {
		return Info{}, fmt.Errorf("%w: %.80q", ErrNotSpoken, body)
	}
	if info.Protocol != Version {
		return Info{}, fmt.Errorf("the server speaks version %d of the push protocol, this client version %d", info.Protocol, Version)
	}
	return info, nil
}

// MissingPaths returns those of the 32-character hashes that the cache lacks.
func (c *Client) MissingPaths(ctx context.Context, hashes []string) ([]string, error) {
	const perQuery = 100_000
	var missing []string
	for len(hashes) > 0 {
		n := min(perQuery, len(hashes))
		query, err := json.Marshal(PathsQuery{Hashes: hashes[:n]})
		if err != nil {
			return nil, err
		}
		body, err := c.post(ctx, "missing-paths", "application/json", query)
		if err != nil {
			return nil, fmt.Errorf("asking which paths are missing: %w", err)
		}
		var lacks []string
		if err := member(body, "missing", &lacks); err != nil {
			return nil, fmt.Errorf("asking which paths are missing: %w", err)
		}
		for _, h := range lacks {
			if err := storepath.CheckHash(h); err != nil {
				return nil, fmt.Errorf("asking which paths are missing: the answer has an %w", err)
			}
		}
		missing = append(missing, lacks...)
		hashes = hashes[n:]
	}
	return missing, nil
}

// missingChunks returns those of the chunks that the server lacks.
func (c *Client) missingChunks(ctx context.Context, hashes []digest.Hash) ([]digest.Hash, error) {
	body, err := c.post(ctx, "missing-chunks", "application/octet-stream", AppendHashes(nil, hashes))
	if err != nil {
		return nil, fmt.Errorf("asking which chunks are missing: %w", err)
	}
	missing, err := ReadHashes(bytes.NewReader(body), len(hashes))
	if err != nil {
		return nil, fmt.Errorf("asking which chunks are missing: %w", err)
	}
	return missing, nil
}

// Commit makes an uploaded path visible and returns the references that the
// cache does not hold.
func (c *Client) Commit(ctx context.Context, n *narinfo.NarInfo, chunks []digest.Chunk) (missingReferences []string, err error) {
	return c.CommitBuilt(ctx, n, chunks, 0)
}

// member reads that member of an answer which each of its kind has. An object
// without it would else mean that nothing is missing.
func member(answer []byte, name string, into any) error {
	var members map[string]json.RawMessage
	if json.Unmarshal(answer, &members) != nil || members[name] == nil || json.Unmarshal(members[name], into) != nil {
		return &ForeignError{http.StatusOK, answer}
	}
	return nil
}

func (c *Client) post(ctx context.Context, route, contentType string, body []byte) ([]byte, error) {
	return c.retry(ctx, http.MethodPost, route, contentType, body, http.StatusOK)
}

// retry tries a request again where that may help. success is the one status that
// PROTOCOL.md has for it.
func (c *Client) retry(ctx context.Context, method, route, contentType string, body []byte, success int) ([]byte, error) {
	wait := firstBackoff
	for attempt := 1; ; attempt++ {
		answer, err := c.once(ctx, method, Root+"/"+route, contentType, body, success)
		var status *StatusError
		var foreign *ForeignError
		switch {
		case err == nil:
			return answer, nil
		case attempt == attempts, ctx.Err() != nil, errors.Is(err, ErrTooSlow), errors.As(err, &foreign):
			return nil, err
		case errors.As(err, &status) && !status.Temporary():
			return nil, err
		}
		select {
		case <-time.After(wait/2 + rand.N(wait)): // #nosec G404 -- no secret depends on it
			wait *= 2
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (c *Client) once(ctx context.Context, method, route, contentType string, body []byte, success int) (_ []byte, err error) {
	limit := c.patience + time.Duration(len(body))*time.Second/slowestRate
	ctx, cancel := context.WithTimeoutCause(ctx, limit, ErrTooSlow)
	defer cancel()
	defer func() {
		// An error of the transport does not tell which deadline it was.
		if err != nil && errors.Is(context.Cause(ctx), ErrTooSlow) {
			err = fmt.Errorf("%w: no answer within %v", ErrTooSlow, limit.Round(time.Second))
		}
	}()
	route, query, _ := strings.Cut(route, "?")
	address := c.base.JoinPath(route)
	address.RawQuery = query
	req, err := http.NewRequestWithContext(ctx, method, address.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	c.sent.Add(int64(len(body)))
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, Cause(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, MaxPathsBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", Cause(err))
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		status := &StatusError{Status: resp.StatusCode}
		_ = json.Unmarshal(answer, &status.Body) // a proxy's answer is no JSON
		return nil, status
	}
	if resp.StatusCode != success {
		return nil, &ForeignError{resp.StatusCode, answer}
	}
	if len(answer) > MaxPathsBody {
		return nil, fmt.Errorf("an answer of more than %d bytes", MaxPathsBody)
	}
	return answer, nil
}

// Cause is what a request failed of: without its URL, which is the caller's to
// name, once, and without the connection's ports, which make the same fault another
// one each time.
func Cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op != "dial" { // a dial tells whom nobody answers at
		err = op.Err
	}
	return err
}
