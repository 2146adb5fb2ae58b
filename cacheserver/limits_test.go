package cacheserver

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
)

func TestUploadsBeyondTheLimitWaitAndAreThenRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		done := make(chan struct{})
		h := limitUploads(1, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				<-done
			}
		}))
		ask := func(method, path, body string) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
			return w
		}
		go ask(http.MethodPut, "/slow", "x")
		synctest.Wait()
		if w := ask(http.MethodGet, "/", ""); w.Code != http.StatusOK {
			t.Errorf("without a body: %d", w.Code)
		}
		if w := ask(http.MethodPut, "/", "x"); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("beyond the limit: %d %v", w.Code, w.Header())
		}
		waiting := make(chan int)
		go func() { waiting <- ask(http.MethodPut, "/", "x").Code }()
		synctest.Wait()
		close(done)
		if code := <-waiting; code != http.StatusOK {
			t.Errorf("once there is room: %d", code)
		}
	})
}
