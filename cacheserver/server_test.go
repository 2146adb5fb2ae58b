package cacheserver_test

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
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// running is a server on a free port.
type running struct {
	*cacheserver.Server
	dir string
	url string

	http *httptest.Server
}

func start(t testing.TB) *running { return startAt(t, t.TempDir()) }

func startAt(t testing.TB, dir string) *running {
	t.Helper()
	s, err := cacheserver.Open(t.Context(), cacheserver.Config{Data: dir})
	must(t, err)
	hs := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		hs.Close()
		must(t, s.Close())
	})
	return &running{Server: s, dir: dir, url: hs.URL, http: hs}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *running) client(t testing.TB) *push.Client {
	t.Helper()
	c, err := push.NewClient(s.url + "/main")
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

// path is a store path as a client has it.
type path struct {
	info *narinfo.NarInfo
	nar  []byte
}

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// hash32 makes the 32 characters of a store path out of a name.
func hash32(name string) string { return digest.Of([]byte(name)).Nix32()[:storepath.HashLen] }

func base(name string) string { return hash32(name) + "-" + name }

// file is a store path that is one file.
func file(t testing.TB, name string, contents []byte, references ...string) path {
	t.Helper()
	on := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(on, contents, 0o600))
	var b bytes.Buffer
	must(t, nar.Dump(&b, on))
	return path{
		info: &narinfo.NarInfo{
			StorePath: "/nix/store/" + base(name), NarHash: digest.Of(b.Bytes()), NarSize: int64(b.Len()),
			References: references,
		},
		nar: b.Bytes(),
	}
}

// upload sends a path's chunks and lists them.
func upload(t testing.TB, c *push.Client, p path) []digest.Chunk {
	t.Helper()
	chunks, err := c.Upload(t.Context(), p.info.NarSize, chunker.DefaultAverage, func(w io.Writer) error {
		_, err := w.Write(p.nar)
		return err
	})
	must(t, err)
	return chunks
}

// push puts a path into the cache and returns the references that it lacks.
func (s *running) push(t testing.TB, p path) []string {
	t.Helper()
	c := s.client(t)
	absent, err := c.Commit(t.Context(), p.info, upload(t, c, p))
	must(t, err)
	return absent
}

// scatter puts a path into the cache in chunks of size bytes, the even ones in
// one pack and the odd ones in another, so that it is served from many places.
func (s *running) scatter(t testing.TB, p path, size int) {
	t.Helper()
	var chunks []digest.Chunk
	var bodies [2][]byte
	for i, b := range slices.Collect(slices.Chunk(p.nar, size)) {
		f := frameOf(b)
		chunks = append(chunks, f.Chunk)
		bodies[i%2] = push.AppendFrame(bodies[i%2], f)
	}
	for _, b := range bodies {
		s.post(t, "chunks", b).want(t, http.StatusNoContent, "")
	}
	_, err := s.client(t).Commit(t.Context(), p.info, chunks)
	must(t, err)
}

func frameOf(plain []byte) pack.Frame {
	return pack.Frame{
		Chunk: digest.Chunk{Hash: digest.Of(plain), Size: uint32(len(plain))},
		Data:  frame.Encode(nil, plain),
	}
}

// reply is an answer, read to its end.
type reply struct {
	status int // 0 if there was none
	header http.Header
	body   []byte
	broken error // what it ended with, if not with its end
}

func (s *running) do(t testing.TB, method, route string, header http.Header, body io.Reader) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+route, body)
	must(t, err)
	if header != nil {
		req.Header = header
	}
	// Like Nix: it takes any encoding that the server may choose.
	req.Header.Set("Accept-Encoding", "zstd, br, gzip, deflate, bzip2, xz")
	resp, err := s.http.Client().Do(req)
	if err != nil {
		return reply{broken: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, b, err}
}

func (s *running) get(t testing.TB, route string, header ...string) reply {
	t.Helper()
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	r := s.do(t, http.MethodGet, route, h, nil)
	must(t, r.broken)
	return r
}

func (s *running) post(t testing.TB, route string, body []byte) reply {
	t.Helper()
	r := s.do(t, http.MethodPost, "/main/_push/v1/"+route, nil, bytes.NewReader(body))
	must(t, r.broken)
	return r
}

// want checks status and code of an answer and returns its error.
func (r reply) want(t testing.TB, status int, code string) push.Error {
	t.Helper()
	var e push.Error
	if r.status != status {
		t.Errorf("status %d, want %d: %.300s", r.status, status, r.body)
	}
	if code == "" {
		return e
	}
	if err := json.Unmarshal(r.body, &e); err != nil || e.Code != code || e.Message == "" {
		t.Errorf("answer %.300q, %v; want code %q and a message", r.body, err, code)
	}
	if ct := r.header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("an error of type %q", ct)
	}
	return e
}

func (s *running) narinfo(t testing.TB, p path) *narinfo.NarInfo {
	t.Helper()
	r := s.get(t, "/main/"+storepath.Hash(p.info.StorePath)+".narinfo")
	if r.status != http.StatusOK {
		t.Fatalf("narinfo: status %d: %s", r.status, r.body)
	}
	n, err := narinfo.Parse(r.body)
	must(t, err)
	return n
}

// wantAbsent checks that nothing of a path can be seen.
func (s *running) wantAbsent(t testing.TB, p path) {
	t.Helper()
	hash := storepath.Hash(p.info.StorePath)
	for _, route := range []string{"/main/" + hash + ".narinfo", "/" + hash + ".narinfo", "/main/nar/" + p.info.NarHash.Nix32() + ".nar.zst"} {
		if r := s.get(t, route); r.status != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", route, r.status)
		}
	}
	missing, err := s.client(t).MissingPaths(t.Context(), []string{hash})
	if err != nil || !slices.Equal(missing, []string{hash}) {
		t.Errorf("missing paths: %v, %v; want %s", missing, err, hash)
	}
}

// wantServed checks that a path can be had, whole and signed.
func (s *running) wantServed(t testing.TB, p path) *narinfo.NarInfo {
	t.Helper()
	n := s.narinfo(t, p)
	must(t, n.Check("/nix/store"))
	if n.StorePath != p.info.StorePath || n.NarHash != p.info.NarHash || n.NarSize != p.info.NarSize || n.Compression != "zstd" {
		t.Errorf("the narinfo is not that of the path:\n%s", n.Text())
	}
	if ok, err := n.Signed(s.PublicKey()); !ok || err != nil {
		t.Errorf("signed by %s: %v, %v", s.PublicKey(), ok, err)
	}
	r := s.get(t, "/main/"+n.URL)
	if r.status != http.StatusOK || int64(len(r.body)) != n.FileSize || digest.Of(r.body) != n.FileHash {
		t.Errorf("the NAR: status %d, %d bytes that hash to %s; want the %d bytes of %s", r.status, len(r.body), digest.Of(r.body).Nix(), n.FileSize, n.FileHash.Nix())
	}
	if !bytes.Equal(unpack(t, r.body), p.nar) {
		t.Error("the NAR unpacks to other bytes")
	}
	if missing, err := s.client(t).MissingPaths(t.Context(), []string{storepath.Hash(p.info.StorePath)}); len(missing) != 0 || err != nil {
		t.Errorf("missing paths: %v, %v", missing, err)
	}
	return n
}

// unpack is what a stock decoder makes of a file.
func unpack(t testing.TB, compressed []byte) []byte {
	t.Helper()
	d, err := zstd.NewReader(bytes.NewReader(compressed))
	must(t, err)
	defer d.Close()
	b, err := io.ReadAll(d)
	if err != nil {
		t.Errorf("unpacking: %v", err)
	}
	return b
}

func packFiles(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "packs", "*", "*.pack"))
	must(t, err)
	return files
}

func TestARestartKeepsKeyAndPaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := file(t, "hello", noise(300_000, 1))
	var key string
	t.Run("first", func(t *testing.T) {
		s := startAt(t, dir)
		key = s.PublicKey()
		s.push(t, p)
	})
	s := startAt(t, dir)
	if s.PublicKey() != key {
		t.Errorf("the key is %s, it was %s", s.PublicKey(), key)
	}
	s.wantServed(t, p)
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plain := filepath.Join(dir, "file")
	must(t, os.WriteFile(plain, nil, 0o600))
	foreign := filepath.Join(dir, "foreign")
	s, err := cacheserver.Open(t.Context(), cacheserver.Config{Data: foreign, StoreDir: "/gnu/store"})
	must(t, err)
	must(t, s.Close())
	noIndex := filepath.Join(dir, "no index")
	must(t, os.MkdirAll(noIndex, 0o700))
	must(t, os.WriteFile(filepath.Join(noIndex, "index.sqlite"), bytes.Repeat([]byte("no database "), 1000), 0o600))

	for name, c := range map[string]struct {
		config cacheserver.Config
		want   []string
	}{
		"data that is a file":     {cacheserver.Config{Data: plain}, []string{"data directory", plain, "not a directory"}},
		"data in a file":          {cacheserver.Config{Data: filepath.Join(plain, "x")}, []string{"data directory", plain, "not a directory"}},
		"no data directory":       {cacheserver.Config{}, []string{"data directory"}},
		"a cache for another dir": {cacheserver.Config{Data: foreign}, []string{`"main"`, "/gnu/store", "/nix/store"}},
		"an index that is none":   {cacheserver.Config{Data: noIndex}, []string{"opening the index", "index.sqlite", "not a database"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := cacheserver.Open(t.Context(), c.config)
			if err == nil {
				t.Fatal("no error", s.Close())
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q says nothing of %q", err, w)
				}
			}
		})
	}
}

func TestACacheForAnotherStore(t *testing.T) {
	t.Parallel()
	s, err := cacheserver.Open(t.Context(), cacheserver.Config{Data: t.TempDir(), StoreDir: "/gnu/store"})
	must(t, err)
	hs := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		hs.Close()
		must(t, s.Close())
	})
	r := &running{Server: s, url: hs.URL, http: hs}
	if got := r.get(t, "/nix-cache-info"); !strings.Contains(string(got.body), "StoreDir: /gnu/store\n") {
		t.Errorf("nix-cache-info:\n%s", got.body)
	}
	p := file(t, "hello", []byte("hello"))
	p.info.StorePath = "/gnu/store/" + base("hello")
	r.push(t, p)
	n := r.narinfo(t, p)
	if ok, err := n.Signed(s.PublicKey()); n.StorePath != p.info.StorePath || !ok || err != nil {
		t.Errorf("signed %v, %v:\n%s", ok, err, n.Text())
	}
}

func TestServersThatStartTogetherAgree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var g errgroup.Group
	keys := make([]string, 8)
	for i := range keys {
		g.Go(func() error {
			s, err := cacheserver.Open(t.Context(), cacheserver.Config{Data: dir})
			if err != nil {
				return err
			}
			keys[i] = s.PublicKey()
			return s.Close()
		})
	}
	must(t, g.Wait())
	if slices.Sort(keys); keys[0] != keys[len(keys)-1] {
		t.Errorf("one cache with several keys: %v", slices.Compact(keys))
	}
}

func TestTwoServersOverOneDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := startAt(t, dir), startAt(t, dir)
	p := file(t, "one", noise(500_000, 1))
	b.wantAbsent(t, p)
	a.push(t, p)
	a.wantServed(t, p)
	b.wantServed(t, p)

	q := file(t, "two", append(noise(500_000, 1), "and more"...))
	c := b.client(t)
	chunks := upload(t, c, q)
	if sent := c.SentBytes(); sent > 400_000 {
		t.Errorf("%d bytes were sent of chunks that the other server stored", sent)
	}
	// Chunks sent to one, committed at the other.
	_, err := a.client(t).Commit(t.Context(), q.info, chunks)
	must(t, err)
	b.wantServed(t, q)
}

func TestManyClientsPushTheSamePath(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := file(t, "popular", noise(3<<20, 1))
	var g errgroup.Group
	for range 8 {
		c := s.client(t)
		g.Go(func() error {
			chunks, err := c.Upload(t.Context(), p.info.NarSize, chunker.DefaultAverage, func(w io.Writer) error {
				_, err := w.Write(p.nar)
				return err
			})
			if err != nil {
				return err
			}
			absent, err := c.Commit(t.Context(), p.info, chunks)
			if len(absent) != 0 {
				err = errors.Join(err, fmt.Errorf("absent: %v", absent))
			}
			return err
		})
	}
	must(t, g.Wait())
	s.wantServed(t, p)

	different := map[digest.Hash]bool{}
	for _, c := range upload(t, s.client(t), p) {
		different[c.Hash] = true
	}
	stored := 0
	for _, f := range packFiles(t, s.dir) {
		b, err := os.ReadFile(f)
		must(t, err)
		entries, err := pack.ReadTable(bytes.NewReader(b), int64(len(b)))
		must(t, err)
		stored += len(entries)
	}
	if stored != len(different) {
		t.Errorf("%d chunks are stored of a NAR that has %d", stored, len(different))
	}
}

func TestManyClientsPushManyPaths(t *testing.T) {
	t.Parallel()
	s := start(t)
	shared := noise(400_000, 9)
	var paths []path
	for i := range 24 {
		paths = append(paths, file(t, fmt.Sprint("path", i%20), append(noise(50_000, byte(i%20)), shared...)))
	}
	var g errgroup.Group
	g.SetLimit(8)
	for _, p := range paths {
		c := s.client(t)
		g.Go(func() error {
			chunks, err := c.Upload(t.Context(), p.info.NarSize, chunker.DefaultAverage, func(w io.Writer) error {
				_, err := w.Write(p.nar)
				return err
			})
			if err != nil {
				return err
			}
			_, err = c.Commit(t.Context(), p.info, chunks)
			return err
		})
	}
	must(t, g.Wait())
	for _, p := range paths {
		s.wantServed(t, p)
	}
}

func TestServeEndsWithItsRequestsDone(t *testing.T) {
	t.Parallel()
	srv, err := cacheserver.Open(t.Context(), cacheserver.Config{Data: t.TempDir()})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := listen(t)
	var served errgroup.Group
	served.Go(func() error { return srv.Serve(ctx, l) })

	body := push.AppendFrame(nil, frameOf([]byte("hello")))
	conn := dial(t, l.Addr().String())
	conn.write(t, "POST /main/_push/v1/chunks HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(body))
	if line := conn.line(t); !strings.Contains(line, "100 Continue") {
		t.Fatalf("got %q", line)
	}
	cancel()
	conn.write(t, "%s", body)
	conn.line(t) // the empty one
	if line := conn.line(t); !strings.Contains(line, "204") {
		t.Errorf("a request that was under way got %q, want 204", line)
	}
	must(t, served.Wait())
	must(t, srv.Close())
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("it still listened; %v", err)
	}
}
