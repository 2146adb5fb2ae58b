package nixcache_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// cut answers with half of a file and breaks the connection.
func cut(w http.ResponseWriter, file []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(len(file)))
	_, _ = w.Write(file[:len(file)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// Whatever an upstream does, its clients see a miss, or an answer that is broken
// off; another upstream has the path when they ask again.
func TestFaultsOfAnUpstream(t *testing.T) {
	t.Parallel()
	narinfoIs := func(change func(n *narinfo.NarInfo, o *origin)) func(o *origin, p *copied) {
		return func(o *origin, p *copied) {
			n := *p.info
			change(&n, o)
			o.put(p.narinfo(), n.Text())
		}
	}
	resigned := func(change func(n *narinfo.NarInfo)) func(o *origin, p *copied) {
		return narinfoIs(func(n *narinfo.NarInfo, o *origin) {
			change(n)
			n.Signatures = []string{o.key.Sign(n)}
		})
	}
	narIs := func(change func(file []byte) []byte) func(o *origin, p *copied) {
		return func(o *origin, p *copied) { o.put("/"+p.named, change(slices.Clone(p.file))) }
	}
	answers := func(suffix string, answer func(w http.ResponseWriter, r *http.Request, p *copied)) func(o *origin, p *copied) {
		return func(o *origin, p *copied) {
			o.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, suffix) {
					return false
				}
				answer(w, r, p)
				return true
			})
		}
	}
	wait := func(_ http.ResponseWriter, r *http.Request, _ *copied) { <-r.Context().Done() }
	for what, c := range map[string]struct {
		spoil func(o *origin, p *copied)
		nar   bool   // it is the NAR that fails
		log   string // what the log says; empty is nothing
	}{
		"down":        {func(o *origin, _ *copied) { o.Close() }, false, "left out"},
		"slow":        {answers(".narinfo", wait), false, "left out"},
		"answers 500": {answers(".narinfo", func(w http.ResponseWriter, _ *http.Request, _ *copied) { w.WriteHeader(500) }), false, "left out"},
		"answers 401": {answers(".narinfo", func(w http.ResponseWriter, _ *http.Request, _ *copied) { w.WriteHeader(401) }), false, "left out"},
		"answers 403": {answers(".narinfo", func(w http.ResponseWriter, _ *http.Request, _ *copied) { w.WriteHeader(403) }), false, ""},
		"breaks off":  {answers(".narinfo", func(w http.ResponseWriter, _ *http.Request, p *copied) { cut(w, p.info.Text()) }), false, "left out"},
		"redirects for ever": {answers("/", func(w http.ResponseWriter, r *http.Request, _ *copied) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}), false, "redirects"},
		"redirects to a file": {answers("/", func(w http.ResponseWriter, r *http.Request, _ *copied) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(302)
		}), false, "redirects"},
		"garbage": {func(o *origin, p *copied) { o.put(p.narinfo(), noise(1000, "garbage")) }, false, "malformed narinfo"},
		"an endless narinfo": {answers(".narinfo", func(w http.ResponseWriter, _ *http.Request, _ *copied) {
			_, _ = io.Copy(w, io.LimitReader(zeros{}, 3<<20))
		}), false, "malformed narinfo"},
		"not signed":                  {narinfoIs(func(n *narinfo.NarInfo, _ *origin) { n.Signatures = nil }), false, "signed with none"},
		"signed by another":           {narinfoIs(func(n *narinfo.NarInfo, _ *origin) { n.Signatures = []string{newKey("origin-1").Sign(n)} }), false, "signed with none"},
		"changed after it was signed": {narinfoIs(func(n *narinfo.NarInfo, _ *origin) { n.References = []string{hashA + "-x"} }), false, "signed with none"},
		"of another path":             {resigned(func(n *narinfo.NarInfo) { n.StorePath = "/nix/store/" + hashA + "-x" }), false, "narinfo of"},
		"of another store":            {resigned(func(n *narinfo.NarInfo) { n.StorePath = strings.Replace(n.StorePath, "nix", "gnu", 1) }), false, "does not lie in"},
		"a URL elsewhere":             {narinfoIs(func(n *narinfo.NarInfo, _ *origin) { n.URL = "http://169.254.169.254/nar/x" }), false, "leads away"},
		"a URL elsewhere, relative":   {narinfoIs(func(n *narinfo.NarInfo, _ *origin) { n.URL = "//169.254.169.254/nar/x" }), false, "leads away"},
		"a URL of a file":             {narinfoIs(func(n *narinfo.NarInfo, _ *origin) { n.URL = "file:///etc/passwd" }), false, "leads away"},
		"a strange compression":       {narinfoIs(func(n *narinfo.NarInfo, _ *origin) { n.Compression = "rar" }), false, "rar"},
		"too large":                   {resigned(func(n *narinfo.NarInfo) { n.NarSize = 1 << 40 }), false, "bytes"},

		"no NAR":       {func(o *origin, p *copied) { o.put("/"+p.named, nil) }, true, ""},
		"a NAR of 500": {answers("/nar/", func(w http.ResponseWriter, _ *http.Request, _ *copied) { w.WriteHeader(500) }), true, "left out"},
		"a NAR that stops": {answers("/nar/", func(w http.ResponseWriter, r *http.Request, p *copied) {
			_, _ = w.Write(p.file[:1000])
			_ = http.NewResponseController(w).Flush()
			wait(w, r, p)
		}), true, "sends no more"},
		"a NAR broken off": {answers("/nar/", func(w http.ResponseWriter, _ *http.Request, p *copied) { cut(w, p.file) }), true, "left out"},
		"a NAR cut off":    {narIs(func(b []byte) []byte { return b[:len(b)/2] }), true, "ends early"},
		"no xz":            {narIs(func(b []byte) []byte { return noise(len(b), "x") }), true, "malformed xz"},
		"a NAR too long":   {narIs(func([]byte) []byte { return xzOf(zeros{}, 400_000) }), true, "more than"},
		"a NAR too short":  {narIs(func([]byte) []byte { return xzOf(zeros{}, 1000) }), true, "NarHash"},
		"another NAR":      {resigned(func(n *narinfo.NarInfo) { n.NarHash = digest.Of(nil) }), true, "NarHash"},
	} {
		for _, suffix := range []string{".zst", ""} {
			if !c.nar && suffix == "" {
				continue
			}
			t.Run(what+suffix, func(t *testing.T) {
				t.Parallel()
				o, spare := newOrigin(t), newOrigin(t)
				ar := newArchive(t, "hello", noise(200_000, "hello"), 100_000)
				p := o.add(t, ar, codecs[1])
				c.spoil(o, p)
				// Only what hangs is waited for briefly: a slow machine must not make a
				// fault of what is well.
				open := func() *rig {
					r := pullingFrom(t, o.upstream(), spare.upstream())
					switch what {
					case "slow":
						r.HurryHeader(o.URL, 200*time.Millisecond)
					case "a NAR that stops":
						r.HurryBody(o.URL, 200*time.Millisecond)
					}
					return r
				}
				r := open()
				server := httptest.NewServer(r.Handler())
				t.Cleanup(server.Close)
				hash := ar.info.NarHash
				for range 2 {
					w := r.get(ar.narinfo())
					if !c.nar {
						want(t, "narinfo", w, http.StatusNotFound)
						continue
					}
					if w.Code == http.StatusNotFound {
						break // it has failed before, which is remembered
					}
					n, err := narinfo.Parse(w.Body.Bytes())
					must(t, err)
					hash = n.NarHash
					resp, err := http.Get(server.URL + "/" + strings.TrimSuffix(n.URL, ".zst") + suffix)
					if err != nil {
						continue // it was broken off at once
					}
					b, err := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if resp.StatusCode == http.StatusOK && err == nil {
						t.Errorf("the NAR was answered, %d bytes", len(b))
					} else if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound {
						t.Errorf("the NAR: %s %s", resp.Status, b)
					}
				}
				if r.stored(t, ar) {
					t.Error("it was recorded")
				}
				if n := o.requests(p.narinfo()); n > 1 && !strings.HasPrefix(what, "redirects") {
					t.Errorf("the narinfo was asked for %d times", n)
				}
				if lines := strings.Count(r.log.String(), "level="); c.log == "" && lines != 0 || c.log != "" && (lines != 1 || !strings.Contains(r.log.String(), c.log)) {
					t.Errorf("the log; want %q:\n%s", c.log, r.log)
				}
				if hash != ar.info.NarHash {
					return
				}
				// It is remembered that the first one failed, and the second is asked.
				spare.add(t, ar, codecs[2])
				again := open()
				if c.nar {
					again.get(ar.narinfo())
					again.get(pulledNAR(ar, suffix))
				}
				want(t, "narinfo at the second", again.get(ar.narinfo()), http.StatusOK)
				w := again.get(pulledNAR(ar, ".zst"))
				if w.Code != http.StatusOK || w.broken || !bytes.Equal(unzstd(t, w.Body.Bytes()), ar.plain) {
					t.Errorf("at the second: %d %.100q", w.Code, w.Body)
				}
			})
		}
	}
}

func newKey(name string) narinfo.SecretKey {
	key, err := narinfo.GenerateKey(name)
	if err != nil {
		panic(err)
	}
	return key
}

func xzOf(r io.Reader, n int64) []byte {
	var b bytes.Buffer
	w, err := codecs[1].pack(&b)
	if err != nil {
		panic(err)
	}
	_, _ = io.CopyN(w, r, n)
	_ = w.Close()
	return b.Bytes()
}

// A client must never take for good what does not match its narinfo: not even of a
// NAR of the right length, whose last byte it has to wait for.
func TestANARThatDoesNotMatchIsBrokenOff(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{".zst", ""} {
		o := newOrigin(t)
		ar := newArchive(t, "hello", noise(9<<20, "hello"), 1<<20)
		p := o.add(t, ar, codecs[0])
		spoilt := slices.Clone(p.file)
		spoilt[5<<20] ^= 1
		o.put("/"+p.named, spoilt)
		r := pullingFrom(t, o.upstream())
		server := httptest.NewServer(r.Handler())
		resp, err := http.Get(server.URL + pulledNAR(ar, suffix))
		must(t, err)
		b, err := io.ReadAll(resp.Body)
		must(t, resp.Body.Close())
		if err == nil || resp.StatusCode != http.StatusOK || suffix == "" && len(b) >= len(ar.plain) {
			t.Errorf(".nar%s: %s, %d bytes, %v", suffix, resp.Status, len(b), err)
		}
		if r.stored(t, ar) {
			t.Error("it was recorded")
		}
		server.Close()
	}
}

// What cannot be stored is left to the upstream itself.
func TestNothingIsPulledWhileNothingCanBeStored(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	ar := newArchive(t, "hello", noise(5000, "hello"), 10_000)
	o.add(t, ar, codecs[1])
	r := pullingFrom(t, o.upstream())
	want(t, "narinfo", r.get(ar.narinfo()), http.StatusOK)
	r.packs.fault.Store(&packstore.ErrNoSpace)
	want(t, "NAR", r.get(pulledNAR(ar, ".zst")), http.StatusNotFound)
	for range 2 {
		want(t, "narinfo", r.get(ar.narinfo()), http.StatusNotFound)
		want(t, "NAR", r.get(pulledNAR(ar, ".zst")), http.StatusNotFound)
	}
	if n := strings.Count(r.log.String(), "level="); n != 1 {
		t.Errorf("the log:\n%s", r.log)
	}
}
