package nixcache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// maxPreamble bounds what comes before a NAR in the body of an upload, in bytes.
const maxPreamble = 1 << 20

func (d *Door) atticMissing(w http.ResponseWriter, r *http.Request) error {
	var query struct {
		Cache  string   `json:"cache"`
		Hashes []string `json:"store_path_hashes"`
	}
	if err := d.atticBody(w, r, push.MaxPathsBody, &query); err != nil {
		return err
	}
	c, err := d.open(r.Context(), auth.Push, query.Cache)
	if err != nil {
		return err
	}
	for _, h := range query.Hashes {
		if err := storepath.CheckHash(h); err != nil {
			return fmt.Errorf("%w: %w", errPathHash, err)
		}
	}
	missing, err := d.missing(r.Context(), c, query.Hashes)
	if err != nil {
		return err
	}
	if missing == nil {
		missing = []string{}
	}
	writeJSON(w, http.StatusOK, map[string][]string{"missing_paths": missing})
	return nil
}

// atticUpload is what a client says of the NAR that it uploads.
type atticUpload struct {
	Cache         string   `json:"cache"`
	StorePathHash string   `json:"store_path_hash"`
	StorePath     string   `json:"store_path"`
	References    []string `json:"references"`
	Deriver       string   `json:"deriver"`
	Sigs          []string `json:"sigs"`
	CA            string   `json:"ca"`
	NARHash       string   `json:"nar_hash"`
	NARSize       uint64   `json:"nar_size"`
}

// readUpload reads it from the header, or from the beginning of the body where
// the header tells its length.
func readUpload(h http.Header, body io.Reader) (*atticUpload, error) {
	text := header(h, "Nar-Info")
	if size := header(h, "Nar-Info-Preamble-Size"); size != "" {
		n, err := strconv.ParseUint(size, 10, 32)
		if err != nil || n > maxPreamble {
			return nil, badRequest("preamble of %.40q bytes: at most %d can be", size, maxPreamble)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(body, b); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, badRequest("the body ends within the preamble")
		} else if err != nil {
			return nil, fmt.Errorf("reading the preamble: %w", err)
		}
		text = string(b)
	}
	if text == "" {
		return nil, badRequest("nothing is said of the NAR: X-Attic-Nar-Info is missing")
	}
	u := &atticUpload{}
	if err := json.Unmarshal([]byte(text), u); err != nil {
		return nil, badRequest("what is said of the NAR is malformed: %v", err)
	}
	return u, nil
}

// header returns a header of Attic's, or of its fork Celler.
func header(h http.Header, name string) string {
	if v := h.Get("X-Attic-" + name); v != "" {
		return v
	}
	return h.Get("X-Celler-" + name)
}

// narinfo checks what the client says.
func (u *atticUpload) narinfo(storeDir string) (*narinfo.NarInfo, error) {
	if err := storepath.CheckHash(u.StorePathHash); err != nil {
		return nil, fmt.Errorf("%w: %w", errPathHash, err)
	}
	hash, err := digest.Parse(u.NARHash)
	if err != nil {
		return nil, badRequest("nar_hash: %v", err)
	}
	if u.NARSize == 0 || u.NARSize > maxNAR {
		return nil, badRequest("nar_size: %d is not between 1 and %d", u.NARSize, int64(maxNAR))
	}
	n := &narinfo.NarInfo{
		StorePath: u.StorePath, NarHash: hash, NarSize: int64(u.NARSize),
		References: u.References, Deriver: strings.TrimPrefix(u.Deriver, storeDir+"/"), Signatures: u.Sigs, CA: u.CA,
	}
	if err := n.Check(storeDir); err != nil {
		return nil, badRequest("%v", err)
	}
	if storepath.Hash(n.StorePath) != u.StorePathHash {
		return nil, badRequest("store_path_hash %s is not that of %s", u.StorePathHash, n.StorePath)
	}
	return n, nil
}

// atticStored answers an upload.
type atticStored struct {
	Kind         string  `json:"kind"`
	FileSize     int64   `json:"file_size"`
	Deduplicated float64 `json:"frac_deduplicated"` // of the NAR's bytes
}

func (d *Door) atticUpload(w http.ResponseWriter, r *http.Request) error {
	body := d.pacedBody(w, r)
	stored, err := d.takeUpload(r.Context(), r.Header, body)
	if err != nil {
		body.drain()
		return err
	}
	answer := atticStored{Kind: "Uploaded", FileSize: stored.FileSize, Deduplicated: 1 - float64(stored.NewBytes)/float64(stored.Size)}
	if stored.NewBytes == 0 {
		answer.Kind = "Deduplicated"
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

func (d *Door) takeUpload(ctx context.Context, h http.Header, body io.Reader) (cas.Stored, error) {
	u, err := readUpload(h, body)
	if err != nil {
		return cas.Stored{}, err
	}
	c, err := d.open(ctx, auth.Push, u.Cache)
	if err != nil {
		return cas.Stored{}, err
	}
	n, err := u.narinfo(c.StoreDir)
	if err != nil {
		return cas.Stored{}, err
	}
	p, err := pathOf(ctx, c, n)
	if err != nil {
		return cas.Stored{}, err
	}
	stored, malformed, err := d.storeNAR(ctx, body, n.NarSize)
	var tooLong *cas.TooLongError
	if errors.As(err, &tooLong) {
		return cas.Stored{}, badRequest(saidBadNAR)
	}
	if err != nil {
		return cas.Stored{}, err
	}
	if stored.Digest != (digest.Digest{Hash: n.NarHash, Size: n.NarSize}) {
		return cas.Stored{}, badRequest(saidBadNAR)
	}
	if malformed != nil {
		return cas.Stored{}, badRequest("%v", malformed)
	}
	err = d.putPath(ctx, c, p, func(tx index.Tx) (index.Blob, error) {
		return tx.AddBlob(stored.Blob, stored.Chunks, d.store.Expiry())
	})
	return stored, err
}
