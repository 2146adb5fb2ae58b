package nixcache_test

import (
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
)

// codec is a compression of NARs as other programs do it.
type codec struct {
	suffix, name string
	pack         func(io.Writer) (io.WriteCloser, error)
	unpack       func(io.Reader) (io.Reader, error)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

var codecs = []codec{
	{"", "none", func(w io.Writer) (io.WriteCloser, error) { return nopCloser{w}, nil }, func(r io.Reader) (io.Reader, error) { return r, nil }},
	{".xz", "xz", func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }, func(r io.Reader) (io.Reader, error) { return xz.NewReader(r) }},
	{".zst", "zstd", func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }, func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) }},
	{".br", "br", func(w io.Writer) (io.WriteCloser, error) { return brotli.NewWriter(w), nil }, func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil }},
	{".lz4", "lz4", func(w io.Writer) (io.WriteCloser, error) { return lz4.NewWriter(w), nil }, func(r io.Reader) (io.Reader, error) { return lz4.NewReader(r), nil }},
	{".gz", "gzip", func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
	// Nix has no suffix for it.
	{"", "gzip", func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
}

// copied is a path as nix copy uploads it.
type copied struct {
	*archive
	file  []byte
	named string // nar/…
}

// copied compresses a path's NAR.
func (ar *archive) copied(t testing.TB, c codec) *copied {
	t.Helper()
	var b bytes.Buffer
	w, err := c.pack(&b)
	must(t, err)
	_, err = w.Write(ar.plain)
	must(t, err)
	must(t, w.Close())
	p := &copied{archive: ar, file: b.Bytes(), named: "nar/" + digest.Of(b.Bytes()).Nix32() + ".nar" + c.suffix}
	p.info.URL, p.info.Compression = p.named, c.name
	p.info.FileHash, p.info.FileSize = digest.Of(p.file), int64(len(p.file))
	return p
}

func (r *rig) put(route string, body []byte, header ...string) answer {
	return r.ask(http.MethodPut, route, body, header...)
}

func want(t testing.TB, what string, a answer, status int) {
	t.Helper()
	if a.Code != status || a.broken {
		t.Errorf("%s: %d %.300q, broken off: %v; want %d", what, a.Code, a.Body, a.broken, status)
	}
}

// The requests that a real Nix 2.26 and 2.8 were recorded to make, in their
// order, with what they were answered.
func TestRecordedCopies(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "/main"} {
		r := openRig(t)
		zst := codecs[2]
		dep := newArchive(t, "dep", noise(3000, "dep"), 1000).copied(t, zst)
		top := newArchive(t, "top", noise(3000, "top"), 1000)
		top.info.References = []string{strings.TrimPrefix(dep.info.StorePath, "/nix/store/")}
		copies := []*copied{dep, top.copied(t, zst)}
		ask := func(method, route string, body []byte, status int) answer {
			t.Helper()
			a := r.ask(method, prefix+route, body, "Accept-Encoding", "zstd, br, gzip, deflate, bzip2, xz")
			want(t, method+" "+route, a, status)
			return a
		}
		// This cache is there, so it is not asked to be made; a client that believes
		// otherwise makes it all the same.
		ask(http.MethodGet, "/nix-cache-info", nil, http.StatusOK)
		ask(http.MethodPut, "/nix-cache-info", []byte("StoreDir: /nix/store\n"), http.StatusNoContent)
		for _, p := range copies {
			ask(http.MethodGet, p.narinfo(), nil, http.StatusNotFound)
		}
		for _, p := range copies {
			ask(http.MethodHead, "/"+p.named, nil, http.StatusNotFound)
			ask(http.MethodPut, "/"+p.named, p.file, http.StatusNoContent)
			ask(http.MethodPut, p.narinfo(), p.info.Text(), http.StatusNoContent)
		}
		ask(http.MethodGet, "/nix-cache-info", nil, http.StatusOK)
		for _, p := range copies {
			// A client that has the narinfo of another day asks for the file of that day.
			for _, url := range []string{p.named, ""} {
				head := ask(http.MethodHead, p.narinfo(), nil, http.StatusOK)
				n, err := narinfo.Parse(ask(http.MethodGet, p.narinfo(), nil, http.StatusOK).Body.Bytes())
				must(t, err)
				if head.Header().Get("Content-Length") != fmt.Sprint(len(n.Text())) {
					t.Errorf("HEAD: %v", head.Header())
				}
				if url == "" {
					url = n.URL
				}
				a := ask(http.MethodGet, "/"+url, nil, http.StatusOK)
				z, err := zstd.NewReader(a.Body)
				must(t, err)
				if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, p.plain) || a.Header().Get("Content-Encoding") != "" {
					t.Errorf("%s: %d bytes, %v, %v", url, len(got), err, a.Header())
				}
			}
		}
	}
}

func TestEveryCompressionIsTakenAndGivenBack(t *testing.T) {
	t.Parallel()
	for i, c := range codecs {
		t.Run(fmt.Sprint(c.name, c.suffix), func(t *testing.T) {
			t.Parallel()
			r := openRig(t)
			p := newArchive(t, "hello", append(noise(300_000, fmt.Sprint(i)), make([]byte, 500_000)...), 1<<20).copied(t, c)
			p.info.Signatures = []string{"builder-1:" + strings.Repeat("A", 86) + "=="}
			want(t, "NAR", r.put("/"+p.named, p.file), http.StatusNoContent)
			want(t, "HEAD", r.ask(http.MethodHead, "/"+p.named, nil), http.StatusOK)
			want(t, "narinfo", r.put(p.narinfo(), p.info.Text()), http.StatusNoContent)
			n, err := narinfo.Parse(r.get(p.narinfo()).Body.Bytes())
			must(t, err)
			if n.NarHash != p.info.NarHash || n.NarSize != p.info.NarSize || n.Compression != "zstd" || len(n.Signatures) != 2 || n.Signatures[1] != p.info.Signatures[0] {
				t.Errorf("narinfo:\n%s", n.Text())
			}
			if w := r.get("/" + n.URL); digest.Of(w.Body.Bytes()) != n.FileHash {
				t.Errorf("%s: %d, %d bytes", n.URL, w.Code, w.Body.Len())
			}
			// Also long after the upload, when only the path's name holds the NAR.
			must(t, r.sqlite.Update(t.Context(), func(tx index.Tx) error {
				_, err := tx.SweepObjects(0, 100, time.Now().Add(1000*time.Hour), 0)
				return err
			}))
			a := r.again().get("/" + p.named)
			want(t, p.named, a, http.StatusOK)
			u, err := c.unpack(a.Body)
			must(t, err)
			if got, err := io.ReadAll(u); err != nil || !bytes.Equal(got, p.plain) {
				t.Errorf("%s: %d of %d bytes, %v", p.named, len(got), len(p.plain), err)
			}
			if a := r.ask(http.MethodHead, "/"+p.named, nil); a.Code != http.StatusOK || a.Body.Len() != 0 {
				t.Errorf("HEAD: %d, %d bytes", a.Code, a.Body.Len())
			}
			if other := "/nar/" + digest.Of(p.file).Nix32() + ".nar.lzip"; c.suffix != ".lzip" {
				want(t, other, r.get(other), http.StatusNotFound)
			}
		})
	}
}

// What bzip2 packs is taken, but there is nobody here who could pack it again.
func TestBzip2IsTaken(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	// What bzip2 makes of a NAR of one empty file.
	file, err := os.ReadFile("testdata/empty.nar.bz2")
	must(t, err)
	plain, err := io.ReadAll(bzip2.NewReader(bytes.NewReader(file)))
	must(t, err)
	ar := newArchive(t, "empty", nil, 1000)
	if !bytes.Equal(plain, ar.plain) {
		t.Fatal("testdata/empty.nar.bz2 is something else")
	}
	p := ar.copied(t, codec{".bz2", "bzip2", func(w io.Writer) (io.WriteCloser, error) { return nopCloser{w}, nil }, nil})
	p.named = "nar/" + digest.Of(file).Nix32() + ".nar.bz2"
	p.info.URL, p.info.FileHash = p.named, digest.Of(file)
	want(t, "NAR", r.put("/"+p.named, file), http.StatusNoContent)
	want(t, "narinfo", r.put(p.narinfo(), p.info.Text()), http.StatusNoContent)
	r.wantPlain(t, ar)
	want(t, "the file", r.get("/"+p.named), http.StatusNotFound)
}

// wantPlain checks that a path is there with its contents.
func (r *rig) wantPlain(t testing.TB, ar *archive) {
	t.Helper()
	if w := r.get("/nar/" + ar.info.NarHash.Nix32() + ".nar"); w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), ar.plain) {
		t.Errorf("the NAR: %d, %d bytes", w.Code, w.Body.Len())
	}
	if w := r.get(ar.narinfo()); w.Code != http.StatusOK {
		t.Errorf("the narinfo: %d", w.Code)
	}
}

// The NAR may come to one server and its narinfo to another, both over one index.
func TestANarinfoComesToAnotherServer(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	p := newArchive(t, "hello", noise(3000, "1"), 1000).copied(t, codecs[1])
	want(t, "NAR", r.put("/"+p.named, p.file), http.StatusNoContent)
	other := r.again()
	want(t, "HEAD", other.ask(http.MethodHead, "/"+p.named, nil), http.StatusOK)
	want(t, "narinfo", other.put(p.narinfo(), p.info.Text()), http.StatusNoContent)
	r.wantPlain(t, p.archive)
}

// A NAR that the cache holds need not be sent again, whatever file it was.
func TestANarinfoOfANARThatIsThere(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	p := newArchive(t, "hello", noise(3000, "1"), 1000)
	r.pushArchive(t, p, 10)
	n := *p.info
	n.StorePath = "/nix/store/" + hashA + "-other"
	n.URL, n.Compression = "nar/"+n.NarHash.Nix32()+".nar.zst?x=y", "zstd"
	want(t, "narinfo", r.put("/"+hashA+".narinfo", n.Text()), http.StatusNoContent)
	want(t, "narinfo", r.get("/"+hashA+".narinfo"), http.StatusOK)
}

func TestCopiesThatAreRefused(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	must(t, r.sqlite.Update(t.Context(), func(tx index.Tx) error {
		c, err := r.sqlite.Cache(t.Context(), "main")
		if err != nil {
			return err
		}
		c.Name = "other"
		_, err = tx.AddCache(c)
		return err
	}))
	p := newArchive(t, "hello", noise(3000, "1"), 1000).copied(t, codecs[5])
	const bad, unsupported = http.StatusBadRequest, http.StatusUnsupportedMediaType
	file := func(name string, body []byte, header ...string) func() answer {
		return func() answer { return r.put("/nar/"+name, body, header...) }
	}
	var junk bytes.Buffer
	z := gzip.NewWriter(&junk)
	_, _ = z.Write(noise(10_000, "junk"))
	must(t, z.Close())
	hashed := func(b []byte, suffix string) string { return digest.Of(b).Nix32() + suffix }
	for what, c := range map[string]struct {
		ask    func() answer
		status int
		says   string
	}{
		"another store":               {func() answer { return r.put("/nix-cache-info", []byte("StoreDir: /gnu/store\n")) }, bad, "/nix/store"},
		"no store":                    {func() answer { return r.put("/nix-cache-info", []byte("WantMassQuery: 1\n")) }, bad, "StoreDir"},
		"a large cache info":          {func() answer { return r.put("/nix-cache-info", make([]byte, 1<<20)) }, http.StatusRequestEntityTooLarge, "limit"},
		"a file of another name":      {func() answer { return r.put("/index.html", nil) }, unsupported, "index.html"},
		"a NAR of another name":       {file("hello.tar.gz", nil), unsupported, "nar"},
		"a compression of no library": {file("hello.nar.lrz", p.file), unsupported, "xz"},
		"a compression of no suffix":  {file("hello.nar", []byte("LRZI")), unsupported, "xz"},
		"no known compression":        {file("hello.nar", noise(1000, "x")), unsupported, "neither a NAR nor compressed"},
		"another compression":         {file(hashed(p.file, ".nar.xz"), p.file), bad, "xz"},
		"another hash":                {file(hashed([]byte("x"), ".nar.gz"), p.file), bad, "hash"},
		"cut off":                     {file(hashed(p.file, ".nar.gz"), p.file[:2000]), bad, "ends early"},
		"corrupted":                   {file(hashed(p.file, ".nar.gz"), append(slices.Clone(p.file[:2000]), make([]byte, 1000)...)), bad, ""},
		"no NAR":                      {file(hashed(junk.Bytes(), ".nar.gz"), junk.Bytes()), bad, "NAR"},
		"nothing":                     {file("x.nar", nil), unsupported, "NAR"},
		"a narinfo without a NAR":     {func() answer { return r.put(p.narinfo(), p.info.Text()) }, bad, "PUT nar/"},
	} {
		a := c.ask()
		want(t, what, a, c.status)
		if !strings.Contains(a.Body.String(), c.says) {
			t.Errorf("%s: it says %s", what, a.Body)
		}
	}
	want(t, "NAR", r.put("/"+p.named, p.file), http.StatusNoContent)
	for what, change := range map[string]func(n *narinfo.NarInfo){
		"another NarHash":    func(n *narinfo.NarInfo) { n.NarHash = digest.Of(nil) },
		"another NarSize":    func(n *narinfo.NarInfo) { n.NarSize++ },
		"another store":      func(n *narinfo.NarInfo) { n.StorePath = "/gnu/store/" + n.StorePath[len("/nix/store/"):] },
		"another path":       func(n *narinfo.NarInfo) { n.StorePath = "/nix/store/" + hashA + "-hello" },
		"a bad reference":    func(n *narinfo.NarInfo) { n.References = []string{"../x"} },
		"a bad signature":    func(n *narinfo.NarInfo) { n.Signatures = []string{"x"} },
		"a URL elsewhere":    func(n *narinfo.NarInfo) { n.URL = "https://example.org/nar/x.nar" },
		"a URL of something": func(n *narinfo.NarInfo) { n.URL = "log/x" },
	} {
		n := *p.info
		change(&n)
		want(t, what, r.put(p.narinfo(), n.Text()), bad)
	}
	want(t, "no narinfo", r.put(p.narinfo(), []byte("x")), bad)
	want(t, "a bad name", r.put("/x.narinfo", p.info.Text()), bad)
	// What was uploaded to one cache is not in another.
	want(t, "the other cache's narinfo", r.put("/other"+p.narinfo(), p.info.Text()), bad)
	want(t, "the other cache's file", r.get("/other/"+p.named), http.StatusNotFound)
	want(t, "the narinfo so far", r.get(p.narinfo()), http.StatusNotFound)
	want(t, "narinfo", r.put(p.narinfo(), p.info.Text()), http.StatusNoContent)
	want(t, "the other cache's file, now that a path has it", r.get("/other/"+p.named), http.StatusNotFound)
	if strings.Contains(r.log.String(), "request failed") {
		t.Errorf("a client's fault is in the log:\n%s", r.log)
	}
}

// A file that holds far more than it is long does no harm.
func TestAFileOfZerosIsUnpackedInPieces(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	must(t, err)
	_, err = io.Copy(z, io.LimitReader(zeros{}, 1<<27))
	must(t, err)
	must(t, z.Close())
	want(t, "zeros", r.put("/nar/zeros.nar.zst", b.Bytes()), http.StatusBadRequest)
}

// HEAD is how nix copy finds out that it need not send a file, so that file must
// stay until its narinfo comes.
func TestAFileThatWillGoSoonIsToBeSentAgain(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	p := newArchive(t, "hello", noise(3000, "1"), 1000).copied(t, codecs[1])
	want(t, "NAR", r.put("/"+p.named, p.file), http.StatusNoContent)
	c, err := r.sqlite.Cache(t.Context(), "main")
	must(t, err)
	expire := func(in time.Duration) {
		t.Helper()
		must(t, r.sqlite.Update(t.Context(), func(tx index.Tx) error {
			o, err := r.sqlite.Object(t.Context(), c.ID, p.named)
			if err != nil {
				return err
			}
			o.Expires = time.Now().Add(in)
			return tx.PutObject(o)
		}))
	}
	want(t, "HEAD", r.ask(http.MethodHead, "/"+p.named, nil), http.StatusOK)
	expire(10 * time.Minute)
	want(t, "HEAD of one that goes in 10 minutes", r.ask(http.MethodHead, "/"+p.named, nil), http.StatusNotFound)
	want(t, "GET of one that goes in 10 minutes", r.get("/"+p.named), http.StatusOK)
	expire(-time.Minute)
	want(t, "GET of one that is over", r.get("/"+p.named), http.StatusNotFound)
	want(t, "NAR", r.put("/"+p.named, p.file), http.StatusNoContent)
	want(t, "HEAD", r.ask(http.MethodHead, "/"+p.named, nil), http.StatusOK)
}

func TestNarinfosComeInAContentEncoding(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	p := newArchive(t, "hello", noise(3000, "1"), 1000).copied(t, codecs[1])
	want(t, "NAR", r.put("/"+p.named, p.file), http.StatusNoContent)
	for _, c := range codecs[1:5] {
		var b bytes.Buffer
		w, err := c.pack(&b)
		must(t, err)
		_, err = w.Write(p.info.Text())
		must(t, err)
		must(t, w.Close())
		want(t, c.name, r.put(p.narinfo(), b.Bytes(), "Content-Encoding", c.name), http.StatusNoContent)
	}
	want(t, "identity", r.put(p.narinfo(), p.info.Text(), "Content-Encoding", "identity"), http.StatusNoContent)
	want(t, "another", r.put(p.narinfo(), p.info.Text(), "Content-Encoding", "compress"), http.StatusUnsupportedMediaType)
	want(t, "not what it says", r.put(p.narinfo(), p.info.Text(), "Content-Encoding", "xz"), http.StatusBadRequest)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.Copy(z, io.LimitReader(zeros{}, 100<<20))
	must(t, err)
	must(t, z.Close())
	want(t, "100 MiB", r.put(p.narinfo(), b.Bytes(), "Content-Encoding", "gzip"), http.StatusRequestEntityTooLarge)
}

func TestFilesBesideTheNARs(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	drv := hashA + "-hello.drv"
	const realisation = "/realisations/sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad!out.doi"
	for route, c := range map[string]struct{ contentType, body string }{
		"/log/" + drv:                                           {"text/plain; charset=utf-8", strings.Repeat("building\n", 100_000)},
		"/log/" + hashA + "-empty.drv":                          {"text/plain; charset=utf-8", ""},
		realisation:                                             {"application/json", `{"id":"x"}`},
		"/build-trace-v2/" + drv + "/out.doi":                   {"application/json", `{"value":{}}`},
		"/debuginfo/" + strings.Repeat("0a", 20):                {"application/json", `{"archive":"../nar/x.nar","member":"lib/x.debug"}`},
		"/" + hashA + ".ls":                                     {"application/json", `{"root":{"type":"regular"},"version":1}`},
		"/main/log/" + hashA + "-another.drv":                   {"text/plain; charset=utf-8", "another"},
		"/main/debuginfo/" + strings.Repeat("1", 32) + ".debug": {"application/json", `{}`},
	} {
		want(t, "before, "+route, r.get(route), http.StatusNotFound)
		want(t, "before, HEAD "+route, r.ask(http.MethodHead, route, nil), http.StatusNotFound)
		want(t, "PUT "+route, r.put(route, []byte(c.body)), http.StatusNoContent)
		for range 2 {
			a := r.get(route)
			if a.Code != http.StatusOK || a.Body.String() != c.body || a.Header().Get("Content-Type") != c.contentType || a.Header().Get("Content-Length") != fmt.Sprint(len(c.body)) {
				t.Errorf("%s: %d, %d bytes, %v", route, a.Code, a.Body.Len(), a.Header())
			}
			if a := r.get(route, "If-None-Match", a.Header().Get("Etag")); a.Code != http.StatusNotModified {
				t.Errorf("%s again: %d", route, a.Code)
			}
			head := r.ask(http.MethodHead, route, nil)
			if head.Code != http.StatusOK || head.Body.Len() != 0 || head.Header().Get("Content-Length") != fmt.Sprint(len(c.body)) {
				t.Errorf("HEAD %s: %d, %v", route, head.Code, head.Header())
			}
		}
	}
	var b bytes.Buffer
	z := brotli.NewWriter(&b)
	_, _ = z.Write([]byte("replaced"))
	must(t, z.Close())
	want(t, "a log again", r.put("/log/"+drv, b.Bytes(), "Content-Encoding", "br"), http.StatusNoContent)
	if a := r.get("/log/" + drv); a.Body.String() != "replaced" {
		t.Errorf("the log is %.100q", a.Body)
	}
	for route, body := range map[string]string{
		"/log/hello.drv":                  "x",
		"/log/" + hashA + "-hello":        "x",
		"/realisations/x.doi":             "{}",
		"/build-trace-v2/" + drv + "/out": "{}",
		"/build-trace-v2/x/out.doi":       "{}",
		"/debuginfo/xyz":                  "{}",
		"/x.ls":                           "{}",
		realisation:                       "no JSON",
	} {
		want(t, "PUT "+route, r.put(route, []byte(body)), http.StatusBadRequest)
	}
	want(t, "a large realisation", r.put(realisation, []byte(`"`+strings.Repeat("x", 1<<20)+`"`)), http.StatusRequestEntityTooLarge)
	want(t, "a log in another encoding", r.put("/log/"+drv, nil, "Content-Encoding", "compress"), http.StatusUnsupportedMediaType)
}
