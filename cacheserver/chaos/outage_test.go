package chaos

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/s3test"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
)

// wantUnavailable wants the answer that tells clients to come back.
func wantUnavailable(t *testing.T, what string, err error) {
	t.Helper()
	var status *statusError
	var refused *push.StatusError
	switch {
	case errors.As(err, &status):
		if status.status != http.StatusServiceUnavailable || status.header.Get("Retry-After") == "" {
			t.Errorf("%s: %v, Retry-After %q; want 503 with Retry-After", what, err, status.header.Get("Retry-After"))
		}
	case errors.As(err, &refused):
		if refused.Status != http.StatusServiceUnavailable || refused.Body.Code != push.CodeUnavailable {
			t.Errorf("%s: %v, %+v; want 503", what, err, refused.Body)
		}
	default:
		t.Errorf("%s: %v, want 503", what, err)
	}
}

// outage is two servers over what goes away: the first has read what it pushed,
// the second has read nothing.
type outage struct {
	*storage
	warm, cold *server
	read, rest []*item // pushed both
	later      []*item // pushed by nobody yet
}

func newOutage(t *testing.T) *outage {
	t.Helper()
	program(t)
	o := &outage{storage: remote(t, s3test.Versitygw)}
	o.warm, o.cold = o.start(t, 0), o.start(t, 1)
	items := loose(t.Name(), 16)
	o.read, o.rest, o.later = items[:4], items[4:6], items[6:]
	o.warm.mustPut(t, o.read...)
	for _, it := range o.rest {
		_, err := o.warm.put(t.Context(), it)
		must(t, err)
	}
	return o
}

// recovered wants that all is as if nothing had been.
func (o *outage) recovered(t *testing.T) {
	t.Helper()
	for _, v := range []*server{o.warm, o.cold} {
		v.mustServe(t, o.read...)
		v.mustServe(t, o.rest...)
		v.mustPut(t, o.later[0])
		o.later = o.later[1:]
		must(t, v.check())
	}
	o.mustRun(t, "fsck")
}

func TestWithoutS3(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	o.s3.Stop(t)
	o.warm.mustServe(t, o.read...)
	g, ctx := errgroup.WithContext(t.Context())
	for _, it := range o.rest {
		g.Go(func() error {
			n, err := o.cold.fetchInfo(ctx, it) // which needs no S3
			if err == nil {
				wantUnavailable(t, "a NAR that is not in the local cache", o.cold.fetchNAR(ctx, n))
			}
			return err
		})
	}
	for i, v := range []*server{o.warm, o.cold} {
		it := o.later[i]
		g.Go(func() error {
			_, err := v.put(ctx, it)
			wantUnavailable(t, "a push", err)
			if err := v.fetch(ctx, it); !errors.Is(err, errGone) {
				t.Errorf("after a push that was refused: %v", err)
			}
			return nil
		})
	}
	must(t, g.Wait())
	o.s3.Start(t)
	o.recovered(t)
}

func TestWithoutPostgreSQL(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	for name, end := range map[string]func(testing.TB){"stopped": o.postgres.Stop, "crashed": o.postgres.Crash} {
		t.Log(name)
		end(t)
		o.warm.mustServe(t, o.read...)
		for _, it := range o.rest {
			wantUnavailable(t, "a narinfo that is not hot", o.cold.fetch(t.Context(), it))
		}
		for _, v := range []*server{o.warm, o.cold} {
			_, err := v.put(t.Context(), o.later[0])
			wantUnavailable(t, "a push", err)
			if body, err := get(t.Context(), v.url+"/healthz"); err != nil || strings.TrimSpace(string(body)) != "ok" {
				t.Errorf("healthz: %q, %v", body, err)
			}
		}
		o.postgres.Start(t)
		o.recovered(t)
		o.rest = []*item{o.later[0]}
		o.later = o.later[1:]
		_, err := o.warm.put(t.Context(), o.rest[0])
		must(t, err)
	}
}
