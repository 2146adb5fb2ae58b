package nixcache_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/fsck"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

func noise(n int, seed string) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(digest.Of([]byte(seed))).Read(b)
	return b
}

// wantUnavailable checks for a 503 that says when to come again.
func wantUnavailable(t testing.TB, route string, w answer) {
	t.Helper()
	var e push.Error
	err := json.Unmarshal(w.Body.Bytes(), &e)
	if w.Code != http.StatusServiceUnavailable || err != nil || e.Code != push.CodeUnavailable || w.broken {
		t.Errorf("%s: %d %s, broken %v", route, w.Code, w.Body, w.broken)
	}
	if w.Header().Get("Retry-After") != "5" {
		t.Errorf("%s: headers %v", route, w.Header())
	}
	for _, h := range []string{"Content-Length", "Cache-Control", "Etag", "Accept-Ranges", "Content-Range"} {
		if got := w.Header().Get(h); got != "" {
			t.Errorf("%s: the error has the file's %s %q", route, h, got)
		}
	}
}

func TestEnginesThatCannotBeReachedAreA503(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	there, other := newArchive(t, "there", noise(5000, "1"), 1000), newArchive(t, "other", noise(5000, "2"), 1000)
	r.pushArchive(t, there, 2)
	body := push.AppendFrame(nil, other.frames[0])
	for _, f := range other.frames[1:] {
		r.ask(http.MethodPost, "/_push/v1/chunks", push.AppendFrame(nil, f))
	}
	hashes := push.AppendHashes(nil, []digest.Hash{there.frames[0].Hash})
	type request struct {
		method, route string
		body          []byte
	}
	requests := []request{
		{http.MethodGet, there.narinfo(), nil},
		{http.MethodGet, there.nar(), nil},
		{http.MethodHead, there.nar(), nil},
		{http.MethodGet, "/nix-cache-info", nil},
		{http.MethodGet, "/_push/v1", nil},
		{http.MethodPost, "/_push/v1/missing-paths", []byte(`{"hashes":["` + storepath.Hash(there.info.StorePath) + `"]}`)},
		{http.MethodPost, "/_push/v1/missing-chunks", hashes},
		{http.MethodPost, "/_push/v1/chunks", body},
		{http.MethodPost, "/_push/v1/paths", there.commit()},
	}
	r.index.fault.Store(&index.ErrUnavailable)
	for _, q := range requests {
		wantUnavailable(t, "no index, "+q.route, r.again().ask(q.method, q.route, q.body))
	}
	r.index.fault.Store(nil)

	r.packs.fault.Store(&packstore.ErrUnavailable)
	r.ask(http.MethodPost, "/_push/v1/chunks", body)
	for _, q := range requests {
		w := r.again().ask(q.method, q.route, q.body)
		switch {
		case q.route == there.nar() && q.method == http.MethodGet, strings.HasSuffix(q.route, "/chunks"):
			wantUnavailable(t, "no packs, "+q.route, w)
		case w.Code != http.StatusOK:
			t.Errorf("%s needs no packs: %d %s", q.route, w.Code, w.Body)
		}
	}
	r.packs.fault.Store(nil)
	for _, q := range requests {
		if w := r.again().ask(q.method, q.route, q.body); w.Code/100 != 2 {
			t.Errorf("%s, afterwards: %d %s", q.route, w.Code, w.Body)
		}
	}
}

// While the index cannot be reached, what was answered lately is answered on.
func TestOldAnswersAreBetterThanNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t)
		known, unread, gone := newArchive(t, "known", noise(5000, "1"), 1000), newArchive(t, "unread", noise(5000, "2"), 1000), newArchive(t, "gone", noise(5000, "3"), 1000)
		for _, a := range []*archive{known, unread, gone} {
			r.pushArchive(t, a, 2)
			r.get(a.narinfo())
		}
		r.wantNAR(t, known)
		r.wantNAR(t, gone)
		text := r.get(known.narinfo()).Body.String()
		r.forget(t, gone)
		time.Sleep(2 * time.Minute)
		if w := r.get(gone.narinfo()); w.Code != http.StatusNotFound {
			t.Errorf("what was removed: %d", w.Code)
		}
		r.index.fault.Store(&index.ErrUnavailable)
		for range 2 {
			if w := r.get("/nix-cache-info"); w.Code != http.StatusOK {
				t.Errorf("the cache itself: %d", w.Code)
			}
			if w := r.get(known.narinfo()); w.Code != http.StatusOK || w.Body.String() != text {
				t.Errorf("the narinfo: %d %s", w.Code, w.Body)
			}
			r.wantNAR(t, known)
			if w := r.get(known.nar(), "Range", "bytes=7-100"); w.Code != http.StatusPartialContent || !bytes.Equal(w.Body.Bytes(), known.file()[7:101]) {
				t.Errorf("a range: %d", w.Code)
			}
			wantUnavailable(t, "a NAR that nobody has looked at", r.get(unread.nar()))
			wantUnavailable(t, "the narinfo of what was removed", r.get(gone.narinfo()))
			wantUnavailable(t, "a narinfo that nobody asked for", r.get("/"+hashA+".narinfo"))
			time.Sleep(time.Hour)
		}
		r.index.fault.Store(nil)
		r.wantNAR(t, unread)
		if w := r.get("/" + hashA + ".narinfo"); w.Code != http.StatusNotFound {
			t.Errorf("afterwards: %d", w.Code)
		}
	})
}

// Any range of a NAR is the same bytes, whether they were checked before or are
// on their way.
func TestRangesOfNARs(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := newArchive(t, "a", noise(60_000, "1"), 1700)
	r.pushArchive(t, a, 3)
	file := a.file()
	size := int64(len(file))
	hot := r.again()
	hot.wantNAR(t, a)
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.Int64Range(0, size+10).Draw(t, "from")
		to := rapid.Int64Range(from, size+10).Draw(t, "to")
		header, want := fmt.Sprintf("bytes=%d-%d", from, to), file[min(from, size):min(to+1, size)]
		switch rapid.IntRange(0, 3).Draw(t, "form") {
		case 0:
			header, want = fmt.Sprintf("bytes=%d-", from), file[min(from, size):]
		case 1:
			header, want = fmt.Sprintf("bytes=-%d", from), file[size-min(from, size):]
			from = size - min(from, size)
		}
		for name, d := range map[string]*rig{"checked": hot, "unchecked": r.again()} {
			w := d.get(a.nar(), "Range", header)
			if len(want) == 0 {
				if w.Code != http.StatusRequestedRangeNotSatisfiable {
					t.Errorf("%s, %s: %d, want 416", name, header, w.Code)
				}
				continue
			}
			contentRange := fmt.Sprintf("bytes %d-%d/%d", from, from+int64(len(want))-1, size)
			if w.Code != http.StatusPartialContent || w.broken || !bytes.Equal(w.Body.Bytes(), want) ||
				w.Header().Get("Content-Range") != contentRange || w.Header().Get("Content-Length") != fmt.Sprint(len(want)) {
				t.Errorf("%s, %s: %d, broken %v, %d bytes of %d, %v", name, header, w.Code, w.broken, w.Body.Len(), len(want), w.Header())
			}
		}
	})
}

// Damage that the first read finds ends the answer before it, whatever has been
// sent, and the log says whom it hits.
func TestDamageIsNotServed(t *testing.T) {
	t.Parallel()
	for damaged := range 6 {
		t.Run(fmt.Sprint("chunk ", damaged), func(t *testing.T) {
			t.Parallel()
			r := openRig(t)
			contents := noise(5500, "1")
			a, b := newArchive(t, "one", contents, 1000), newArchive(t, "same", contents, 1000)
			other := newArchive(t, "other", noise(5500, "2"), 1000)
			for _, a := range []*archive{a, b, other} {
				r.pushArchive(t, a, 2)
			}
			r.spoil(t, a.frames[damaged].Hash)
			good := 0
			for _, f := range a.frames[:damaged] {
				good += len(f.Data)
			}
			// However often it is asked for.
			for range 3 {
				w := r.get(a.nar())
				if damaged == 0 {
					if w.Code != http.StatusInternalServerError || w.broken || !strings.Contains(w.Body.String(), push.CodeInternal) || w.Header().Get("Etag") != "" {
						t.Errorf("%d, broken %v: %s", w.Code, w.broken, w.Body)
					}
				} else if !w.broken || !bytes.Equal(w.Body.Bytes(), a.file()[:good]) {
					t.Errorf("%d, broken %v, %d bytes of which %d are good", w.Code, w.broken, w.Body.Len(), good)
				}
			}
			r.wantLog(t, a.frames[damaged].Hash.String(), "-one", "-same", "fsck --repair", "level=ERROR")
			if strings.Contains(r.log.String(), "-other") {
				t.Errorf("the log names a path that it does not hit:\n%s", r.log)
			}
			r.wantNAR(t, other)

			// A part without damage is good, but makes the whole not good.
			if damaged > 0 {
				w := r.get(a.nar(), "Range", fmt.Sprintf("bytes=0-%d", good-1))
				if w.Code != http.StatusPartialContent || !bytes.Equal(w.Body.Bytes(), a.file()[:good]) {
					t.Errorf("the good part: %d", w.Code)
				}
				if w := r.get(a.nar()); !w.broken {
					t.Errorf("after it: %d", w.Code)
				}
			}
			if w := r.ask(http.MethodHead, a.nar(), nil); w.Code != http.StatusOK || w.Body.Len() != 0 {
				t.Errorf("HEAD: %d", w.Code)
			}

			// The same door serves it once it is mended and pushed again.
			checker := fsck.Checker{Packs: r.disk, Index: r.sqlite, Store: r.store, Repair: true}
			report, err := checker.Run(t.Context())
			if err != nil || report.Dropped != 1 {
				t.Fatalf("%+v, %v", report, err)
			}
			if w := r.get(a.nar()); w.Code != http.StatusNotFound {
				t.Errorf("after it was dropped: %d %s", w.Code, w.Body)
			}
			r.pushArchive(t, a, 2)
			r.wantNAR(t, a)
			r.wantNAR(t, a)
		})
	}
}

// A client sees damage in the middle of an answer as a connection that broke.
func TestDamageBreaksTheConnection(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := newArchive(t, "a", noise(400_000, "1"), 20_000)
	r.pushArchive(t, a, 20)
	r.spoil(t, a.frames[15].Hash)
	server := httptest.NewServer(r.Handler())
	defer server.Close()
	resp, err := http.Get(server.URL + a.nar())
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if !errors.Is(err, io.ErrUnexpectedEOF) || resp.StatusCode != http.StatusOK || len(body) > 15*21_000 || !bytes.Equal(body, a.file()[:len(body)]) {
		t.Errorf("%s, %d bytes, %v", resp.Status, len(body), err)
	}
}

// What was good yesterday is looked at again today.
func TestBytesAreCheckedAgainAfterADay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t)
		a := newArchive(t, "a", noise(5000, "1"), 1000)
		r.pushArchive(t, a, 2)
		r.wantNAR(t, a)
		r.spoil(t, a.frames[0].Hash)
		time.Sleep(23 * time.Hour)
		if w := r.get(a.nar()); w.Code != http.StatusOK {
			t.Errorf("within a day: %d", w.Code)
		}
		time.Sleep(2 * time.Hour)
		for range 2 {
			if w := r.get(a.nar()); w.Code != http.StatusInternalServerError {
				t.Errorf("after a day: %d", w.Code)
			}
		}
		r.wantLog(t, "-a")
	})
}

// A pack that is lost or cut off is damage, too, of a NAR that was good a moment
// ago.
func TestALostPackIsDamageEvenOfACheckedNAR(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(file string) error{
		"lost":    os.Remove,
		"cut off": func(f string) error { return os.Truncate(f, 100) },
	} {
		for _, frame := range []int{0, 3} {
			t.Run(fmt.Sprintf("%s, frame %d", name, frame), func(t *testing.T) {
				t.Parallel()
				r := openRig(t)
				a := newArchive(t, "a", noise(5000, "1"), 1000)
				r.pushArchive(t, a, 1)
				r.wantNAR(t, a)
				at, err := r.sqlite.Locate(t.Context(), []digest.Hash{a.frames[frame].Hash})
				must(t, err)
				must(t, spoil(r.packFile(t, at[0].Pack)))
				for range 2 {
					w := r.get(a.nar())
					if frame == 0 && (w.Code != http.StatusInternalServerError || w.broken) || frame != 0 && !w.broken {
						t.Errorf("%d, broken %v: %.100s", w.Code, w.broken, w.Body)
					}
					if frame == 0 {
						r.wantLog(t, "-a", a.frames[0].Hash.String())
					}
				}
				r.wantLog(t, "stored bytes are damaged", "-a", a.frames[frame].Hash.String())
			})
		}
	}
}

// What was collected is not there, however fresh the memory of it is, and it is
// not called damaged.
func TestWhatWasCollectedIsNotThere(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]bool{"read before": true, "only looked at": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := openRig(t)
			a := newArchive(t, "a", noise(5000, "1"), 1000)
			r.pushArchive(t, a, 2)
			if read {
				r.wantNAR(t, a)
			} else {
				r.ask(http.MethodHead, a.nar(), nil)
			}
			r.forget(t, a)
			r.deletePacks(t)
			if w := r.get(a.nar()); w.Code != http.StatusNotFound {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			// Pushed again, and cut otherwise, it is another file.
			other := newArchive(t, "a", noise(5000, "1"), 700)
			r.pushArchive(t, other, 3)
			r.wantNAR(t, other)
			if log := r.log.String(); strings.Contains(log, "damaged") {
				t.Errorf("the log says\n%s", log)
			}
		})
	}
}

// Half of one file and half of another make none.
func TestANARThatWasPushedAgainIsNotMixed(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := newArchive(t, "a", noise(5000, "1"), 1000)
	other := newArchive(t, "a", noise(5000, "1"), 700)
	r.pushArchive(t, a, 2)
	r.wantNAR(t, a)
	r.forget(t, a)
	r.deletePacks(t)
	r.again().pushArchive(t, other, 3)
	w := r.get(a.nar())
	if w.Code == http.StatusOK && !w.broken && !bytes.Equal(w.Body.Bytes(), other.file()) {
		t.Errorf("%d bytes of two files", w.Body.Len())
	}
	r.wantNAR(t, other)
}

// Between the look whether a NAR is stored and the commit of a path over it, it
// may be collected. The chunks that the client then says it has are looked at.
func TestACommitOverANARThatIsCollectedMeanwhile(t *testing.T) {
	t.Parallel()
	right := func(a *archive) []pack.Frame { return a.frames }
	for name, c := range map[string]struct {
		sent   func(a *archive) []pack.Frame
		bazel  bool // the NAR came by Bazel's door, so that its own chunks are to be read
		status int
	}{
		"the right chunks":                 {right, false, http.StatusOK},
		"the right chunks, Bazel's output": {right, true, http.StatusOK},
		"others": {func(a *archive) []pack.Frame {
			f := slices.Clone(a.frames)
			f[1], f[2] = f[2], f[1]
			return f
		}, false, http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := openRig(t)
			a := newArchive(t, "a", noise(5000, "1"), 1000)
			r.pushArchive(t, a, 2)
			collect := func() {
				now := time.Now().Add(24 * time.Hour)
				must(t, r.sqlite.Update(t.Context(), func(tx index.Tx) error {
					if _, _, err := tx.RemoveUnused(1, []string{storepath.Hash(a.info.StorePath)}, now); err != nil {
						return err
					}
					swept, err := tx.SweepBlobs(1, 100, now)
					if swept.Removed != 1 {
						t.Errorf("the blob has not gone: %+v", swept)
					}
					return err
				}))
			}
			if c.bazel {
				r.change(t, "UPDATE blobs SET file_hash = zeroblob(32)")
			}
			r.index.afterBlob.Store(&collect)
			sent := *a
			sent.frames = c.sent(a)
			if w := r.ask(http.MethodPost, "/_push/v1/paths", sent.commit()); w.Code != c.status {
				t.Errorf("%d %s, want %d", w.Code, w.Body, c.status)
			}
			if c.status == http.StatusOK {
				r.wantNAR(t, a)
			} else if w := r.get(a.narinfo()); w.Code != http.StatusNotFound {
				t.Errorf("the narinfo: %d", w.Code)
			}
		})
	}
}

// signing is a pack store that gives URLs.
type signing struct {
	packstore.Store
	err error
}

func (s *signing) Presign(_ context.Context, name string, ttl time.Duration) (string, error) {
	return fmt.Sprintf("https://packs.example/%s?ttl=%v", name, ttl), s.err
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	storage := &signing{}
	r := openRigWith(t, nixcache.Config{Redirect: true}, func(p packstore.Store) packstore.Store {
		storage.Store = p
		return storage
	})
	whole, cut := newArchive(t, "whole", noise(5000, "1"), 1000), newArchive(t, "cut", noise(5000, "2"), 1000)
	r.pushArchive(t, whole, 100)
	r.pushArchive(t, cut, 3)
	at, err := r.sqlite.Locate(t.Context(), []digest.Hash{whole.frames[0].Hash})
	must(t, err)
	for range 2 {
		w := r.get(whole.nar())
		if want := "https://packs.example/" + at[0].Pack + "?ttl=15m0s"; w.Code != http.StatusFound || w.Header().Get("Location") != want || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%d, %v", w.Code, w.Header())
		}
		// What the URL gives unpacks to the NAR.
		b, err := os.ReadFile(r.packFile(t, at[0].Pack))
		must(t, err)
		if plain, err := frame.Decode(nil, b); err != nil || !bytes.Equal(plain, whole.plain) {
			t.Errorf("the pack unpacks to %d bytes, %v", len(plain), err)
		}
		r.wantNAR(t, cut)
		if w := r.ask(http.MethodHead, whole.nar(), nil); w.Code != http.StatusOK || w.Header().Get("Content-Length") != fmt.Sprint(len(whole.file())) {
			t.Errorf("HEAD: %d, %v", w.Code, w.Header())
		}
		if w := r.get(whole.nar(), "Range", "bytes=10-19"); w.Code != http.StatusPartialContent || !bytes.Equal(w.Body.Bytes(), whole.file()[10:20]) {
			t.Errorf("a range: %d", w.Code)
		}
	}
	r.again().wantNAR(t, whole) // whose Config says nothing of redirects

	storage.err = errors.New("no key")
	r.wantNAR(t, whole)
	r.wantLog(t, "no key")
}
