package observe_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/observe"
)

// able is a writer that can do what net/http's can.
type able struct {
	*httptest.ResponseRecorder
	readFrom, flushed bool
}

func (a *able) ReadFrom(src io.Reader) (int64, error) {
	a.readFrom = true
	return io.Copy(a.ResponseRecorder, src)
}

func (a *able) Flush() { a.flushed = true }

// Without ReadFrom, each NAR would be copied through memory rather than by the
// kernel.
func TestRecorderHidesNothingOfTheWriterBehind(t *testing.T) {
	t.Parallel()
	behind := &able{ResponseRecorder: httptest.NewRecorder()}
	o := observe.New(nil)
	o.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		if _, err := io.CopyN(w, strings.NewReader("hello"), 5); err != nil {
			t.Error(err)
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
	})).ServeHTTP(behind, httptest.NewRequest(http.MethodGet, "/", nil))
	if !behind.readFrom || !behind.flushed || behind.Body.String() != "hello" || behind.Code != http.StatusAccepted {
		t.Errorf("%+v", behind)
	}
}
