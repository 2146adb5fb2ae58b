package nixcache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

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
		PublicKeys: []string{c.key.Public()},
		Chunking:   push.Chunking{Algorithm: "fastcdc2020", Average: chunker.DefaultAverage},
		Limits: push.Limits{
			Chunk: frame.MaxChunk, ChunksBody: push.MaxChunksBody, ChunksPerQuery: push.MaxChunksPerQuery,
			PathsBody: push.MaxPathsBody, CommitBody: push.MaxCommitBody,
		},
	})
	return nil
}

// body returns the request's body, of at most limit bytes. One that says that
// it is longer is refused before it is read.
func body(w http.ResponseWriter, r *http.Request, limit int64) (io.Reader, error) {
	if r.ContentLength > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	return http.MaxBytesReader(w, r.Body, limit), nil
}

func (d *Door) missingPaths(w http.ResponseWriter, r *http.Request, c *cache) error {
	b, err := body(w, r, push.MaxPathsBody)
	if err != nil {
		return err
	}
	var query push.PathsQuery
	text, err := io.ReadAll(b)
	if err == nil {
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
	missing, err := d.index.MissingPaths(r.Context(), c.ID, query.Hashes)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, push.PathsAnswer{Missing: missing})
	return nil
}

func (d *Door) missingChunks(w http.ResponseWriter, r *http.Request, _ *cache) error {
	b, err := body(w, r, push.MaxChunksPerQuery*digest.Size)
	if err != nil {
		return err
	}
	hashes, err := push.ReadHashes(b, push.MaxChunksPerQuery)
	if err != nil {
		return err
	}
	missing, err := d.store.Missing(r.Context(), hashes)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(push.AppendHashes(nil, missing))
	return nil
}

func (d *Door) chunks(w http.ResponseWriter, r *http.Request, _ *cache) error {
	b, err := body(w, r, push.MaxChunksBody)
	if err != nil {
		return err
	}
	expected := r.ContentLength
	if expected < 0 {
		expected = push.MaxChunksBody
	}
	release, err := d.store.Reserve(r.Context(), expected)
	if err != nil {
		return err
	}
	defer release()
	frames, err := push.ReadFrames(b)
	if err != nil {
		return err
	}
	if err := d.store.PutFrames(r.Context(), frames); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *Door) commit(w http.ResponseWriter, r *http.Request, c *cache) error {
	b, err := body(w, r, push.MaxCommitBody)
	if err != nil {
		return err
	}
	n, chunks, err := push.ReadCommit(b)
	if err != nil {
		return err
	}
	if err := n.Check(c.StoreDir); err != nil {
		return err
	}
	nar := digest.Digest{Hash: n.NarHash, Size: n.NarSize}
	blob, err := d.index.Blob(r.Context(), nar)
	if errors.Is(err, index.ErrNotFound) {
		blob, err = d.store.Verify(r.Context(), nar, chunks, func(contents io.Reader) error {
			return narformat.Read(contents, nil)
		})
	}
	if err != nil {
		return err
	}
	absent, err := d.absent(r, c, n)
	if err != nil {
		return err
	}
	path, err := pathOf(c, n)
	if err != nil {
		return err
	}
	err = d.index.Update(r.Context(), func(tx index.Tx) error {
		if path.NAR, err = tx.AddBlob(blob, chunks); err != nil {
			return err
		}
		return tx.PutPath(path)
	})
	if err != nil {
		return err
	}
	d.commits.Add(1)
	d.narinfos.Remove(pathKey{c.ID, path.Hash})
	writeJSON(w, http.StatusOK, push.Committed{MissingReferences: absent})
	return nil
}

// absent returns the references of a path, but for itself, that the cache does
// not hold.
func (d *Door) absent(r *http.Request, c *cache, n *narinfo.NarInfo) ([]string, error) {
	byHash := map[string]string{}
	var hashes []string
	for _, ref := range n.References {
		if h := storepath.Hash(ref); h != storepath.Hash(n.StorePath) {
			byHash[h] = ref
			hashes = append(hashes, h)
		}
	}
	missing, err := d.index.MissingPaths(r.Context(), c.ID, hashes)
	if err != nil {
		return nil, err
	}
	absent := make([]string, len(missing))
	for i, h := range missing {
		absent[i] = byHash[h]
	}
	return absent, nil
}

func pathOf(c *cache, n *narinfo.NarInfo) (index.Path, error) {
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
	}, nil
}
