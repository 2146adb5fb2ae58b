package cacheserver_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// roots are the two places where the default cache answers.
var roots = []string{"", "/main"}

func TestCacheInfo(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, root := range roots {
		r := s.get(t, root+"/nix-cache-info")
		if want := "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 41\n"; r.status != http.StatusOK || string(r.body) != want {
			t.Errorf("status %d, %q; want %q", r.status, r.body, want)
		}
		if ct := r.header.Get("Content-Type"); ct != "text/x-nix-cache-info" {
			t.Errorf("type %q", ct)
		}
	}
	if r := s.get(t, "/healthz"); r.status != http.StatusOK || string(r.body) != "ok\n" {
		t.Errorf("healthz: %d %q", r.status, r.body)
	}
}

func TestPushInfo(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, url := range []string{s.url, s.url + "/", s.url + "/main", s.url + "/main/"} {
		c, err := push.NewClient(url)
		must(t, err)
		info, err := c.Info(t.Context())
		must(t, err)
		c.Close()
		want := push.Info{
			Protocol: 1, Cache: "main", StoreDir: "/nix/store", Priority: 41, PublicKeys: []string{s.PublicKey()},
			Chunking: push.Chunking{Algorithm: "fastcdc2020", Average: 131072},
			Limits:   push.Limits{Chunk: 4194304, ChunksBody: 16777216, ChunksPerBody: 16384, ChunksPerQuery: 65536, PathsBody: 16777216, CommitBody: 67108864},
		}
		if fmt.Sprint(info) != fmt.Sprint(want) {
			t.Errorf("%s: got %+v, PROTOCOL.md says %+v", url, info, want)
		}
	}
}

func TestWhatIsPushedIsServed(t *testing.T) {
	t.Parallel()
	s := start(t)
	for name, contents := range map[string][]byte{
		"empty":          nil,
		"small":          []byte("hello"),
		"compressible":   bytes.Repeat([]byte("all work and no play "), 100_000),
		"incompressible": noise(1<<20, 1),
		"windows":        noise(10<<20, 2), // several requests with chunks
		"repeating":      bytes.Repeat(noise(300_000, 3), 12),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := file(t, name, contents, base(name), base("empty"))
			p.info.Deriver, p.info.CA = base(name+".drv"), "fixed:r:sha256:abc"
			s.wantAbsent(t, p)
			s.push(t, p)
			n := s.wantServed(t, p)
			if n.Deriver != p.info.Deriver || n.CA != p.info.CA {
				t.Errorf("narinfo:\n%s", n.Text())
			}
			if got, want := slices.Sorted(slices.Values(n.References)), slices.Sorted(slices.Values(p.info.References)); !slices.Equal(got, slices.Compact(want)) {
				t.Errorf("references %v, want %v", got, want)
			}
			// Nothing in it depends on where it was asked for.
			hash := storepath.Hash(p.info.StorePath)
			if a, b := s.get(t, "/"+hash+".narinfo"), s.get(t, "/main/"+hash+".narinfo"); !bytes.Equal(a.body, b.body) {
				t.Errorf("at the root:\n%s\nunder /main:\n%s", a.body, b.body)
			}
			if a, b := s.get(t, "/"+n.URL), s.get(t, "/main/"+n.URL); !bytes.Equal(a.body, b.body) {
				t.Error("the root and /main serve different NARs")
			}
		})
	}
}

func TestTheStockZstdUnpacksANAR(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("zstd")
	if err != nil {
		t.Skip("zstd is not installed: the check with the stock decoder needs it")
	}
	s := start(t)
	p := file(t, "scattered", append(noise(500_000, 1), bytes.Repeat([]byte("words "), 100_000)...))
	s.scatter(t, p, 30_000)
	cmd := exec.CommandContext(t.Context(), tool, "-dc")
	cmd.Stdin = bytes.NewReader(s.get(t, "/main/"+s.wantServed(t, p).URL).body)
	out, err := cmd.Output()
	if err != nil || !bytes.Equal(out, p.nar) {
		t.Errorf("zstd -dc gives %d bytes of %d, %v", len(out), len(p.nar), err)
	}
}

func TestHEADIsGETWithoutTheBody(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := file(t, "hello", noise(400_000, 1))
	s.push(t, p)
	hash := storepath.Hash(p.info.StorePath)
	nar := "/" + s.narinfo(t, p).URL
	etag := s.get(t, nar).header.Get("Etag")
	routes := map[string]http.Header{"/healthz": {}}
	for _, root := range append(roots, "/unknown") {
		for _, r := range []string{
			"/nix-cache-info", "/" + hash + ".narinfo", nar, "/_push/v1",
			"/" + hash32("absent") + ".narinfo", "/nar/" + digest.Of(nil).Nix32() + ".nar.zst", "/short.narinfo", "/nar/short.nar.zst", "/nothing", "/",
		} {
			routes[root+r] = http.Header{}
		}
	}
	for route, header := range routes {
		compareHEAD(t, s, route, header)
	}
	compareHEAD(t, s, nar, http.Header{"If-None-Match": {etag}})
}

func compareHEAD(t *testing.T, s *running, route string, header http.Header) {
	t.Helper()
	get := s.do(t, http.MethodGet, route, header.Clone(), nil)
	head := s.do(t, http.MethodHead, route, header.Clone(), nil)
	if head.broken != nil || len(head.body) != 0 {
		t.Errorf("HEAD %s: %d bytes, %v", route, len(head.body), head.broken)
	}
	for _, h := range []http.Header{get.header, head.header} {
		h.Del("Date")
		if strings.HasPrefix(h.Get("Content-Type"), "text/html") {
			h.Del("Content-Length") // a page counts what has been asked for
		}
	}
	if get.status != head.status || !maps.EqualFunc(get.header, head.header, slices.Equal) {
		t.Errorf("%s %v\nGET  %d %v\nHEAD %d %v", route, header, get.status, get.header, head.status, head.header)
	}
}

func TestRanges(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := file(t, "scattered", noise(100_000, 1))
	s.scatter(t, p, 7000)
	route := "/" + s.wantServed(t, p).URL
	whole := s.get(t, route)
	file, size := whole.body, len(whole.body)
	etag := whole.header.Get("Etag")
	if etag == "" || strings.HasPrefix(etag, "W/") {
		t.Fatalf("Etag %q: If-Range needs a strong one", etag)
	}

	for name, c := range map[string]struct {
		header   []string
		status   int
		from, to int // of the file, to exclusive
	}{
		"none":                      {nil, 200, 0, size},
		"the first byte":            {[]string{"Range", "bytes=0-0"}, 206, 0, 1},
		"the first bytes":           {[]string{"Range", "bytes=0-99"}, 206, 0, 100},
		"across extents":            {[]string{"Range", "bytes=6000-30000"}, 206, 6000, 30001},
		"within an extent":          {[]string{"Range", "bytes=8000-8001"}, 206, 8000, 8002},
		"all of it":                 {[]string{"Range", fmt.Sprintf("bytes=0-%d", size-1)}, 206, 0, size},
		"an open end":               {[]string{"Range", "bytes=20000-"}, 206, 20000, size},
		"an open end from 0":        {[]string{"Range", "bytes=0-"}, 206, 0, size},
		"the last byte":             {[]string{"Range", fmt.Sprintf("bytes=%d-", size-1)}, 206, size - 1, size},
		"beyond the end":            {[]string{"Range", "bytes=90000-99999999"}, 206, 90000, size},
		"a suffix":                  {[]string{"Range", "bytes=-1000"}, 206, size - 1000, size},
		"a suffix of a byte":        {[]string{"Range", "bytes=-1"}, 206, size - 1, size},
		"a suffix longer than it":   {[]string{"Range", "bytes=-999999999"}, 206, 0, size},
		"behind the end":            {[]string{"Range", fmt.Sprintf("bytes=%d-", size)}, 416, 0, 0},
		"far behind the end":        {[]string{"Range", "bytes=999999999-999999999"}, 416, 0, 0},
		"a suffix of nothing":       {[]string{"Range", "bytes=-0"}, 416, 0, 0},
		"several":                   {[]string{"Range", "bytes=0-1,3-4"}, 200, 0, size},
		"several with a space":      {[]string{"Range", "bytes=0-1, 3-4"}, 200, 0, size},
		"backwards":                 {[]string{"Range", "bytes=5-3"}, 200, 0, size},
		"another unit":              {[]string{"Range", "lines=0-1"}, 200, 0, size},
		"no unit":                   {[]string{"Range", "0-1"}, 200, 0, size},
		"no numbers":                {[]string{"Range", "bytes=-"}, 200, 0, size},
		"no dash":                   {[]string{"Range", "bytes=5"}, 200, 0, size},
		"nothing":                   {[]string{"Range", "bytes="}, 200, 0, size},
		"a sign":                    {[]string{"Range", "bytes=+1-2"}, 200, 0, size},
		"a negative end":            {[]string{"Range", "bytes=1--2"}, 200, 0, size},
		"hexadecimal":               {[]string{"Range", "bytes=0x0-0x1"}, 200, 0, size},
		"beyond 64 bits":            {[]string{"Range", "bytes=0-99999999999999999999"}, 200, 0, size},
		"the file it has":           {[]string{"Range", "bytes=10-19", "If-Range", etag}, 206, 10, 20},
		"another file":              {[]string{"Range", "bytes=10-19", "If-Range", `"other"`}, 200, 0, size},
		"a weak name of it":         {[]string{"Range", "bytes=10-19", "If-Range", "W/" + etag}, 200, 0, size},
		"a date":                    {[]string{"Range", "bytes=10-19", "If-Range", "Mon, 02 Jan 2006 15:04:05 GMT"}, 200, 0, size},
		"behind the end of another": {[]string{"Range", "bytes=99999999-", "If-Range", `"other"`}, 200, 0, size},
		"what it has already":       {[]string{"If-None-Match", etag}, 304, 0, 0},
		"that, and a range":         {[]string{"If-None-Match", etag, "Range", "bytes=0-1"}, 304, 0, 0},
		"that, behind the end":      {[]string{"If-None-Match", etag, "Range", "bytes=99999999-"}, 304, 0, 0},
		"not what it has":           {[]string{"If-None-Match", `"other"`}, 200, 0, size},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := s.get(t, route, c.header...)
			if r.status != c.status {
				t.Fatalf("status %d, want %d", r.status, c.status)
			}
			contentRange := ""
			switch c.status {
			case 206:
				contentRange = fmt.Sprintf("bytes %d-%d/%d", c.from, c.to-1, size)
			case 416:
				contentRange = fmt.Sprintf("bytes */%d", size)
			}
			if got := r.header.Get("Content-Range"); got != contentRange {
				t.Errorf("Content-Range %q, want %q", got, contentRange)
			}
			if e := r.header.Get("Content-Encoding"); e != "" {
				t.Errorf("Content-Encoding %q: Nix does not resume such an answer", e)
			}
			if c.status == 416 {
				if v := r.header.Get("Cache-Control"); v != "" {
					t.Errorf("an error that may be kept: %s", v)
				}
				return
			}
			if !bytes.Equal(r.body, file[c.from:c.to]) {
				t.Errorf("%d bytes, want those from %d to %d", len(r.body), c.from, c.to)
			}
			if (c.status != 304 && r.header.Get("Accept-Ranges") != "bytes") || r.header.Get("Etag") != etag {
				t.Errorf("header %v", r.header)
			}
			if c.status != 304 && (r.header.Get("Content-Length") != fmt.Sprint(c.to-c.from) || r.header.Get("Content-Type") != "application/x-nix-nar") {
				t.Errorf("header %v", r.header)
			}
		})
	}

	t.Run("any", func(t *testing.T) {
		t.Parallel()
		for from := 0; from < size; from += 997 {
			for _, length := range []int{1, 6999, 7000, 7001, 40_000} {
				to := min(from+length, size)
				r := s.get(t, route, "Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
				if r.status != 206 || !bytes.Equal(r.body, file[from:to]) {
					t.Fatalf("%d bytes at %d: status %d, other bytes", length, from, r.status)
				}
			}
		}
	})
}

// A download that broke off goes on from where it was, as Nix does it.
func TestADownloadIsResumed(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := file(t, "scattered", noise(100_000, 1))
	s.scatter(t, p, 7000)
	n := s.wantServed(t, p)
	var got []byte
	for int64(len(got)) < n.FileSize {
		r := s.get(t, "/main/"+n.URL, "Range", fmt.Sprintf("bytes=%d-", len(got)))
		if r.status != http.StatusPartialContent {
			t.Fatalf("status %d at %d", r.status, len(got))
		}
		got = append(got, r.body[:min(len(r.body), 9000)]...)
	}
	if digest.Of(got) != n.FileHash {
		t.Error("the pieces do not make the file")
	}
}

func TestWhatIsNotThere(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := file(t, "hello", []byte("hello"))
	s.push(t, p)
	hash := storepath.Hash(p.info.StorePath)
	for route, want := range map[string]int{
		"/" + hash32("absent") + ".narinfo":                404,
		"/" + hash:                                         404,
		"/" + hash + "-hello.narinfo":                      400,
		"/" + strings.ToUpper(hash) + ".narinfo":           400,
		"/short.narinfo":                                   400,
		"/.narinfo":                                        400,
		"/nar/" + digest.Of(nil).Nix32() + ".nar.zst":      404,
		"/nar/" + p.info.NarHash.Nix32() + ".nar.xz":       404,
		"/nar/short.nar.zst":                               404, // a client may have put a file of any name
		"/nar/z" + p.info.NarHash.Nix32()[1:] + ".nar.zst": 404,
		"/nar/":                          404,
		"/log/" + base("hello.drv"):      404,
		"/realisations/sha256:x!out.doi": 404,
		"/_push":                         404,
		"/_push/v2":                      404,
		"/index.sqlite":                  404,
		"/" + strings.Repeat("x", 5000) + ".narinfo": 400,
	} {
		for _, root := range roots {
			r := s.get(t, root+route)
			if r.status != want {
				t.Errorf("%s: status %d, want %d: %.200s", root+route, r.status, want, r.body)
			}
			if want == 400 {
				r.want(t, 400, push.CodeMalformed)
			}
			if len(r.body) > 1000 {
				t.Errorf("%.50s: an answer of %d bytes", root+route, len(r.body))
			}
		}
	}
	for _, route := range []string{"/nix-cache-info", "/" + hash + ".narinfo", "/" + s.narinfo(t, p).URL, "/_push/v1"} {
		for _, unknown := range []string{"/other", "/Main", "/main2", "/" + strings.Repeat("x", 5000), "/%00", "/ü"} {
			s.get(t, unknown+route).want(t, 404, push.CodeNoSuchCache)
		}
	}
	for _, route := range []string{"/nar/..%2f..%2findex.sqlite", "/nar/%2e%2e%2f%2e%2e%2findex.sqlite.nar.zst", "/../index.sqlite", "/nar/../../index.sqlite"} {
		for _, root := range roots {
			if r := s.get(t, root+route); r.status != 400 && r.status != 404 {
				t.Errorf("%s: status %d: %.200q", root+route, r.status, r.body)
			}
		}
	}
	for _, route := range []string{"/nix-cache-info", "/" + hash + ".narinfo"} {
		if r := s.do(t, http.MethodPut, "/main"+route, nil, strings.NewReader("x")); r.status != http.StatusBadRequest {
			t.Errorf("PUT %s of what is none: status %d", route, r.status)
		}
	}
	s.wantServed(t, p)
}

func TestSignaturesOfOthersAreKept(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := file(t, "hello", []byte("hello"))
	key, err := narinfo.GenerateKey("cache.example-1")
	must(t, err)
	name, _, _ := strings.Cut(s.PublicKey(), ":")
	p.info.Signatures = []string{key.Sign(p.info), name + ":Zm9yZ2Vk"}
	s.push(t, p)
	n := s.wantServed(t, p)
	if ok, err := n.Signed(key.Public()); !ok || err != nil {
		t.Errorf("the other's signature: %v, %v", ok, err)
	}
	if len(n.Signatures) != 2 {
		t.Errorf("signatures %v, want the server's and the other's: one in the server's name is not to be forged", n.Signatures)
	}
}
