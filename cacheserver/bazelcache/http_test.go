package bazelcache

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// answer is what a request was answered with.
type answer struct {
	status int
	header http.Header
	body   []byte
	length int64 // as announced
}

// do makes a request; header are pairs of name and value.
func (h *harness) do(t testing.TB, method, path string, body io.Reader, header ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, h.url+path, body)
	must(t, err)
	r.Header.Set("Accept-Encoding", "identity")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	must(t, err)
	got, err := io.ReadAll(resp.Body)
	must(t, err)
	must(t, resp.Body.Close())
	return answer{resp.StatusCode, resp.Header, got, resp.ContentLength}
}

// status makes a request and wants that status.
func (h *harness) status(t testing.TB, want int, method, path string, body []byte, header ...string) []byte {
	t.Helper()
	a := h.do(t, method, path, bytes.NewReader(body), header...)
	if a.status != want {
		t.Errorf("%s %s: %d, want %d: %.200s", method, path, a.status, want, a.body)
	}
	return a.body
}

func TestHTTPBlobs(t *testing.T) {
	t.Parallel()
	for _, f := range functions {
		h := open(t, Config{}) // in which no other function's name of the blobs is known
		for i, size := range append([]int{0}, sizes...) {
			b := bytes.Repeat(noise(uint64(i), (size+3)/4), 4)[:size]
			path := "/cas/" + f.fn.of(b).String()
			if i%2 == 1 {
				path = "/some/instance" + path
			}
			if size > 0 {
				h.status(t, http.StatusNotFound, http.MethodGet, path, nil)
				h.status(t, http.StatusNotFound, http.MethodHead, path, nil)
			}
			switch i % 3 {
			case 0:
				h.status(t, http.StatusNoContent, http.MethodPut, path, b)
			case 1:
				h.status(t, http.StatusNoContent, http.MethodPut, path, compress(t, b), "Content-Encoding", "zstd")
			case 2: // of unknown length
				if a := h.do(t, http.MethodPut, path, io.MultiReader(bytes.NewReader(b))); a.status != http.StatusNoContent {
					t.Errorf("PUT without a length: %d", a.status)
				}
			}
			if got := h.status(t, http.StatusOK, http.MethodGet, path, nil); !bytes.Equal(got, b) {
				t.Errorf("%d bytes: others", size)
			}
			if a := h.do(t, http.MethodHead, path, nil); a.length != int64(size) {
				t.Errorf("HEAD says %d bytes, want %d", a.length, size)
			}
			a := h.do(t, http.MethodGet, path, nil, "Accept-Encoding", "gzip, zstd;q=0.9")
			if a.header.Get("Content-Encoding") == "zstd" {
				if int64(len(a.body)) != a.length {
					t.Errorf("%d bytes of frames, announced are %d", len(a.body), a.length)
				}
				a.body = decompress(t, a.body)
			} else if size > 0 {
				t.Error("not compressed")
			}
			if !bytes.Equal(a.body, b) {
				t.Errorf("%d bytes, compressed: others", size)
			}
			if a := h.do(t, http.MethodGet, path, nil, "Accept-Encoding", "zstd;q=0, identity"); !bytes.Equal(a.body, b) {
				t.Error("compressed although the client does not take it")
			}
		}
	}
}

func TestHTTPUploadsThatAreRefused(t *testing.T) {
	t.Parallel()
	h := open(t, Config{MaxBlob: 8 << 20})
	for _, size := range []int{0, 100, 5 << 20} {
		path := "/cas/" + digest.Of([]byte("other")).String()
		h.status(t, http.StatusBadRequest, http.MethodPut, path, noise(1, size))
		h.status(t, http.StatusNotFound, http.MethodGet, path, nil)
	}
	b := noise(1, 8<<20+1)
	path := "/cas/" + digest.Of(b).String()
	h.status(t, http.StatusRequestEntityTooLarge, http.MethodPut, path, b)
	h.status(t, http.StatusRequestEntityTooLarge, http.MethodPut, path, compress(t, b), "Content-Encoding", "zstd")
	h.status(t, http.StatusUnsupportedMediaType, http.MethodPut, path, b[:10], "Content-Encoding", "gzip")
	h.status(t, http.StatusBadRequest, http.MethodPut, path, b[:10], "Content-Encoding", "zstd")
	h.status(t, http.StatusMethodNotAllowed, http.MethodDelete, path, nil)
	h.status(t, http.StatusMethodNotAllowed, http.MethodPost, path, nil)
	usage, err := h.idx.Usage(t.Context())
	must(t, err)
	if usage.Blobs > 0 {
		t.Errorf("%d blobs are recorded", usage.Blobs)
	}
	// What is not of this door is the next one's.
	for _, path := range []string{"/cas/x", "/cas/" + strings.ToUpper(digest.Of(nil).String()), "/x/" + digest.Of(nil).String(), "/cas", "/", "/blobs/cas/" + digest.Of(nil).String()} {
		h.status(t, http.StatusNotFound, http.MethodGet, path, nil)
	}
}

func TestHTTPResultsAreCompleteOrAbsent(t *testing.T) {
	t.Parallel()
	for fname, f := range functions {
		t.Run(fname, func(t *testing.T) {
			t.Parallel()
			h := open(t, Config{})
			result, blobs := outputs(t, f.fn, "")
			text := encode(t, result)
			path := "/ac/" + f.fn.of([]byte("action")).String()
			h.status(t, http.StatusNotFound, http.MethodGet, path, nil)
			h.status(t, http.StatusNoContent, http.MethodPut, path, text)
			for _, b := range blobs {
				h.status(t, http.StatusNotFound, http.MethodGet, path, nil)
				h.status(t, http.StatusNotFound, http.MethodHead, path, nil)
				h.status(t, http.StatusNoContent, http.MethodPut, "/cas/"+f.fn.of(b).String(), b)
			}
			if got := h.status(t, http.StatusOK, http.MethodGet, path, nil); !bytes.Equal(got, text) {
				t.Error("it is another result")
			}
			h.status(t, http.StatusOK, http.MethodHead, path, nil)
			h.status(t, http.StatusNotFound, http.MethodGet, "/instance"+path, nil)
			// gRPC tells the same.
			_, err := h.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: proto(name(f.fn, []byte("action"))), DigestFunction: f.v})
			must(t, err)
		})
	}
}

// A client of HTTP asks by the hash alone for what another has stored.
func TestBlobsOfOtherDoorsAreFoundByTheirHash(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	viaGRPC, nar := noise(1, 1<<20), noise(2, 1<<20)
	_, err := h.write(t.Context(), writeName("u", 0, name(0, viaGRPC), false), 0, viaGRPC, 1<<20, true)
	must(t, err)
	stored, err := h.store.Put(t.Context(), bytes.NewReader(nar), 1<<21)
	must(t, err)
	must(t, h.index.Update(t.Context(), func(tx index.Tx) error {
		_, err := tx.AddBlob(stored.Blob, stored.Chunks, h.store.Expiry())
		return err
	}))
	result := &repb.ActionResult{}
	for _, b := range [][]byte{viaGRPC, nar} {
		result.OutputFiles = append(result.OutputFiles, &repb.OutputFile{Path: "out", Digest: sha(b)})
	}
	action := digest.Of([]byte("action")).String()
	h.status(t, http.StatusNoContent, http.MethodPut, "/ac/"+action, encode(t, result))
	h.status(t, http.StatusOK, http.MethodGet, "/ac/"+action, nil)
	for _, b := range [][]byte{viaGRPC, nar} {
		if got := h.status(t, http.StatusOK, http.MethodGet, "/cas/"+digest.Of(b).String(), nil); !bytes.Equal(got, b) {
			t.Error("other bytes")
		}
	}
}

// Compiler caches keep what they like under /ac.
func TestHTTPValuesThatAreNoResults(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	for i, size := range []int{0, 1, 100, 1 << 20, maxResult, maxResult + 1, 6 << 20} {
		b := noise(uint64(i), size)
		path := "/ac/" + digest.Of(fmt.Append(nil, i)).String()
		h.status(t, http.StatusNotFound, http.MethodGet, path, nil)
		h.status(t, http.StatusNoContent, http.MethodPut, path, b)
		if got := h.status(t, http.StatusOK, http.MethodGet, path, nil); !bytes.Equal(got, b) {
			t.Errorf("%d bytes: others", size)
		}
		if a := h.do(t, http.MethodHead, path, nil); a.status != http.StatusOK || a.length != int64(size) {
			t.Errorf("HEAD: %d, %d bytes", a.status, a.length)
		}
		h.status(t, http.StatusNotFound, http.MethodGet, "/other"+path, nil)
		again := noise(uint64(i+100), size)
		h.status(t, http.StatusNoContent, http.MethodPut, path, again)
		if got := h.status(t, http.StatusOK, http.MethodGet, path, nil); !bytes.Equal(got, again) {
			t.Errorf("%d bytes, replaced: others", size)
		}
	}
}

func TestHTTPRights(t *testing.T) {
	t.Parallel()
	h := open(t, Config{Authorize: func(_ context.Context, instance string, write bool) error {
		switch {
		case instance == "secret":
			return fmt.Errorf("%w: pull on cache secret", auth.ErrUnauthorized)
		case write:
			return auth.ErrForbidden
		case instance == "waits":
			return auth.ErrIssuerUnavailable
		}
		return nil
	}})
	hash := digest.Of(nil).String()
	h.status(t, http.StatusOK, http.MethodGet, "/cas/"+hash, nil)
	h.status(t, http.StatusForbidden, http.MethodPut, "/cas/"+hash, nil)
	h.status(t, http.StatusForbidden, http.MethodPut, "/ac/"+hash, nil)
	a := h.do(t, http.MethodGet, "/secret/ac/"+hash, nil, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("user:word")))
	if a.status != http.StatusUnauthorized || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("%d, %q", a.status, a.header)
	}
	a = h.do(t, http.MethodGet, "/waits/ac/"+hash, nil)
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("%d, %q", a.status, a.header)
	}
}

func TestHTTPDamageIsNotServed(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	b := []byte("good")
	path := "/cas/" + digest.Of(b).String()
	h.status(t, http.StatusNoContent, http.MethodPut, path, b)
	h.spoil(t)
	h.status(t, http.StatusInternalServerError, http.MethodGet, path, nil)
}

// A client that announces a body and then sends nothing holds memory that others
// wait for.
func TestABodyThatDoesNotComeIsGivenUp(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	h.pace.patience = 50 * time.Millisecond
	for _, path := range []string{"/cas/", "/ac/"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
		must(t, err)
		fmt.Fprintf(conn, "PUT %s%s HTTP/1.1\r\nHost: x\r\nContent-Length: 64\r\n\r\n", path, digest.Of(nil))
		answer := make([]byte, 12)
		_, err = io.ReadFull(conn, answer)
		must(t, err)
		if string(answer) != "HTTP/1.1 408" {
			t.Errorf("%s: %s, want 408", path, answer)
		}
		_ = conn.Close()
	}
}

func TestGRPCAloneOnAPort(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	l := listen(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.ServeGRPC(ctx, l, time.Minute) }()
	h.dial(t, l.Addr().String())
	b := noise(1, 5<<20)
	_, err := h.write(t.Context(), writeName("u", 0, name(0, b), false), 0, b, 1<<20, true)
	must(t, err)
	// A call that is under way is not cut off.
	s, err := h.stream.Write(t.Context())
	must(t, err)
	other := noise(2, 5<<20)
	must(t, s.Send(&bspb.WriteRequest{ResourceName: writeName("u", 0, name(0, other), false), Data: other[:1<<20]}))
	eventually(t, "it begins", func() bool { return h.uploadsOpen() == 1 })
	stop()
	for at := 1 << 20; at < len(other); at += 1 << 20 {
		must(t, s.Send(&bspb.WriteRequest{WriteOffset: int64(at), Data: other[at : at+1<<20], FinishWrite: at+1<<20 == len(other)}))
	}
	_, err = s.CloseAndRecv()
	must(t, err)
	must(t, <-ended)
}

// A server that is told to end while it starts ends well.
func TestGRPCThatEndsBeforeItBegins(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for range 50 {
		must(t, h.ServeGRPC(ctx, listen(t), time.Minute))
	}
}
