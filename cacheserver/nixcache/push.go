package nixcache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	narformat "gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

func (d *Door) pushInfo(w http.ResponseWriter, _ *http.Request, c *cache) error {
	writeJSON(w, http.StatusOK, push.Info{
		Protocol: push.Version, Cache: c.Name, StoreDir: c.StoreDir, Priority: c.Priority,
		PublicKeys: c.publicKeys(),
		Chunking:   push.Chunking{Algorithm: "fastcdc2020", Average: chunker.DefaultAverage},
		Limits: push.Limits{
			Chunk: frame.MaxChunk, ChunksBody: push.MaxChunksBody, ChunksPerBody: push.MaxChunksPerBody, ChunksPerQuery: push.MaxChunksPerQuery,
			PathsBody: push.MaxPathsBody, CommitBody: push.MaxCommitBody,
		},
	})
	return nil
}

// A body may take bodyTime, and what a link of slowestBody takes for it.
const (
	bodyTime    = 30 * time.Second // Door.patience
	slowestBody = 64 << 10         // bytes a second
)

// body returns the request's body, of at most limit bytes. One that says that
// it is longer is refused before it is read, and one that comes too slowly ends
// with os.ErrDeadlineExceeded: it holds memory that others wait for. done is to
// be called as soon as the body was read: the connection is listened to while
// the request is worked on, and a deadline that passes then would end it. Not so
// after an error: net/http reads on to find the next request, and must not wait.
func (d *Door) body(w http.ResponseWriter, r *http.Request, limit int64) (b io.Reader, done func(), err error) {
	if r.ContentLength > limit {
		return nil, nil, &http.MaxBytesError{Limit: limit}
	}
	size := limit
	if r.ContentLength >= 0 {
		size = r.ContentLength
	}
	conn := http.NewResponseController(w)
	// Not every ResponseWriter has a connection: a test's recorder has none.
	_ = conn.SetReadDeadline(time.Now().Add(d.patience + time.Duration(size)*time.Second/slowestBody))
	return http.MaxBytesReader(w, r.Body, limit), func() { _ = conn.SetReadDeadline(time.Time{}) }, nil
}

func (d *Door) missingPaths(w http.ResponseWriter, r *http.Request, c *cache) error {
	b, done, err := d.body(w, r, push.MaxPathsBody)
	if err != nil {
		return err
	}
	var query push.PathsQuery
	text, err := io.ReadAll(b)
	if err == nil {
		done()
		err = json.Unmarshal(text, &query) // unlike a Decoder, it sees what stands behind
	}
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return err
		}
		return fmt.Errorf("%w: %w", push.ErrMalformed, err)
	}
	for _, h := range query.Hashes {
		if err := storepath.CheckHash(h); err != nil {
			return err
		}
	}
	missing, err := d.missing(r.Context(), c, query.Hashes)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, push.PathsAnswer{Missing: missing})
	return nil
}

func (d *Door) missingChunks(w http.ResponseWriter, r *http.Request, _ *cache) error {
	b, done, err := d.body(w, r, push.MaxChunksPerQuery*digest.Size)
	if err != nil {
		return err
	}
	hashes, err := push.ReadHashes(b, push.MaxChunksPerQuery)
	if err != nil {
		return err
	}
	done()
	missing, err := d.store.Missing(r.Context(), hashes)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(push.AppendHashes(nil, missing))
	return nil
}

func (d *Door) chunks(w http.ResponseWriter, r *http.Request, _ *cache) error {
	expected := r.ContentLength
	if expected < 0 || expected > push.MaxChunksBody {
		expected = push.MaxChunksBody
	}
	// The wait for memory comes before the client's time begins to run.
	release, err := d.store.Reserve(r.Context(), expected)
	if err != nil {
		return err
	}
	defer release()
	b, done, err := d.body(w, r, push.MaxChunksBody)
	if err != nil {
		return err
	}
	frames, err := push.ReadFrames(b)
	if err != nil {
		return err
	}
	done()
	if err := d.store.PutFrames(r.Context(), frames); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *Door) commit(w http.ResponseWriter, r *http.Request, c *cache) error {
	b, done, err := d.body(w, r, push.MaxCommitBody)
	if err != nil {
		return err
	}
	n, chunks, err := push.ReadCommit(b)
	if err != nil {
		return err
	}
	done()
	if err := n.Check(c.StoreDir); err != nil {
		return err
	}
	path, err := pathOf(r.Context(), c, n)
	if err != nil {
		return err
	}
	if said := r.URL.Query().Get(push.BuiltInParameter); said != "" {
		if path.BuildTime, err = push.ParseBuildTime(said); err != nil {
			return err
		}
	}
	absent, err := d.record(r.Context(), path, digest.Digest{Hash: n.NarHash, Size: n.NarSize}, chunks)
	if err != nil {
		return d.gone(c, err)
	}
	d.commits.Add(1)
	d.narinfos.Remove(pathKey{c.ID, path.Hash})
	writeJSON(w, http.StatusOK, push.Committed{MissingReferences: absent})
	return nil
}

// recordTries bounds how often a commit begins anew because a collection took what
// it was about to name.
const recordTries = 5

// errCollected is that of a blob that was collected since it was looked up.
var errCollected = errors.New("the NAR was collected meanwhile")

// record makes a path visible over the NAR that the chunks make. They are read
// only where the NAR is not stored yet: elsewhere its own chunks count.
func (d *Door) record(ctx context.Context, path index.Path, nar digest.Digest, chunks []digest.Chunk) (absent []string, err error) {
	for range recordTries {
		absent, err = d.tryRecord(ctx, path, nar, chunks)
		if !errors.Is(err, errCollected) {
			return absent, err
		}
	}
	return nil, fmt.Errorf("%w: recording %s-%s: %w, %d times", index.ErrUnavailable, path.Hash, path.Name, err, recordTries)
}

func (d *Door) tryRecord(ctx context.Context, path index.Path, nar digest.Digest, chunks []digest.Chunk) (absent []string, err error) {
	verify := func() (index.Blob, error) {
		return d.store.Verify(ctx, nar, chunks, func(contents io.Reader) error {
			return narformat.Read(contents, nil)
		})
	}
	blob, err := d.index.Blob(ctx, nar)
	switch {
	case errors.Is(err, index.ErrNotFound):
		blob, err = verify()
	case err == nil && blob.FileHash == (digest.Hash{}):
		// It came by Bazel's door: nobody has seen yet that it is a NAR.
		chunks, err = d.store.ChunksOf(ctx, blob)
		if errors.Is(err, index.ErrNotFound) {
			return nil, errCollected // a blob's absence must not be taken for the cache's
		}
		if err == nil {
			blob, err = verify()
		}
	}
	if err != nil {
		return nil, err
	}
	err = d.index.Update(ctx, func(tx index.Tx) (err error) {
		if path.NAR, err = tx.AddBlob(blob, chunks, d.store.Expiry()); err != nil {
			return err
		}
		if blob.ID != 0 && path.NAR.ID != blob.ID {
			return errCollected // the chunks have not been read
		}
		absent, err = tx.PutPath(path)
		return err
	})
	return absent, err
}

// missing returns the paths that the cache does not hold. The others will not be
// collected for at least half of the grace: a push that leaves them out has that
// long to name them.
func (d *Door) missing(ctx context.Context, c *cache, hashes []string) ([]string, error) {
	missing, stale, err := d.index.MissingPaths(ctx, c.ID, hashes, d.store.Settled())
	if err != nil || len(stale) == 0 {
		return missing, err
	}
	if err := d.index.Update(ctx, func(tx index.Tx) error { return tx.TouchPaths(c.ID, stale) }); err != nil {
		return nil, err
	}
	// Some may have been collected before that.
	gone, _, err := d.index.MissingPaths(ctx, c.ID, stale, time.Time{})
	if err != nil || len(gone) == 0 {
		return missing, err
	}
	missing, _, err = d.index.MissingPaths(ctx, c.ID, hashes, time.Time{})
	return missing, err
}

// pathOf is the path of which a narinfo tells, without its NAR.
func pathOf(ctx context.Context, c *cache, n *narinfo.NarInfo) (index.Path, error) {
	base, err := storepath.Base(c.StoreDir, n.StorePath)
	if err != nil {
		return index.Path{}, err
	}
	hash, name, err := storepath.Split(base)
	if err != nil {
		return index.Path{}, err
	}
	return index.Path{
		CacheID: c.ID, Hash: hash, Name: name,
		References: slices.Compact(slices.Sorted(slices.Values(n.References))),
		Deriver:    n.Deriver, Signatures: n.Signatures, CA: n.CA,
		PushedBy: pusher(ctx),
	}, nil
}

// maxPusher is how much of a name the index keeps, in bytes.
const maxPusher = 200

func pusher(ctx context.Context) string {
	name := strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return -1 // databases do not take them all
		}
		return c
	}, auth.SubjectOf(ctx).Name())
	return strings.ToValidUTF8(name[:min(maxPusher, len(name))], "")
}
