package target

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/pusher"
)

// serve starts a real server, of which hide keeps some requests.
func serve(t *testing.T, hide func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	s, err := cacheserver.Open(t.Context(), cacheserver.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hide == nil || !hide(w, r) {
			s.Handler().ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		h.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return h.URL
}

// noPush makes the server one of Attic's.
func noPush(w http.ResponseWriter, r *http.Request) bool {
	if !strings.Contains(r.URL.Path, "_push") {
		return false
	}
	http.NotFound(w, r)
	return true
}

// storePath is one whose NAR is a file with that text.
func storePath(name, text string, references ...string) pusher.Path {
	var b bytes.Buffer
	word := func(s string) {
		var n [8]byte
		n[0], n[1], n[2] = byte(len(s)), byte(len(s)>>8), byte(len(s)>>16)
		b.Write(n[:])
		b.WriteString(s)
		b.Write(make([]byte, (8-len(s)%8)%8))
	}
	for _, w := range []string{"nix-archive-1", "(", "type", "regular", "contents", text, ")"} {
		word(w)
	}
	return pusher.Path{
		NarInfo: &narinfo.NarInfo{
			StorePath: "/nix/store/" + strings.Repeat("a", 31) + name[:1] + "-" + name,
			NarHash:   digest.Of(b.Bytes()), NarSize: int64(b.Len()), References: references,
		},
		BuildTime: 1500 * time.Millisecond,
		Dump: func(w io.Writer) error {
			_, err := w.Write(b.Bytes())
			return err
		},
		Ready: func(context.Context) error { return nil },
	}
}

func TestAskTellsKindsApart(t *testing.T) {
	t.Parallel()
	plain := func(info string, put int) string {
		h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path != "/nix-cache-info":
				http.NotFound(w, r)
			case r.Method == http.MethodPut && put != 0:
				w.WriteHeader(put)
			default:
				_, _ = io.WriteString(w, info)
			}
		}))
		t.Cleanup(h.Close)
		return h.URL
	}
	const text = "StoreDir: /gnu/store\nPriority: 3\n"
	for name, tt := range map[string]struct {
		url      string
		kind     Kind
		storeDir string
		keys     int
		readOnly string
		fails    string
	}{
		"this project's":        {url: serve(t, nil) + "/main", kind: Chunks, storeDir: "/nix/store", keys: 1},
		"Attic's":               {url: serve(t, noPush) + "/main/", kind: Attic, storeDir: "/nix/store", keys: 1},
		"plain, writable":       {url: plain(text, http.StatusCreated), kind: Copy, storeDir: "/gnu/store"},
		"plain, of nginx":       {url: plain(text, http.StatusNoContent), kind: Copy, storeDir: "/gnu/store"},
		"plain, denies":         {url: plain(text, http.StatusForbidden), storeDir: "/gnu/store", readOnly: "uploads are not taken: HTTP 403"},
		"plain, PUT is GET":     {url: plain(text, 0), storeDir: "/gnu/store", readOnly: "uploads are not taken"},
		"plain, accepts later":  {url: plain(text, http.StatusAccepted), storeDir: "/gnu/store", readOnly: "HTTP 202"},
		"a directory":           {url: "file://" + t.TempDir(), kind: Copy},
		"a bucket":              {url: "s3://bucket?endpoint=example.org", kind: Copy},
		"an Attic without it":   {url: serve(t, noPush) + "/other", fails: "NoSuchCache"},
		"another scheme":        {url: "ftp://example.org", fails: "want http://HOST"},
		"nothing that is there": {url: "http://127.0.0.1:1/x", fails: "refused"},
	} {
		a, err := Ask(t.Context(), tt.url, "", &nix.Nix{})
		if tt.fails != "" {
			if err == nil || (!strings.Contains(err.Error(), tt.fails) && !strings.Contains(err.Error(), "no cache")) {
				t.Errorf("%s: %v, want %q", name, err, tt.fails)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		kind := Kind("")
		if a.Target != nil {
			kind = a.Target.Kind()
			a.Target.Close()
		}
		if kind != tt.kind || a.StoreDir != tt.storeDir || len(a.PublicKeys) != tt.keys {
			t.Errorf("%s: %q, %+v", name, kind, a)
		}
		if (a.ReadOnly == nil) != (tt.readOnly == "") || (a.ReadOnly != nil && !strings.Contains(a.ReadOnly.Error(), tt.readOnly)) {
			t.Errorf("%s: read only because %v, want %q", name, a.ReadOnly, tt.readOnly)
		}
	}
}

func hashOf(p pusher.Path) string { return storepath.Hash(p.StorePath) }

// Both kinds hold a path after it was sent, also one of which much is to be said,
// and refuse one that is not what it says.
func TestSendToRealServers(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{"chunks": serve(t, nil) + "/main", "attic": serve(t, noPush) + "/main"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, err := Ask(t.Context(), url, "", &nix.Nix{})
			if err != nil {
				t.Fatal(err)
			}
			defer a.Target.Close()
			var many []string
			for range 120 { // more than fits into a header
				many = append(many, strings.Repeat("b", 32)+"-"+strings.Repeat("x", 40))
			}
			small, large, wrong := storePath("small", "x"), storePath("large", strings.Repeat("y", 60000), many...), storePath("wrong", "z")
			wrong.NarHash = digest.Of([]byte("another"))
			hashes := []string{hashOf(small), hashOf(large), hashOf(wrong)}
			if missing, err := a.Target.MissingPaths(t.Context(), hashes); len(missing) != 3 || err != nil {
				t.Fatalf("missing %q, %v", missing, err)
			}
			for _, p := range []pusher.Path{small, large, small} {
				if err := a.Target.Send(t.Context(), p); err != nil {
					t.Fatalf("%s: %v", p.StorePath, err)
				}
			}
			var status *push.StatusError
			if err := a.Target.Send(t.Context(), wrong); !errors.As(err, &status) || status.Status != http.StatusBadRequest {
				t.Errorf("what is not what it says: %v", err)
			}
			if missing, err := a.Target.MissingPaths(t.Context(), hashes); len(missing) != 1 || missing[0] != hashes[2] || err != nil {
				t.Errorf("missing %q, %v", missing, err)
			}
			if a.Target.SentBytes() < 200 {
				t.Errorf("sent %d bytes", a.Target.SentBytes())
			}
			if err := a.Target.Probe(t.Context()); err != nil {
				t.Error(err)
			}
			broken := storePath("again", "q")
			errStore := errors.New("the disk is gone")
			broken.Dump = func(io.Writer) error { return errStore }
			if err := a.Target.Send(t.Context(), broken); !errors.Is(err, errStore) {
				t.Errorf("a store that cannot be read: %v", err)
			}
		})
	}
}

func TestChunksPinAndTellBuildTimes(t *testing.T) {
	t.Parallel()
	a, err := Ask(t.Context(), serve(t, nil), "", &nix.Nix{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Target.Close()
	p := storePath("pinned", "x")
	pinner, historian := a.Target.(Pinner), a.Target.(Historian)
	if err := pinner.Pin(t.Context(), "a/b c", p.StorePath, 1); err == nil || !strings.Contains(err.Error(), "push it first") {
		t.Errorf("what is not there: %v", err)
	}
	if err := a.Target.Send(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := pinner.Pin(t.Context(), "a/b c", p.StorePath, 1); err != nil {
		t.Error(err)
	}
	times, err := historian.BuildTimes(t.Context(), []string{hashOf(p), strings.Repeat("0", 32)})
	if err != nil || len(times) != 1 || times[hashOf(p)] != p.BuildTime {
		t.Errorf("build times %v, %v", times, err)
	}
}

func TestAtticTriesAgainWhatMayPass(t *testing.T) {
	t.Parallel()
	failures := 2
	url := serve(t, func(w http.ResponseWriter, r *http.Request) bool {
		if noPush(w, r) {
			return true
		}
		if r.Method == http.MethodPut && failures > 0 {
			failures--
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	a, err := Ask(t.Context(), url+"/main", "", &nix.Nix{})
	if err != nil {
		t.Fatal(err)
	}
	a.Target.(*attic).backoff = time.Millisecond
	if err := a.Target.Send(t.Context(), storePath("path", "x")); err != nil {
		t.Error(err)
	}
	failures = 3
	if err := a.Target.Send(t.Context(), storePath("other", "x")); err == nil || !strings.Contains(err.Error(), "HTTP 503") {
		t.Errorf("after three failures: %v", err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for url, good := range map[string]bool{
		"http://a": true, "https://a:1/b": true, "file:///a": true, "s3://b": true, "ssh-ng://h": true,
		"http://": false, "a": false, "": false, "ftp://a": false, "file:": false, "http://[::1": false, filepath.Join("a", "b"): false,
	} {
		if err := Check(url); (err == nil) != good {
			t.Errorf("%q: %v", url, err)
		}
	}
}
