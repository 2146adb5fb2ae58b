package push_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
)

// A page that a proxy answers to everything is no success, whatever its status: a
// client that took it for one would lose paths and pins without a word.
func TestAForeignPageIsNoSuccess(t *testing.T) {
	t.Parallel()
	const page = "<html><h1>Sign in"
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	pin := func(ctx context.Context, c *push.Client) error {
		return c.Pin(ctx, "release", push.PinRequest{Path: hashA})
	}
	commit := func(ctx context.Context, c *push.Client) error {
		_, err := c.Commit(ctx, path(5), []digest.Chunk{chunk("hello")})
		return err
	}
	ask := func(ctx context.Context, c *push.Client) error {
		_, err := c.MissingPaths(ctx, []string{hashA})
		return err
	}
	times := func(ctx context.Context, c *push.Client) error {
		_, err := c.BuildTimes(ctx, []string{hashA})
		return err
	}
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		call   func(context.Context, *push.Client) error
		good   bool
	}{
		"a pin, as PROTOCOL.md has it":    {status(204, ""), pin, true},
		"a pin, a page":                   {status(200, page), pin, false},
		"a pin, an empty page":            {status(200, ""), pin, false},
		"a pin, accepted for later":       {status(202, ""), pin, false},
		"a commit, as PROTOCOL.md has it": {status(200, `{"missingReferences":["x"]}`), commit, true},
		"a commit, null for none":         {status(200, `{"missingReferences":null}`), commit, true},
		"a commit, a page":                {status(200, page), commit, false},
		"a commit, other JSON":            {status(200, `{"status":"ok"}`), commit, false},
		"a commit, no JSON object":        {status(200, `null`), commit, false},
		"a commit, cut off":               {status(200, `{"missingReferences":[`), commit, false},
		"a commit, nothing":               {status(204, ""), commit, false},
		"what is missing, null for none":  {status(200, `{"missing":null}`), ask, true},
		"what is missing, other JSON":     {status(200, `{}`), ask, false},
		"what is missing, another type":   {status(200, `{"missing":"all"}`), ask, false},
		"build times, none known":         {status(200, `{"buildTimes":{}}`), times, true},
		"build times, other JSON":         {status(200, `{"error":"?"}`), times, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requests := 0
			c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests++
				tt.answer(w, r)
			}))
			err := tt.call(t.Context(), c)
			var foreign *push.ForeignError
			if errors.As(err, &foreign) == tt.good || (err == nil) != tt.good {
				t.Errorf("got %v, want a ForeignError: %v", err, !tt.good)
			}
			if err != nil && !strings.Contains(err.Error(), "look for a proxy or a login page") {
				t.Errorf("%v: does not say what to do", err)
			}
			if requests != 1 {
				t.Errorf("%d requests: a page is the same the next time", requests)
			}
		})
	}
}

func TestAForeignPageForChunksEndsTheUpload(t *testing.T) {
	t.Parallel()
	s := &chunkServer{t: t, chunks: map[digest.Hash][]byte{}}
	mux := http.NewServeMux()
	mux.Handle("POST /main/_push/v1/missing-chunks", s)
	mux.HandleFunc("POST /main/_push/v1/chunks", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
	_, err := serve(t, mux).Upload(t.Context(), 5, chunker.DefaultAverage, dumpOf([]byte("hello")))
	var foreign *push.ForeignError
	if !errors.As(err, &foreign) || foreign.Status != http.StatusOK {
		t.Errorf("got %v, want a ForeignError", err)
	}
}

func TestTheSameFaultHasTheSameWords(t *testing.T) {
	t.Parallel()
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { reset(t, w) }))
	_, first := c.Info(t.Context())
	_, second := c.Info(t.Context())
	if first == nil || second == nil || strings.Contains(first.Error(), "127.0.0.1") {
		t.Errorf("got %v and %v, want the fault without the connection's ports", first, second)
	}
}
