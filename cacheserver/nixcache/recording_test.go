package nixcache_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
)

// replay makes the requests of a recorded client in their order, over the network.
// The paths have the hashes that were recorded; of the NARs, whose bytes were not
// recorded, each is one that was made up.
type replay struct {
	*rig
	url    string
	header http.Header
	paths  map[string]*copied // by the 32 characters of their hashes
	nars   map[string]*copied // by the names that were recorded
}

// prepare makes up the paths of a recording. Those that it reads before it has
// written them were there before it.
func (p *replay) prepare(t testing.TB, requests [][]string) {
	t.Helper()
	var there []*copied
	uploaded := ""
	for _, r := range requests {
		method, route, status := r[0], r[1], r[2]
		hash, isInfo := strings.CutSuffix(route[1:], ".narinfo")
		if isInfo && p.paths[hash] == nil {
			ar := newArchive(t, "path", noise(3000, hash), 1000)
			ar.info.StorePath = "/nix/store/" + hash + "-path"
			p.paths[hash] = ar.copied(t, codecs[2])
			if status == "200" {
				there = append(there, p.paths[hash])
			}
		}
		switch {
		case isInfo && method == http.MethodPut:
			p.nars[uploaded] = p.paths[hash]
		case strings.HasPrefix(route, "/nar/") && method == http.MethodPut:
			uploaded = route
		}
	}
	for _, c := range there {
		want(t, "NAR", p.put("/"+c.named, c.file), http.StatusNoContent)
		want(t, "narinfo", p.put(c.narinfo(), c.info.Text()), http.StatusNoContent)
	}
	for _, r := range requests {
		if route := r[1]; strings.HasPrefix(route, "/nar/") && p.nars[route] == nil {
			p.nars[route], there = there[0], there[1:]
		}
	}
}

func (p *replay) request(t testing.TB, method, route string, status string) {
	t.Helper()
	var body []byte
	var check func(got []byte) bool
	switch hash, isInfo := strings.CutSuffix(strings.TrimPrefix(route, "/"), ".narinfo"); {
	case isInfo:
		c := p.paths[hash]
		body = c.info.Text()
		check = func(got []byte) bool {
			n, err := narinfo.Parse(got)
			return err == nil && n.StorePath == c.info.StorePath && n.NarHash == c.info.NarHash
		}
	case strings.HasPrefix(route, "/nar/"):
		c := p.nars[route]
		route, body = "/"+c.named, c.file
		check = func(got []byte) bool { return bytes.Equal(unzstd(t, got), c.plain) }
	default:
		body = []byte("StoreDir: /nix/store\n")
		check = func(got []byte) bool { return bytes.HasPrefix(got, body) }
	}
	if method != http.MethodPut {
		body = nil
	}
	req, err := http.NewRequestWithContext(t.Context(), method, p.url+route, bytes.NewReader(body))
	must(t, err)
	req.Header = p.header.Clone()
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	var got bytes.Buffer
	_, err = got.ReadFrom(resp.Body)
	must(t, err)
	if fmt.Sprint(resp.StatusCode) != status {
		t.Errorf("%s %s: %s %.200s; want %s", method, route, resp.Status, &got, status)
		return
	}
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" {
		t.Errorf("%s %s: it is encoded as %s", method, route, encoding)
	}
	if method == http.MethodGet && resp.StatusCode == http.StatusOK && !check(got.Bytes()) {
		t.Errorf("%s %s: other contents, %.200q", method, route, got.Bytes())
	}
}

func TestRecordedClientsAreAnswered(t *testing.T) {
	t.Parallel()
	recordings, err := filepath.Glob("testdata/recordings/*.txt")
	if err != nil || len(recordings) < 2 {
		t.Fatalf("recordings: %q, %v", recordings, err)
	}
	for _, file := range recordings {
		for _, prefix := range []string{"", "/main"} {
			t.Run(filepath.Base(file)+" at "+prefix+"/", func(t *testing.T) {
				t.Parallel()
				text, err := os.ReadFile(file)
				must(t, err)
				p := &replay{rig: openRig(t), header: http.Header{}, paths: map[string]*copied{}, nars: map[string]*copied{}}
				server := httptest.NewServer(p.Handler())
				t.Cleanup(server.Close)
				p.url = server.URL + prefix
				var requests [][]string
				for line := range strings.Lines(string(text)) {
					line = strings.TrimSpace(line)
					if header, ok := strings.CutPrefix(line, "header "); ok {
						key, value, _ := strings.Cut(header, ": ")
						p.header.Set(key, value)
					} else if f := strings.Fields(line); f[0] != "#" {
						requests = append(requests, f)
					}
				}
				p.prepare(t, requests)
				for _, r := range requests {
					p.request(t, r[0], r[1], r[2])
				}
			})
		}
	}
}
