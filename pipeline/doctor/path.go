package doctor

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nixconf"
)

const (
	// newest is how many of the store's paths are looked for in the cache.
	newest = 40
	// fetchTime and fetchMost bound the path that is fetched.
	fetchTime = 20 * time.Second
	fetchMost = 256 << 20 // bytes
)

// lookAtPath fetches a path that the cache has, as nix would: its signature has to
// be by a key that is trusted, and its file what the narinfo says.
func (e *examination) lookAtPath(ctx context.Context, cache string, c nixconf.Cache) {
	name := "path " + cache
	paths, err := e.candidates(ctx)
	if err != nil {
		e.skip(name, "%v", err)
		return
	}
	info, err := e.find(ctx, cache, paths)
	switch {
	case err != nil:
		e.problem(name, err.Error(), "look at the server's log; flywheel verify "+cache)
		return
	case info == nil && e.Path != "":
		e.problem(name, "the cache does not have "+e.Path, "flywheel push --cache "+cache+" "+e.Path)
		return
	case info == nil:
		e.skip(name, "of the store's %d newest paths the cache has none: name one with --path", len(paths))
		return
	}
	e.lookAtSignature(cache, c, info)
	e.lookAtThroughput(ctx, cache, info)
}

// candidates are paths that the cache may have.
func (e *examination) candidates(ctx context.Context) ([]string, error) {
	if e.Path != "" {
		return []string{e.Path}, nil
	}
	if e.nix == nil {
		return nil, errors.New("without Nix, no path is known to ask for: name one with --path")
	}
	db, err := nix.OpenDatabase(ctx, e.store)
	if err != nil {
		return nil, fmt.Errorf("%w: name a path with --path", err)
	}
	defer func() { _ = db.Close() }() // it is only read
	cursor, err := db.Cursor(ctx)
	if err != nil {
		return nil, err
	}
	// Some of them are derivations and sources, which caches have not.
	infos, err := db.Since(ctx, max(0, cursor-20*newest))
	if err != nil {
		return nil, err
	}
	infos = slices.DeleteFunc(infos, func(p nix.PathInfo) bool { return p.Derivation() || p.Source() })
	slices.SortFunc(infos, func(a, b nix.PathInfo) int { return int(b.ID - a.ID) })
	var paths []string
	for _, p := range infos[:min(newest, len(infos))] {
		paths = append(paths, p.Path)
	}
	return paths, nil
}

// find returns what the cache says of the first of the paths that it has, or nil.
func (e *examination) find(ctx context.Context, cache string, paths []string) (*narinfo.NarInfo, error) {
	for _, hash := range hashesOf(paths) {
		got, err := e.get(ctx, cache+"/"+hash+".narinfo")
		switch {
		case err != nil:
			return nil, fmt.Errorf("asking for %s.narinfo: %s", hash, plainly(ctx, err))
		case got.code == http.StatusNotFound:
			continue
		case got.code != http.StatusOK:
			return nil, fmt.Errorf("asking for %s.narinfo: HTTP %s", hash, got.status)
		}
		info, err := narinfo.Parse(got.body)
		if err != nil {
			return nil, fmt.Errorf("%s.narinfo: %w", hash, err)
		}
		return info, nil
	}
	return nil, nil
}

// lookAtSignature compares the signatures with the keys that Nix trusts, or,
// without Nix, with those of the cache.
func (e *examination) lookAtSignature(cache string, c nixconf.Cache, info *narinfo.NarInfo) {
	name, base := "signature "+cache, path.Base(info.StorePath)
	keys := c.PublicKeys
	if e.mine != nil {
		keys = e.mine.List("trusted-public-keys")
	}
	for _, key := range keys {
		if signed, err := info.Signed(key); err == nil && signed {
			signer, _, _ := strings.Cut(key, ":")
			e.ok(name, "%s is signed by %s, which is trusted", base, signer)
			return
		}
	}
	var signers []string
	for _, sig := range info.Signatures {
		signer, _, _ := strings.Cut(sig, ":")
		signers = append(signers, signer)
	}
	if len(signers) == 0 {
		e.problem(name, base+" is not signed", "push it again to a cache that signs")
		return
	}
	e.problem(name, fmt.Sprintf("%s is signed by %s, and by no key that is trusted: Nix builds it anew", base, strings.Join(signers, ", ")), "flywheel use "+cache)
}

// lookAtThroughput fetches the path's file, as long as that does not take too long.
func (e *examination) lookAtThroughput(ctx context.Context, cache string, info *narinfo.NarInfo) {
	name := "fetch " + cache
	from, err := url.Parse(cache + "/")
	if err != nil {
		return // the cache has answered under it
	}
	file, err := from.Parse(info.URL)
	if err != nil {
		e.problem(name, "the narinfo's URL: "+err.Error(), "look at the server's log")
		return
	}
	limited, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	began := time.Now()
	resp, err := e.open(limited, file.String())
	if err != nil {
		e.problem(name, plainly(ctx, err), "look at the server's log")
		return
	}
	defer resp.Body.Close()
	first := time.Since(began)
	if resp.StatusCode != http.StatusOK {
		e.problem(name, fmt.Sprintf("%s: HTTP %s", info.URL, resp.Status), "cacheserver fsck, on the server: the narinfo is there and its NAR is not")
		return
	}
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(resp.Body, fetchMost))
	took := time.Since(began)
	switch {
	case err != nil && limited.Err() == nil:
		e.problem(name, fmt.Sprintf("%s broke off after %s: %s", info.URL, bytesize.Text(n), plainly(ctx, err)), "cacheserver fsck, on the server; else look at the network in between")
		return
	case err == nil && n < fetchMost && info.FileSize != 0 && (n != info.FileSize || digest.Hash(sum.Sum(nil)) != info.FileHash):
		e.problem(name, fmt.Sprintf("%s is not what its narinfo says: %d bytes of %d, or others", info.URL, n, info.FileSize), "look for a proxy in between that changes it; cacheserver fsck, on the server")
		return
	}
	rate := float64(n) / took.Seconds()
	text := fmt.Sprintf("%s in %v, the first byte after %v", bytesize.Text(n), took.Round(time.Millisecond), first.Round(time.Millisecond))
	if n >= 1<<20 {
		text += fmt.Sprintf(", %s/s", bytesize.Text(int64(rate)))
	}
	if err != nil {
		e.add(Finding{name, Hint, "slow: " + text + ", and it had not ended", []string{"look at the network in between: Nix gives up on less than a byte a second only"}})
		return
	}
	e.ok(name, "%s", text)
}
