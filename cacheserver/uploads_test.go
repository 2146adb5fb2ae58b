package cacheserver

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestUploadsBeyondTheLimitWaitAndAreThenRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		done := make(chan struct{})
		h := newUploads(1).handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
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

func TestCallsBeyondTheLimitAreToBeTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := newUploads(1)
		leave, err := u.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		call := func(method string) error {
			_, err := u.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { return nil, nil })
			return err
		}
		const update = repb.ActionCache_UpdateActionResult_FullMethodName
		if err := call(update); status.Code(err) != codes.Unavailable {
			t.Errorf("beyond the limit: %v", err)
		}
		if err := call(repb.ActionCache_GetActionResult_FullMethodName); err != nil {
			t.Errorf("what stores nothing: %v", err)
		}
		leave()
		for range 2 {
			if err := call(update); err != nil {
				t.Errorf("once there is room: %v", err)
			}
		}
	})
}
