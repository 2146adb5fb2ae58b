package nixcache_test

import (
	"net/http"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

func TestAPathIsRemovedByItsNarinfo(t *testing.T) {
	t.Parallel()
	r := openRig(t)
	used := newArchive(t, "used", noise(3000, "used"), 1000).copied(t, codecs[1])
	user := newArchive(t, "user", noise(3000, "user"), 1000).copied(t, codecs[1])
	user.info.References = []string{strings.TrimPrefix(used.info.StorePath, "/nix/store/")}
	for _, p := range []*copied{used, user} {
		want(t, "NAR", r.put("/"+p.named, p.file), http.StatusNoContent)
		want(t, "narinfo", r.put(p.narinfo(), p.info.Text()), http.StatusNoContent)
		want(t, "narinfo", r.get(p.narinfo()), http.StatusOK)
		want(t, "its NAR", r.get(p.nar()), http.StatusOK)
	}
	remove := func(route string, status int) {
		t.Helper()
		want(t, "DELETE "+route, r.ask(http.MethodDelete, route, nil), status)
	}
	remove(used.narinfo(), http.StatusConflict)
	want(t, "what another refers to", r.get(used.narinfo()), http.StatusOK)
	c, err := r.sqlite.Cache(t.Context(), "main")
	must(t, err)
	must(t, r.sqlite.Update(t.Context(), func(tx index.Tx) error {
		return tx.AddPin(index.Pin{CacheID: c.ID, Name: "pin", Hash: storepath.Hash(user.info.StorePath)}, 1)
	}))
	remove(user.narinfo(), http.StatusConflict)
	must(t, r.sqlite.Update(t.Context(), func(tx index.Tx) error { _, err := tx.RemovePins(c.ID, "pin", ""); return err }))
	remove(user.narinfo(), http.StatusNoContent)
	want(t, "what was removed", r.get(user.narinfo()), http.StatusNotFound)
	want(t, "its NAR", r.get(user.nar()), http.StatusNotFound)
	remove(user.narinfo(), http.StatusNotFound)
	remove(used.narinfo(), http.StatusNoContent)
	want(t, "what was removed", r.get(used.narinfo()), http.StatusNotFound)

	remove("/"+used.named, http.StatusMethodNotAllowed)
	remove("/nix-cache-info", http.StatusUnsupportedMediaType)
	remove("/short.narinfo", http.StatusBadRequest)

	want(t, "NAR, again", r.put("/"+used.named, used.file), http.StatusNoContent)
	want(t, "narinfo, again", r.put(used.narinfo(), used.info.Text()), http.StatusNoContent)
	want(t, "narinfo", r.get(used.narinfo()), http.StatusOK)
}
