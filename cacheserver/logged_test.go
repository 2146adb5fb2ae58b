package cacheserver

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/observe"
)

// receiver is a ResponseWriter that remembers what it was given to read from,
// as net/http's own looks for files that it can send without copying.
type receiver struct {
	*httptest.ResponseRecorder
	from io.Reader
}

func (r *receiver) ReadFrom(src io.Reader) (int64, error) {
	r.from = src
	return io.Copy(r.ResponseRecorder, src)
}

func TestTheLogDoesNotStandBetweenAFileAndTheConnection(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	under := &receiver{ResponseRecorder: httptest.NewRecorder()}
	rec := observe.NewRecorder(under)
	var w http.ResponseWriter = rec
	if _, ok := w.(io.ReaderFrom); !ok {
		t.Fatal("recorder is no io.ReaderFrom: files would be copied through memory")
	}
	if n, err := io.CopyN(w, f, 4); n != 4 || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	limited, ok := under.from.(*io.LimitedReader)
	if !ok {
		t.Fatalf("the connection was given a %T", under.from)
	}
	if limited.R != f {
		t.Errorf("the connection was given %T, want the file itself", limited.R)
	}
	if rec.Bytes() != 4 || under.Body.String() != "0123" {
		t.Errorf("%d bytes counted, %q sent", rec.Bytes(), under.Body)
	}
}

func TestRequestsAreLoggedAtDebugOnly(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/abort" {
			_, _ = io.WriteString(w, "half")
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "short and stout")
	})
	for level, want := range map[slog.Level][]string{
		slog.LevelInfo:  nil,
		slog.LevelDebug: {"path=/pot", "status=418", "bytes=15", "path=/abort", "bytes=4"},
	} {
		var text bytes.Buffer
		h := logged(slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: level})), handler)
		for _, path := range []string{"/pot", "/abort"} {
			func() {
				defer func() { _ = recover() }()
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
			}()
		}
		for _, w := range want {
			if !strings.Contains(text.String(), w) {
				t.Errorf("at %v: no %q in\n%s", level, w, text.Bytes())
			}
		}
		if want == nil && text.Len() > 0 {
			t.Errorf("at %v:\n%s", level, text.Bytes())
		}
	}
}
