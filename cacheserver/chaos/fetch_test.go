package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
)

var (
	// errGone is an answer of 404.
	errGone = errors.New("404")
	// errCorrupt is wrapped when what was served as good is not.
	errCorrupt = errors.New("a wrong answer")
)

// statusError is an answer that is neither 200 nor 404.
type statusError struct {
	status int
	header http.Header
	body   string
}

func (e *statusError) Error() string { return fmt.Sprintf("status %d: %s", e.status, e.body) }

var browser = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32, DisableCompression: true}}

// get reads an answer to its end. An error that is neither errGone nor a
// statusError is a connection's.
func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := browser.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body) // an error where it is shorter than it said
	switch {
	case err != nil:
		return nil, fmt.Errorf("in the middle of an answer: %w", err)
	case resp.StatusCode == http.StatusNotFound:
		return nil, errGone
	case resp.StatusCode != http.StatusOK:
		return nil, &statusError{resp.StatusCode, resp.Header, strings.TrimSpace(string(body))}
	case resp.ContentLength != int64(len(body)):
		return nil, fmt.Errorf("%w: %d bytes where Content-Length says %d", errCorrupt, len(body), resp.ContentLength)
	}
	return body, nil
}

// fetchInfo gets the narinfo of an item and compares it with what was pushed.
func (v *server) fetchInfo(ctx context.Context, it *item) (*narinfo.NarInfo, error) {
	text, err := get(ctx, v.url+"/"+it.hash+".narinfo")
	if err != nil {
		return nil, fmt.Errorf("the narinfo: %w", err)
	}
	n, err := narinfo.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	signed, err := n.Signed(v.key)
	if err != nil {
		return nil, err
	}
	want := it.info
	switch {
	case !signed:
		err = errors.New("its signature is not the cache's")
	case n.StorePath != want.StorePath, n.NarHash != want.NarHash, n.NarSize != want.NarSize, !slices.Equal(n.References, want.References):
		err = errors.New("it says something else than was pushed")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w:\n%s", errCorrupt, err, text)
	}
	return n, nil
}

var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(2*largest))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
})

// fetchNAR gets the NAR that a narinfo names, and compares every byte.
func (v *server) fetchNAR(ctx context.Context, n *narinfo.NarInfo) error {
	file, err := get(ctx, v.url+"/"+n.URL)
	if err != nil {
		return fmt.Errorf("the NAR: %w", err)
	}
	if int64(len(file)) != n.FileSize || digest.Of(file) != n.FileHash {
		return fmt.Errorf("%w: the file of %d bytes, %s, is not the narinfo's of %d, %s", errCorrupt, len(file), digest.Of(file).Nix(), n.FileSize, n.FileHash.Nix())
	}
	archive, err := decoder().DecodeAll(file, nil)
	if err != nil {
		return fmt.Errorf("%w: the NAR does not unpack: %w", errCorrupt, err)
	}
	if int64(len(archive)) != n.NarSize || digest.Of(archive) != n.NarHash {
		return fmt.Errorf("%w: the NAR of %d bytes is %s", errCorrupt, len(archive), digest.Of(archive).Nix())
	}
	return nil
}

// fetch gets a path whole, as Nix does.
func (v *server) fetch(ctx context.Context, it *item) error {
	n, err := v.fetchInfo(ctx, it)
	if err != nil {
		return err
	}
	return v.fetchNAR(ctx, n)
}
