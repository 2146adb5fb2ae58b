package nixcache_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

func TestPinsKeepTheNewestRevisions(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	var hashes []string
	for i := range 3 {
		a := newArchive(t, fmt.Sprintf("pinned-%d", i), []byte{byte(i)}, 1)
		r.pushArchive(t, a, 1)
		hashes = append(hashes, storepath.Hash(a.info.StorePath))
	}
	for _, h := range hashes {
		if got := r.ask(http.MethodPut, "/_push/v1/pins/release/app%201", fmt.Appendf(nil, `{"path":%q,"keep":2,"expiresIn":3600}`, h)); got.Code != http.StatusNoContent {
			t.Fatalf("pinning: %d %s", got.Code, got.Body)
		}
	}
	c, err := r.sqlite.Cache(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	pins, err := r.sqlite.Pins(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(pins) != 2 || pins[0].Hash != hashes[2] || pins[1].Hash != hashes[1] || pins[0].Name != "release/app 1" {
		t.Errorf("the pins are %+v", pins)
	}
	if left := time.Until(pins[0].Expires); left < 59*time.Minute || left > time.Hour {
		t.Errorf("the pin ends in %v", left)
	}
}

func TestPinsThatCannotBe(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	a := newArchive(t, "pinned", []byte("x"), 1)
	r.pushArchive(t, a, 1)
	held := storepath.Hash(a.info.StorePath)
	for name, tt := range map[string]struct {
		name, body string
		status     int
	}{
		"of a path that is not held":    {"a", `{"path":"00000000000000000000000000000000"}`, http.StatusNotFound},
		"of no path":                    {"a", `{}`, http.StatusBadRequest},
		"without a body":                {"a", ``, http.StatusBadRequest},
		"with less than one revision":   {"a", `{"path":"` + held + `","keep":-1}`, http.StatusBadRequest},
		"with too many revisions":       {"a", `{"path":"` + held + `","keep":100000000}`, http.StatusBadRequest},
		"that ended before":             {"a", `{"path":"` + held + `","expiresIn":-1}`, http.StatusBadRequest},
		"without a name":                {"", `{"path":"` + held + `"}`, http.StatusBadRequest},
		"with a line break in its name": {"a%0Ab", `{"path":"` + held + `"}`, http.StatusBadRequest},
		"with a long name":              {strings.Repeat("a", push.MaxPinName+1), `{"path":"` + held + `"}`, http.StatusBadRequest},
		"with a body that is too long":  {"a", `{"path":"` + held + `"` + strings.Repeat(" ", push.MaxPinBody) + `}`, http.StatusRequestEntityTooLarge},
	} {
		if got := r.ask(http.MethodPut, "/_push/v1/pins/"+tt.name, []byte(tt.body)); got.Code != tt.status {
			t.Errorf("a pin %s: %d %s, want %d", name, got.Code, got.Body, tt.status)
		}
	}
}

func TestPinsNeedTheRightToPush(t *testing.T) {
	t.Parallel()
	g := openGuarded(t)
	body := []byte(`{"path":"00000000000000000000000000000000"}`)
	pull := g.token(t, "main", auth.Pull, time.Now().Add(time.Hour))
	if got := g.as(pull, http.MethodPut, "/main/_push/v1/pins/a", body); got.Code != http.StatusForbidden {
		t.Errorf("who may only pull pins: %d %s", got.Code, got.Body)
	}
	if got := g.as("", http.MethodPut, "/main/_push/v1/pins/a", body); got.Code != http.StatusForbidden {
		t.Errorf("who shows no token pins: %d %s", got.Code, got.Body)
	}
	if got := g.as(pull, http.MethodPost, "/main/_push/v1/build-times", []byte(`{"hashes":[]}`)); got.Code != http.StatusOK {
		t.Errorf("who may pull does not learn build times: %d %s", got.Code, got.Body)
	}
}

func TestBuildTimesAreKept(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	told, untold := newArchive(t, "told", []byte("x"), 1), newArchive(t, "untold", []byte("y"), 1)
	r.pushArchive(t, told, 1)
	r.pushArchive(t, untold, 1)
	if got := r.ask(http.MethodPost, "/_push/v1/paths?built-in=12.5", told.commit()); got.Code != http.StatusOK {
		t.Fatalf("%d %s", got.Code, got.Body)
	}
	for _, wrong := range []string{"x", "-1", "NaN", "Inf", "1e300"} {
		if got := r.ask(http.MethodPost, "/_push/v1/paths?built-in="+wrong, told.commit()); got.Code != http.StatusBadRequest {
			t.Errorf("a build time of %s: %d %s", wrong, got.Code, got.Body)
		}
	}
	query, err := json.Marshal(push.PathsQuery{Hashes: []string{
		storepath.Hash(told.info.StorePath), storepath.Hash(untold.info.StorePath), strings.Repeat("0", 32),
	}})
	if err != nil {
		t.Fatal(err)
	}
	got := r.ask(http.MethodPost, "/_push/v1/build-times", query)
	want := fmt.Sprintf(`{"buildTimes":{%q:12.5}}`, storepath.Hash(told.info.StorePath))
	if got.Code != http.StatusOK || strings.TrimSpace(got.Body.String()) != want {
		t.Errorf("%d %s, want %s", got.Code, got.Body, want)
	}
}
