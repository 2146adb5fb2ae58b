package page

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
)

const (
	// latestShown is how many pushes the first page lists, and askedForLatest of
	// how many caches at most.
	latestShown    = 12
	askedForLatest = 50
)

type homeView struct {
	URL     string
	Setup   setup
	Caches  []cacheRow
	Latest  []pathRow
	Whole   bool // the reader may see all that there is, so that totals tell nothing more
	Figures figures
	Ranges  []rangeLink
	Plots   []plot
}

// figures are what the store holds.
type figures struct {
	Known                            bool
	Stored, Contents, Paths, Factor  string
	HitRatio, HitNote, DeadNote, Dup string
}

type rangeLink struct {
	Name, Link string
	Current    bool
}

type cacheRow struct {
	Name, Link, Kept string
	Public           bool
	Priority         int
}

type pathRow struct {
	Name, Hash, Link string
	Cache, CacheLink string
	Size             string
	By               string
	At               time.Time
}

// setup is what a client's configuration needs to use a cache.
type setup struct {
	Name      string
	Root      string // the server's URL, without the slash
	URL       string // the cache's
	Host      string
	Keys      []string
	Private   bool
	IsDefault bool
	Bazel     string
}

func (p *Pages) setup(r *http.Request, c index.Cache) (setup, error) {
	keys, err := nixcache.PublicKeys(c)
	if err != nil {
		return setup{}, err
	}
	root := strings.TrimSuffix(p.config.URL(r), "/")
	bazel := strings.Replace(root, "http", "grpc", 1)
	return setup{
		Name: c.Name, Root: root, URL: root + "/" + c.Name, Host: p.host(r), Keys: keys,
		Private: !c.Public, IsDefault: c.Name == p.config.DefaultCache, Bazel: bazel,
	}, nil
}

func (p *Pages) home(r *http.Request) (*answer, error) {
	ctx, root := r.Context(), p.root(r)
	caches, whole, err := p.visible(r)
	if err != nil {
		return nil, err
	}
	view := homeView{URL: strings.TrimSuffix(p.config.URL(r), "/"), Whole: whole}
	if len(caches) > 0 {
		if view.Setup, err = p.setup(r, caches[0]); err != nil {
			return nil, err
		}
	}
	for _, c := range caches {
		view.Caches = append(view.Caches, cacheRow{
			Name: c.Name, Link: cacheLink(root, c.Name), Public: c.Public, Priority: c.Priority, Kept: p.kept(c),
		})
	}
	if view.Latest, err = p.latest(r, caches[:min(len(caches), askedForLatest)], latestShown); err != nil {
		return nil, err
	}
	if !whole {
		return &answer{template: "home", status: http.StatusOK, title: "Cache of builds", body: view}, nil
	}
	span := spanOf(r.URL.Query().Get("range"))
	h, err := p.histories.read(ctx, p.index, span)
	if err != nil {
		return nil, err
	}
	for _, s := range spans {
		view.Ranges = append(view.Ranges, rangeLink{Name: s.label, Link: "?range=" + s.name + "#history", Current: s == span})
	}
	view.Plots = h.plots()
	view.Figures = h.figures()
	if usage, ok := p.config.Usage(ctx); ok {
		view.Figures.add(usage)
	}
	return &answer{template: "home", status: http.StatusOK, title: "Cache of builds", body: view}, nil
}

// latest lists the newest paths of some caches.
func (p *Pages) latest(r *http.Request, caches []index.Cache, limit int) ([]pathRow, error) {
	var rows []pathRow
	root := p.root(r)
	for _, c := range caches {
		found, err := p.index.Latest(r.Context(), c.ID, limit)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			base := f.Hash + "-" + f.Name
			rows = append(rows, pathRow{
				Name: f.Name, Hash: f.Hash, Link: pathLink(root, c.Name, base), Cache: c.Name, CacheLink: cacheLink(root, c.Name),
				Size: bytesize.Text(f.NAR.Size), By: f.PushedBy, At: f.Created,
			})
		}
	}
	slices.SortStableFunc(rows, func(a, b pathRow) int { return cmp.Compare(b.At.Unix(), a.At.Unix()) })
	return rows[:min(limit, len(rows))], nil
}

// kept says how long a cache keeps a path.
func (p *Pages) kept(c index.Cache) string {
	keep := p.retention(c)
	if keep <= 0 {
		return "for ever"
	}
	return durationText(keep) + " after its last use"
}

func (p *Pages) retention(c index.Cache) time.Duration {
	if c.Retention == index.GlobalRetention {
		return p.config.Retention
	}
	return c.Retention
}
