package page

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// maxReferrers bounds the referrers that are listed; glibc has all others.
const maxReferrers = 200

type pathView struct {
	Setup      setup
	CacheLink  string
	StorePath  string
	Name, Hash string
	NARSize    string
	FileSize   string
	Ratio      string
	NARHash    string
	Deriver    string
	CA         string
	PushedBy   string
	BuildTime  string
	Created    time.Time
	Used       time.Time
	Kept       string
	Signatures []signature
	References []reference
	Referrers  []reference
	MoreRefer  int
	Pins       []pinRow
	Narinfo    string
	NAR        string
	Listing    string
	Log        string
}

type signature struct {
	Key, Value string
	Ours       bool
}

type reference struct {
	Base, Link string
	Self       bool
}

type pinRow struct {
	Name             string
	Created, Expires time.Time
}

func (p *Pages) path(r *http.Request) (*answer, error) {
	ctx := r.Context()
	c, err := p.open(r, r.PathValue("cache"))
	if err != nil {
		return nil, err
	}
	base := r.PathValue("path")
	hash, _, _ := strings.Cut(base, "-")
	if err := storepath.CheckHash(hash); err != nil {
		return nil, err
	}
	found, err := p.index.Path(ctx, c.ID, hash)
	if err != nil {
		return nil, err
	}
	root := p.root(r)
	if canonical := found.Hash + "-" + found.Name; base != canonical {
		return &answer{redirect: pathLink(root, c.Name, canonical)}, nil
	}
	view, err := p.describe(r, c, found)
	if err != nil {
		return nil, err
	}
	if err := p.relatives(r, c, found, view); err != nil {
		return nil, err
	}
	pins, err := p.index.Pins(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for _, pin := range pins {
		if pin.Hash == found.Hash && (pin.Expires.IsZero() || pin.Expires.After(now)) {
			view.Pins = append(view.Pins, pinRow{Name: pin.Name, Created: pin.Created, Expires: pin.Expires})
		}
	}
	return &answer{template: "path", status: http.StatusOK, title: found.Name, body: view}, nil
}

// describe tells of a path what its narinfo and its row in the index say.
func (p *Pages) describe(r *http.Request, c index.Cache, found index.Path) (*pathView, error) {
	s, err := p.setup(r, c)
	if err != nil {
		return nil, err
	}
	n, err := nixcache.Narinfo(c, found)
	if err != nil {
		return nil, err
	}
	files := p.root(r) + c.Name + "/"
	view := &pathView{
		Setup: s, CacheLink: cacheLink(p.root(r), c.Name), StorePath: n.StorePath, Name: found.Name, Hash: found.Hash,
		NARSize: bytesize.Text(found.NAR.Size), NARHash: "sha256:" + n.NarHash.Nix32(),
		Deriver: found.Deriver, CA: found.CA, PushedBy: found.PushedBy, Created: found.Created, Used: found.Used,
		Narinfo: files + found.Hash + ".narinfo", NAR: files + n.URL, Listing: files + found.Hash + ".ls",
	}
	if found.NAR.FileSize > 0 {
		view.FileSize = bytesize.Text(found.NAR.FileSize)
		view.Ratio = factorText(float64(found.NAR.Size) / float64(found.NAR.FileSize))
	}
	if found.BuildTime > 0 {
		view.BuildTime = durationText(found.BuildTime)
	}
	if keep := p.retention(c); keep > 0 {
		view.Kept = found.Used.Add(keep).UTC().Format(time.DateOnly)
	}
	for _, sig := range n.Signatures {
		key, value, _ := strings.Cut(sig, ":")
		view.Signatures = append(view.Signatures, signature{
			Key: key, Value: value, Ours: slices.ContainsFunc(s.Keys, func(k string) bool { return strings.HasPrefix(k, key+":") }),
		})
	}
	if found.Deriver != "" {
		_, err := p.index.Object(r.Context(), c.ID, "log/"+found.Deriver)
		if err == nil {
			view.Log = files + "log/" + url.PathEscape(found.Deriver)
		} else if !errors.Is(err, index.ErrNotFound) {
			return nil, err
		}
	}
	return view, nil
}

// relatives tells what a path refers to, with links to what the cache holds, and
// what refers to it.
func (p *Pages) relatives(r *http.Request, c index.Cache, found index.Path, view *pathView) error {
	root := p.root(r)
	hashes := make([]string, len(found.References))
	for i, base := range found.References {
		hashes[i] = storepath.Hash(base)
	}
	missing, _, err := p.index.MissingPaths(r.Context(), c.ID, hashes, time.Time{})
	if err != nil {
		return fmt.Errorf("looking up references: %w", err)
	}
	for i, base := range found.References {
		ref := reference{Base: base, Self: hashes[i] == found.Hash}
		if !slices.Contains(missing, hashes[i]) {
			ref.Link = pathLink(root, c.Name, base)
		}
		view.References = append(view.References, ref)
	}
	referrers, err := p.index.Referrers(r.Context(), c.ID, found.Hash)
	if err != nil {
		return fmt.Errorf("looking up referrers: %w", err)
	}
	if len(referrers) > maxReferrers {
		view.MoreRefer = len(referrers) - maxReferrers
		referrers = referrers[:maxReferrers]
	}
	for _, f := range referrers {
		view.Referrers = append(view.Referrers, reference{Base: f.String(), Link: pathLink(root, c.Name, f.String())})
	}
	return nil
}
