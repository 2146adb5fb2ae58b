package page

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

const (
	pageLength = 50
	// newestShown is how many pushes a cache's page lists.
	newestShown = 20
	// maxQuery is more than a store path can have, in bytes.
	maxQuery = 300
)

type cacheView struct {
	Setup    setup
	Kept     string
	Public   bool
	Priority int
	StoreDir string
	Upstream []string

	Link   string
	Query  string
	Listed bool // rows are what a search found, not the newest
	Rows   []pathRow
	First  string // link to the first page, where this is another
	Next   string
}

func (p *Pages) cache(r *http.Request) (*answer, error) {
	c, err := p.open(r, r.PathValue("cache"))
	if err != nil {
		return nil, err
	}
	root := p.root(r)
	view := cacheView{
		Kept: p.kept(c), Public: c.Public, Priority: c.Priority, StoreDir: c.StoreDir, Upstream: c.UpstreamKeys,
		Link: cacheLink(root, c.Name),
	}
	if view.Setup, err = p.setup(r, c); err != nil {
		return nil, err
	}
	query := r.URL.Query()
	if view.Listed = query.Has("q"); !view.Listed {
		view.Rows, err = p.latest(r, []index.Cache{c}, newestShown)
		return &answer{template: "cache", status: http.StatusOK, title: c.Name, body: view}, err
	}
	view.Query = strings.TrimSpace(query.Get("q"))
	term := view.Query
	if hash, ok := hashIn(c.StoreDir, term); ok {
		found, err := p.index.Path(r.Context(), c.ID, hash)
		if err == nil {
			return &answer{redirect: pathLink(root, c.Name, found.Hash+"-"+found.Name)}, nil
		}
		if !errors.Is(err, index.ErrNotFound) {
			return nil, err
		}
		term = hash
	}
	if err := p.search(r, c, term, &view); err != nil {
		return nil, err
	}
	return &answer{template: "cache", status: http.StatusOK, title: "Search in " + c.Name, body: view}, nil
}

// search lists a page of what a cache has of a name.
func (p *Pages) search(r *http.Request, c index.Cache, term string, view *cacheView) error {
	if len(term) > maxQuery || !isStoreText(term) {
		return nil // no path has such a name
	}
	var after index.PathName
	if from := r.URL.Query().Get("after"); from != "" {
		hash, name, err := storepath.Split(from)
		if err != nil {
			return err
		}
		after = index.PathName{Hash: hash, Name: name}
		view.First = searchLink(view.Link, view.Query, "")
	}
	found, err := p.index.Search(r.Context(), c.ID, term, after, pageLength+1)
	if err != nil {
		return err
	}
	if len(found) > pageLength {
		found = found[:pageLength]
		view.Next = searchLink(view.Link, view.Query, found[pageLength-1].String())
	}
	root := p.root(r)
	for _, f := range found {
		view.Rows = append(view.Rows, pathRow{Name: f.Name, Hash: f.Hash, Link: pathLink(root, c.Name, f.String())})
	}
	return nil
}

func searchLink(cache, query, after string) string {
	values := url.Values{"q": {query}}
	if after != "" {
		values.Set("after", after)
	}
	return cache + "?" + values.Encode()
}

// isStoreText is false for what cannot be a part of a store path's name. A
// database does not take all of it.
func isStoreText(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) < 0
}

// hashIn finds the hash in what people have at hand of a path: the path, something
// in it, its base name, or the name of its narinfo.
func hashIn(storeDir, text string) (string, bool) {
	text = strings.TrimPrefix(text, storeDir+"/")
	if text == "" || len(text) < storepath.HashLen {
		return "", false
	}
	hash, rest := text[:storepath.HashLen], text[storepath.HashLen:]
	if rest != "" && rest[0] != '-' && rest[0] != '.' && rest[0] != '/' {
		return "", false
	}
	return hash, storepath.CheckHash(hash) == nil
}
