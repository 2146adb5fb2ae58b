package verify

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nix-community/go-nix/pkg/nixbase32"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
)

const (
	tripName = "flywheel-verify"
	// tripSize is of its contents: enough to be stored as a real path is, and too
	// little to be missed where this may not delete it.
	tripSize = 1 << 10
	// maxNAR bounds what is read of an answer that should be of tripSize.
	maxNAR = 64 << 10

	lookAtKeys = "the cache's signing keys: cacheserver cache list; was the index restored or replaced, so that the cache has another key than clients trust?"
	lookAtFsck = "the packs: cacheserver fsck, in a pod; and whatever stands between and changes bodies"
)

// trip is the path that makes a round trip. It is new each time: one that the
// cache held already would not show that it can write. It has no content address,
// so that Nix accepts it by nothing but its signature.
type trip struct {
	info *narinfo.NarInfo
	nar  []byte
	keys []string // one of which has to sign it
	told bool     // the keys are those that the server tells
}

func newTrip(storeDir string) (*trip, error) {
	contents := fmt.Appendf(nil, "Made by flywheel verify at %s.\n", time.Now().UTC().Format(time.RFC3339))
	filling := make([]byte, tripSize-len(contents))
	_, _ = rand.Read(filling) // it never fails
	contents = append(contents, filling...)
	dir, err := os.MkdirTemp("", "flywheel-verify-")
	if err != nil {
		return nil, fmt.Errorf("making a path to push: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, tripName)
	if err := os.WriteFile(file, contents, 0o600); err != nil {
		return nil, fmt.Errorf("making a path to push: %w", err)
	}
	var dumped bytes.Buffer
	if err := nar.Dump(&dumped, file); err != nil {
		return nil, fmt.Errorf("making a path to push: %w", err)
	}
	hash := digest.Of(dumped.Bytes())
	return &trip{nar: dumped.Bytes(), info: &narinfo.NarInfo{
		StorePath: path.Join(storeDir, nixbase32.EncodeToString(hash[:20])+"-"+tripName),
		NarHash:   hash, NarSize: int64(dumped.Len()),
	}}, nil
}

// push sends a new path.
func (c *cache) push(ctx context.Context) (string, error) {
	client, err := push.NewClient(c.base.String())
	if err != nil {
		return "", &fault{reason: err.Error(), look: lookAtURL, final: true}
	}
	defer client.Close()
	client.SetToken(c.token)
	said, err := client.Info(ctx)
	if err != nil {
		return "", pushFault(ctx, "asking how to push", err)
	}
	t, err := newTrip(c.storeDir)
	if err != nil {
		return "", err
	}
	if t.keys = c.keys; len(t.keys) == 0 {
		t.keys, t.told = said.PublicKeys, true
	}
	average := said.Chunking.Average
	if average == 0 {
		average = chunker.DefaultAverage
	}
	chunks, err := client.Upload(ctx, t.info.NarSize, average, func(w io.Writer) error {
		_, err := w.Write(t.nar)
		return err
	})
	if err != nil {
		return "", pushFault(ctx, "pushing", err)
	}
	if _, err := client.Commit(ctx, t.info, chunks); err != nil {
		return "", pushFault(ctx, "committing what was pushed", err)
	}
	c.trip = t
	return fmt.Sprintf("%s, %d bytes", t.info.StorePath, t.info.NarSize), nil
}

func pushFault(ctx context.Context, doing string, err error) *fault {
	var status *push.StatusError
	switch {
	case errors.Is(err, push.ErrNotSpoken):
		return &fault{
			reason: doing + ": " + push.ErrNotSpoken.Error(),
			look:   lookAtURL + " For a cache that only reads, give --read-only",
			final:  true,
		}
	case !errors.As(err, &status):
		f := transportFault(ctx, err)
		f.reason = doing + ": " + f.reason
		return f
	}
	f := statusFault(status.Status, status.Body.Message)
	f.reason = doing + ": " + f.reason
	f.final = !status.Temporary()
	switch status.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		f.look = "the token: does it have the right push on this cache, and has it not expired (ATTIC_TOKEN, --token-file, netrc)? Without one give --read-only"
	case http.StatusInsufficientStorage:
		f.look = "the room that packs have: --max-size, the bucket's quota, the volume; cacheserver gc --dry-run"
	}
	return f
}

// signed reads back what the cache says of the path, and by whom that is signed.
func (c *cache) signed(ctx context.Context) (string, error) {
	t := c.trip
	text, err := c.get(ctx, storepath.Hash(t.info.StorePath)+".narinfo", narinfo.MaxSize)
	if err != nil {
		return "", err
	}
	got, err := narinfo.Parse(text)
	if err != nil {
		return "", &fault{reason: err.Error(), look: lookAtRoute, final: true}
	}
	if got.StorePath != t.info.StorePath || got.NarHash != t.info.NarHash || got.NarSize != t.info.NarSize || len(got.References) > 0 {
		return "", &fault{
			reason: fmt.Sprintf("the narinfo is of %s with NarHash %s, not of what was pushed", oneLine(got.StorePath), got.NarHash.Nix()),
			look:   "what stands between and answers from memory; then the index", final: true,
		}
	}
	for _, key := range t.keys {
		ok, err := got.Signed(key)
		if err != nil {
			return "", &fault{reason: fmt.Sprintf("the key %s: %v", oneLine(key), err), look: "the key that was given", final: true}
		}
		if ok {
			t.info.URL, t.info.Compression = got.URL, got.Compression
			if t.told {
				return fmt.Sprintf("signed by %s, a key that the server tells; to expect another give --trusted-public-key", key), nil
			}
			return "signed by " + key, nil
		}
	}
	return "", &fault{
		reason: fmt.Sprintf("no signature is by %s; signed by %s", strings.Join(t.keys, " or "), signers(got.Signatures)),
		look:   lookAtKeys, final: true,
	}
}

// signers are the names of the keys that signatures claim.
func signers(signatures []string) string {
	if len(signatures) == 0 {
		return "nobody"
	}
	names := make([]string, len(signatures))
	for i, s := range signatures {
		names[i], _, _ = strings.Cut(s, ":")
		names[i] = oneLine(names[i])
	}
	return strings.Join(names, ", ") + ", perhaps with another key of that name"
}

// substitute reads the NAR back as a client does, and compares it with its hash.
func (c *cache) substitute(ctx context.Context) (string, error) {
	want := c.trip.info
	if want.URL == "" {
		return "", fmt.Errorf("%w: no narinfo says where the NAR is", check.ErrSkip)
	}
	body, err := c.get(ctx, want.URL, maxNAR)
	if err != nil {
		return "", err
	}
	got := body
	switch want.Compression {
	case "none":
	case "zstd":
		decoder, err := zstd.NewReader(bytes.NewReader(body), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return "", fmt.Errorf("unpacking the NAR: %w", err)
		}
		defer decoder.Close()
		if got, err = io.ReadAll(io.LimitReader(decoder, maxNAR)); err != nil {
			return "", &fault{reason: fmt.Sprintf("the NAR cannot be unpacked: %v", err), look: lookAtFsck, final: true}
		}
	default:
		return "", fmt.Errorf("%w: the NAR is compressed by %q, which only Nix unpacks here", check.ErrSkip, oneLine(want.Compression))
	}
	if hash := digest.Of(got); hash != want.NarHash {
		return "", &fault{
			reason: fmt.Sprintf("the NAR is corrupt: %d bytes with the hash %s, not %d with %s", len(got), hash.Nix(), want.NarSize, want.NarHash.Nix()),
			look:   lookAtFsck, final: true,
		}
	}
	return fmt.Sprintf("%d bytes as %s, of the right hash", len(body), want.Compression), nil
}

// get reads a file of the cache; name may be absolute, as a narinfo's URL may.
func (c *cache) get(ctx context.Context, name string, limit int64) ([]byte, error) {
	target := c.base.JoinPath("/").ResolveReference(parsed(name))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", target.Redacted(), err)
	}
	if target.Host == c.base.Host { // a token is not for the S3 that a NAR may be at
		c.sign(req)
		target.User = c.base.User
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, transportFault(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, transportFault(ctx, err)
	}
	shownName := oneLine(path.Base(target.Path))
	if resp.StatusCode != http.StatusOK {
		f := statusFault(resp.StatusCode, string(body))
		f.reason = shownName + ": " + f.reason
		if resp.StatusCode == http.StatusNotFound {
			f.look = "whether all replicas have the same index and the same packs: what one was given, another does not have"
		}
		return nil, f
	}
	if int64(len(body)) > limit {
		return nil, &fault{reason: fmt.Sprintf("%s: the answer is longer than %d bytes", shownName, limit), look: lookAtRoute, final: true}
	}
	return body, nil
}

// sign shows the token, if there is one.
func (c *cache) sign(req *http.Request) {
	req.Header.Set("User-Agent", "flywheel-verify")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
}
