package nixcache

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

func impatient(t *testing.T, patience time.Duration) *httptest.Server {
	t.Helper()
	dir := t.TempDir()
	idx, err := index.OpenSQLite(t.Context(), filepath.Join(dir, "index.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = idx.Close() })
	packs, err := packstore.OpenDisk(filepath.Join(dir, "packs"))
	if err != nil {
		t.Fatal(err)
	}
	store := cas.New(packs, idx, cas.DefaultGrace)
	t.Cleanup(store.Close)
	if _, err := EnsureCache(t.Context(), idx, "main", "/nix/store"); err != nil {
		t.Fatal(err)
	}
	d := New(store, idx, Config{DefaultCache: "main", Log: slog.New(slog.DiscardHandler)})
	d.patience = patience
	everyone, err := auth.New(auth.Config{}, d.log)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(everyone.Middleware(d.Handler()))
	t.Cleanup(server.Close)
	return server
}

// A stream of unknown length that stops coming holds memory that others wait for,
// also when it began well.
func TestAStreamThatStopsIsGivenUp(t *testing.T) {
	t.Parallel()
	server := impatient(t, 50*time.Millisecond)
	const drv = "0c5b8vw40dy178xlpddw65q9gf1h2186-x.drv"
	info := `{"cache":"main","store_path_hash":"` + drv[:32] + `","store_path":"/nix/store/` + drv + `","references":[],"sigs":[],` +
		`"nar_hash":"sha256:` + strings.Repeat("0", 64) + `","nar_size":1000000}`
	for route, c := range map[string]struct{ header, says string }{
		"/_api/v1/upload-path": {"X-Attic-Nar-Info: " + info + "\r\n", `"error":"RequestError"`},
		"/nar/x.nar":           {"", "too-slow"},
		"/nar/x.nar.xz":        {"", "too-slow"},
		"/log/" + drv:          {"", "too-slow"},
	} {
		for _, begin := range []string{"", "1\r\n\x0d\r\n", "8\r\n\x0d\x00\x00\x00\x00\x00\x00\x00\r\n"} {
			conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\n%sTransfer-Encoding: chunked\r\n\r\n%s", route, c.header, begin)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("%s: %v", route, err)
			}
			text, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusRequestTimeout || !strings.Contains(string(text), c.says) {
				t.Errorf("%s after %d bytes: %s %s, %v; want 408", route, len(begin), resp.Status, text, err)
			}
			_ = resp.Body.Close()
			_ = conn.Close()
		}
	}
}

// lazy takes a while for each Read.
type lazy struct{ each time.Duration }

func (l lazy) Read(p []byte) (int, error) {
	time.Sleep(l.each)
	return len(p), nil
}

// What comes fast enough buys time, but no more than the patience.
func TestPatienceIsEarnedBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &pacedBody{conn: http.NewResponseController(httptest.NewRecorder()), patience: time.Minute, left: 10 * time.Second}
		for _, c := range []struct {
			each  time.Duration
			bytes int
			left  time.Duration
		}{
			{5 * time.Second, 0, 5 * time.Second},
			{0, 64 << 10, 6 * time.Second},
			{2 * time.Second, 64 << 10, 5 * time.Second},
			{time.Second, 1 << 20, 20 * time.Second},
			{0, 4 << 20, time.Minute},
			{70 * time.Second, 0, -10 * time.Second},
		} {
			b.r = lazy{c.each}
			if n, err := b.Read(make([]byte, c.bytes)); n != c.bytes || err != nil || b.left != c.left {
				t.Errorf("%d bytes after %v: %d bytes, %v left, want %v; %v", c.bytes, c.each, n, b.left, c.left, err)
			}
		}
	})
}

// A client that waits to be told to go on is refused without its body.
func TestABodyThatWasNotSentIsNotAskedFor(t *testing.T) {
	t.Parallel()
	server := impatient(t, time.Minute)
	conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	fmt.Fprint(conn, "PUT /none/nar/x.nar HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("%s, want 404 without a 100 before it", resp.Status)
	}
}

func FuzzParseNARFile(f *testing.F) {
	const h = "1pxhdzfzv8rvkj3kjf9zry3957prdw6dp13jmivdf3pym3g3yi94"
	for _, name := range []string{h + ".nar", h + ".nar.zst", "0c5b8vw40dy178xlpddw65q9gf1h2186-" + h + ".nar", "x.nar.xz", ".nar", h + ".nar.nar"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		file, err := parseNARFile(name)
		if err != nil {
			return
		}
		if file.name != name || file.format == nil || !strings.HasSuffix(name, ".nar"+file.format.suffix) {
			t.Fatalf("%q is %+v", name, file)
		}
		if n := len(file.objectName()); n == 0 || n > 512 {
			t.Fatalf("an object of %d bytes", n)
		}
	})
}

func FuzzReadUpload(f *testing.F) {
	const hash, path = "0c5b8vw40dy178xlpddw65q9gf1h2186", "/nix/store/0c5b8vw40dy178xlpddw65q9gf1h2186-x"
	f.Add(`{"cache":"main","store_path_hash":"`+hash+`","store_path":"`+path+`","references":["`+hash+`-x"],"system":null,"deriver":null,`+
		`"sigs":["a:b"],"ca":null,"nar_hash":"sha256:`+strings.Repeat("0", 64)+`","nar_size":1}`, "", "")
	f.Add("", "2", "{}")
	f.Add("", "18446744073709551615", "")
	f.Fuzz(func(t *testing.T, text, size, body string) {
		u, err := readUpload(http.Header{"X-Attic-Nar-Info": {text}, "X-Celler-Nar-Info-Preamble-Size": {size}}, strings.NewReader(body))
		if err != nil {
			return
		}
		n, err := u.narinfo("/nix/store")
		if err != nil {
			return
		}
		if err := n.Check("/nix/store"); err != nil || n.NarSize <= 0 || n.NarSize > maxNAR {
			t.Fatalf("%+v, %v", n, err)
		}
	})
}

func FuzzAtticChange(f *testing.F) {
	f.Add(`{"keypair":"Generate","is_public":true,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":["a"],"retention_period":"Global"}`)
	f.Add(`{"keypair":{"Keypair":"a:b"},"retention_period":{"Period":60}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var a atticChange
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			return
		}
		c := index.Cache{Name: "main", StoreDir: "/nix/store"}
		if err := a.apply(&c); err != nil {
			return
		}
		if len(c.SecretKeys) > 0 {
			if _, err := keysOf(c); err != nil {
				t.Fatal(err)
			}
		}
		for _, k := range append(c.UpstreamKeys, c.SecretKeys...) {
			// The index separates them by spaces.
			if k == "" || strings.ContainsAny(k, " \t\r\n\v\f") {
				t.Fatalf("%q", k)
			}
		}
		if c.Retention < index.GlobalRetention || c.StoreDir != "/nix/store" {
			t.Fatalf("%+v", c)
		}
	})
}
