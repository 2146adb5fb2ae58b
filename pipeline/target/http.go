package target

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
)

const (
	// probeTime is how long a cache may take to say that it is there.
	probeTime = 5 * time.Second
	// maxInfo bounds what a cache says of itself, in bytes.
	maxInfo = 64 << 10
	// slowestRate is that of links that are waited for, in bytes a second.
	slowestRate = 128 << 10
)

// transferTime is how long a link of slowestRate takes.
func transferTime(bytes int64) time.Duration {
	return time.Duration(float64(bytes) / slowestRate * float64(time.Second))
}

func succeeded(status int) bool { return status >= 200 && status <= 299 }

// client is that of all requests which package push does not send.
var client = &http.Client{
	Transport: func() *http.Transport {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DialContext = (&net.Dialer{Timeout: probeTime, KeepAlive: 30 * time.Second}).DialContext
		t.MaxIdleConnsPerHost = 32
		t.DisableCompression = true
		return t
	}(),
	// A PUT or POST that is redirected becomes a GET that means nothing.
	CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if via[0].Method != http.MethodGet && via[0].Method != http.MethodHead {
			return http.ErrUseLastResponse
		}
		if len(via) > 5 {
			return errors.New("more than 5 redirections")
		}
		return nil
	},
}

// at is the URL of a file of a cache, whose own URL may carry nix's settings
// behind a question mark.
func at(cache, file string) string {
	bare, _, _ := strings.Cut(cache, "?")
	return strings.TrimSuffix(bare, "/") + "/" + file
}

// do sends a request and returns what is answered, at most maxInfo bytes of it.
func do(ctx context.Context, method, address, token string, body io.Reader) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Cache-Control", "no-cache") // what is asked is how things are now
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, push.Cause(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxInfo))
	if err != nil {
		return 0, nil, fmt.Errorf("reading the answer: %w", push.Cause(err))
	}
	return resp.StatusCode, text, nil
}

// info is a nix-cache-info.
type info struct {
	text     []byte
	storeDir string
}

// cacheInfo reads the one file that each binary cache has.
func cacheInfo(ctx context.Context, cache, token string) (info, error) {
	status, text, err := do(ctx, http.MethodGet, at(cache, "nix-cache-info"), token, nil)
	if err != nil {
		return info{}, err
	}
	if status != http.StatusOK {
		return info{}, fmt.Errorf("nix-cache-info: HTTP %d %s", status, http.StatusText(status))
	}
	if !describesCache(text) {
		return info{}, fmt.Errorf("there is no binary cache: its nix-cache-info begins with %.20q", text)
	}
	return info{text: text, storeDir: storeDirOf(text)}, nil
}

// describesCache tells a nix-cache-info from what a server or a login page answers
// to everything. An empty one is taken, as Nix does.
func describesCache(text []byte) bool {
	return len(text) == 0 || slices.ContainsFunc(strings.Split(string(text), "\n"), func(line string) bool {
		key, _, _ := strings.Cut(line, ":")
		return key == "StoreDir" || key == "WantMassQuery" || key == "Priority"
	})
}

func storeDirOf(text []byte) string {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if dir, ok := strings.CutPrefix(lines.Text(), "StoreDir:"); ok {
			return strings.TrimSpace(dir)
		}
	}
	return ""
}

// takesUploads returns why a plain HTTP cache takes none. It is asked to store
// the nix-cache-info that it has just served, byte by byte, which changes
// nothing. A server that takes every method for GET gives it back once more.
func takesUploads(ctx context.Context, cache, token string, i info) error {
	status, text, err := do(ctx, http.MethodPut, at(cache, "nix-cache-info"), token, bytes.NewReader(i.text))
	switch {
	case err != nil:
		return fmt.Errorf("uploads are not taken: %w", err)
	case status != http.StatusOK && status != http.StatusCreated && status != http.StatusNoContent:
		return fmt.Errorf("uploads are not taken: HTTP %d %s", status, http.StatusText(status))
	case status == http.StatusOK && bytes.Equal(text, i.text):
		return errors.New("uploads are not taken")
	case status == http.StatusOK && strings.HasPrefix(http.DetectContentType(text), "text/html"):
		// 201 with a page is what Apache answers to what it has stored.
		return fmt.Errorf("uploads are not taken: %w", &push.ForeignError{Status: status, Body: text})
	}
	return nil
}
