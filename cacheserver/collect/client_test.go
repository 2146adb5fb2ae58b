package collect_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

func frameOf(plain []byte) pack.Frame {
	return pack.Frame{
		Chunk: digest.Chunk{Hash: digest.Of(plain), Size: uint32(len(plain))},
		Data:  frame.Encode(nil, plain),
	}
}

// noise is n bytes that do not compress, the same for the same seed.
func noise(n int, seed string) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(digest.Of([]byte(seed))).Read(b)
	return b
}

// path is a store path as a client has it.
type path struct {
	info   *narinfo.NarInfo
	nar    []byte
	frames []pack.Frame
}

func (p *path) hash() string { return storepath.Hash(p.info.StorePath) }

func (p *path) base() string { return filepath.Base(p.info.StorePath) }

// hash32 makes the 32 characters of a store path out of a name.
func hash32(name string) string { return digest.Of([]byte(name)).Nix32()[:storepath.HashLen] }

// newPath is a path of one file, whose contents are the pieces; each piece is a
// chunk, which paths share that have the same piece.
func newPath(name string, references []*path, pieces ...[]byte) *path {
	contents := bytes.Join(pieces, nil)
	var b []byte
	str := func(s string) {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	for _, s := range []string{"nix-archive-1", "(", "type", "regular", "contents"} {
		str(s)
		b = append(b, make([]byte, -len(s)&7)...)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(len(contents)))
	p := &path{frames: []pack.Frame{frameOf(b)}}
	b = append(b, contents...)
	for _, piece := range pieces {
		p.frames = append(p.frames, frameOf(piece))
	}
	end := len(b)
	b = append(b, make([]byte, -len(contents)&7)...)
	str(")")
	b = append(b, make([]byte, 7)...)
	p.frames = append(p.frames, frameOf(b[end:]))
	p.nar = b
	p.info = &narinfo.NarInfo{
		StorePath: "/nix/store/" + hash32(name) + "-" + name, NarHash: digest.Of(b), NarSize: int64(len(b)),
	}
	for _, r := range references {
		p.info.References = append(p.info.References, r.base())
	}
	slices.Sort(p.info.References)
	return p
}

func (p *path) chunks() []digest.Chunk {
	chunks := make([]digest.Chunk, len(p.frames))
	for i, f := range p.frames {
		chunks[i] = f.Chunk
	}
	return chunks
}

// ask asks a door. Of an answer that is broken off, it returns what came.
func ask(d *nixcache.Door, method, route string, body []byte) (w *httptest.ResponseRecorder) {
	w = httptest.NewRecorder()
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			panic(p)
		}
	}()
	d.Handler().ServeHTTP(w, request(method, route, bytes.NewReader(body)))
	return w
}

// request is one by somebody who may do everything.
func request(method, route string, body io.Reader) *http.Request {
	r := httptest.NewRequest(method, route, body)
	return r.WithContext(auth.WithSubject(r.Context(), auth.Unrestricted()))
}

// upload sends those chunks that are missing, as a client does.
func (r *rig) upload(cache string, p *path) error {
	var query []byte
	for _, f := range p.frames {
		query = append(query, f.Hash[:]...)
	}
	w := ask(r.door, http.MethodPost, "/"+cache+"/_push/v1/missing-chunks", query)
	missing, err := push.ReadHashes(w.Body, push.MaxChunksPerQuery)
	if w.Code != http.StatusOK || err != nil {
		return fmt.Errorf("missing chunks of %s: %d, %w", p.base(), w.Code, err)
	}
	var body []byte
	for _, f := range p.frames {
		if i := slices.Index(missing, f.Hash); i >= 0 {
			body = push.AppendFrame(body, f)
			missing = slices.Delete(missing, i, i+1)
		}
	}
	if body == nil {
		return nil
	}
	if w := ask(r.door, http.MethodPost, "/"+cache+"/_push/v1/chunks", body); w.Code != http.StatusNoContent {
		return fmt.Errorf("chunks of %s: %d %s", p.base(), w.Code, w.Body)
	}
	return nil
}

// commit makes an uploaded path visible.
func (r *rig) commit(cache string, p *path) error {
	w := ask(r.door, http.MethodPost, "/"+cache+"/_push/v1/paths", push.AppendCommit(nil, p.info, p.chunks()))
	if w.Code != http.StatusOK || strings.Contains(w.Body.String(), storepath.DefaultDir) {
		return fmt.Errorf("committing %s: %d %s", p.base(), w.Code, w.Body)
	}
	return nil
}

// pushTogether pushes paths whose chunks come into one pack.
func (r *rig) pushTogether(t tb, cache string, paths ...*path) {
	t.Helper()
	all := &path{info: paths[0].info}
	for _, p := range paths {
		all.frames = append(all.frames, p.frames...)
	}
	must(t, r.upload(cache, all))
	r.push(t, cache, paths...)
}

func (r *rig) push(t tb, cache string, paths ...*path) {
	t.Helper()
	for _, p := range paths {
		must(t, r.upload(cache, p))
		must(t, r.commit(cache, p))
	}
}

// missing asks for missing paths, through the door.
func (r *rig) missing(cache string, paths ...*path) ([]string, error) {
	var hashes []string
	for _, p := range paths {
		hashes = append(hashes, `"`+p.hash()+`"`)
	}
	w := ask(r.door, http.MethodPost, "/"+cache+"/_push/v1/missing-paths", []byte(`{"hashes":[`+strings.Join(hashes, ",")+`]}`))
	if w.Code != http.StatusOK {
		return nil, fmt.Errorf("missing paths: %d %s", w.Code, w.Body)
	}
	var missing []string
	for _, p := range paths {
		if strings.Contains(w.Body.String(), p.hash()) {
			missing = append(missing, p.hash())
		}
	}
	return missing, nil
}

// served says what is wrong with a path, as a client sees it through a door: its
// narinfo and its NAR, twice, once checked and once not.
func served(d *nixcache.Door, cache string, p *path) error {
	w := ask(d, http.MethodGet, "/"+cache+"/"+p.hash()+".narinfo", nil)
	if w.Code != http.StatusOK {
		return fmt.Errorf("the narinfo of %s: %d %s", p.base(), w.Code, w.Body)
	}
	n, err := narinfo.Parse(w.Body.Bytes())
	if err != nil || n.NarHash != p.info.NarHash || !slices.Equal(n.References, p.info.References) {
		return fmt.Errorf("the narinfo of %s is another's (%w):\n%s", p.base(), err, w.Body)
	}
	for range 2 {
		w = ask(d, http.MethodGet, "/"+cache+"/"+n.URL, nil)
		if w.Code != http.StatusOK || digest.Of(w.Body.Bytes()) != n.FileHash || int64(w.Body.Len()) != n.FileSize {
			return fmt.Errorf("the NAR of %s: %d, %d bytes of %d: %.100s", p.base(), w.Code, w.Body.Len(), n.FileSize, w.Body)
		}
		if plain, err := frame.Decode(nil, w.Body.Bytes()); err != nil || !bytes.Equal(plain, p.nar) {
			return fmt.Errorf("the NAR of %s unpacks to other bytes, %w", p.base(), err)
		}
	}
	return nil
}

// get asks with a Range, if it is not empty.
func get(h http.Handler, route, rng string) *httptest.ResponseRecorder {
	req := request(http.MethodGet, route, nil)
	if rng != "" {
		req.Header.Set("Range", rng)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}
