// Package page is what people see of the server in a browser: what it is, how to
// use it, how it fares, and what its caches hold. Every page is made on the
// server, and works without scripts. A page shows of the caches that its reader
// may pull from, and of no others.
package page

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

//go:embed assets
var assets embed.FS

// prefix begins the paths of all pages but the first. No cache can have that name.
const prefix = "/-/"

// policy forbids scripts, and all that does not come from this server.
const policy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// anyCache is no cache's name: only who may do everything has rights on it.
const anyCache = "*"

var errNoPage = errors.New("there is no such page")

// Config says what pages tell.
type Config struct {
	// DefaultCache is the one that is listed first.
	DefaultCache string
	// URL is where the client of a request reaches the server, with a slash at
	// its end.
	URL func(*http.Request) string
	// Usage counts what the store holds, as of a minute ago at most. ok is false
	// while that is not known yet.
	Usage func(context.Context) (usage index.Usage, ok bool)
	// Retention is how long a path lives after its last use where its cache has no
	// retention of its own; 0 is for ever.
	Retention time.Duration
	Log       *slog.Logger
}

// Pages answers browsers.
type Pages struct {
	index     index.Index
	config    Config
	mux       *http.ServeMux
	templates map[string]*template.Template
	version   string
	histories histories
}

// New makes the pages of an index.
func New(idx index.Index, c Config) *Pages {
	p := &Pages{index: idx, config: c, mux: http.NewServeMux(), templates: map[string]*template.Template{}}
	layout := template.Must(template.New("layout.html").Funcs(functions).ParseFS(assets, "assets/layout.html", "assets/parts.html"))
	for _, name := range []string{"home", "cache", "path", "error"} {
		p.templates[name] = template.Must(template.Must(layout.Clone()).ParseFS(assets, "assets/"+name+".html"))
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "(devel)" {
		p.version = info.Main.Version
	}
	p.mux.HandleFunc("GET /{$}", p.page(p.home))
	p.mux.HandleFunc("GET "+prefix+"{$}", p.page(p.home))
	p.mux.HandleFunc("GET "+prefix+"sign-in", p.page(p.signIn))
	p.mux.HandleFunc("GET "+prefix+"cache/{cache}", p.page(p.cache))
	p.mux.HandleFunc("GET "+prefix+"cache/{cache}/{path}", p.page(p.path))
	p.mux.HandleFunc("GET "+prefix+"style.css", file("style.css", "text/css; charset=utf-8"))
	p.mux.HandleFunc("GET "+prefix+"icon.svg", file("icon.svg", "image/svg+xml"))
	p.mux.HandleFunc(prefix, p.page(func(*http.Request) (*answer, error) { return nil, errNoPage }))
	return p
}

// Handler answers the pages' paths, and leaves the rest to next, except that a
// browser which asks for a cache's URL is sent to the cache's page.
func (p *Pages) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/", strings.HasPrefix(r.URL.Path, prefix):
			p.mux.ServeHTTP(w, r)
		case p.isCacheURL(r):
			w.Header().Set("Vary", "Accept, Authorization")
			http.Redirect(w, r, cacheLink(p.root(r), strings.Trim(r.URL.Path, "/")), http.StatusSeeOther)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (p *Pages) isCacheURL(r *http.Request) bool {
	name := strings.Trim(r.URL.Path, "/")
	if r.Method != http.MethodGet || name == "" || strings.ContainsAny(name, "/.") ||
		!strings.Contains(r.Header.Get("Accept"), "text/html") {
		return false
	}
	_, err := p.open(r, name)
	return err == nil
}

func file(name, contentType string) http.HandlerFunc {
	contents, err := assets.ReadFile("assets/" + name)
	if err != nil {
		panic(err) // it is part of the program
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "public, max-age=300")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(contents)
	}
}

// answer is a page to be written, or where its reader is sent instead.
type answer struct {
	template string
	status   int
	title    string
	body     any
	redirect string
}

// frame is what the layout of every page shows around it.
type frame struct {
	Title   string
	Root    string // the path of the server's URL, with a slash at its end
	Host    string
	Subject string // who reads, as far as the server was told
	CanSign bool   // signing in could show more
	Version string
	Body    any
}

// page answers with what find finds.
func (p *Pages) page(find func(*http.Request) (*answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a, err := find(r)
		if err != nil {
			a = p.explain(w, r, err)
		}
		h := w.Header()
		h.Set("Vary", "Authorization")
		h.Set("Cache-Control", "private, no-cache")
		if a.redirect != "" {
			http.Redirect(w, r, a.redirect, http.StatusSeeOther)
			return
		}
		subject := auth.SubjectOf(r.Context())
		f := frame{
			Title: a.title, Root: p.root(r), Host: p.host(r), Subject: subject.Name(),
			CanSign: !subject.Can(auth.Pull, anyCache) && subject.Name() == "", Version: p.version, Body: a.body,
		}
		var text bytes.Buffer
		if err := p.templates[a.template].Execute(&text, f); err != nil {
			p.config.Log.Error("making a page", "path", r.URL.Path, "error", err)
			http.Error(w, "internal error; the server's log says which", http.StatusInternalServerError)
			return
		}
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Length", strconv.Itoa(text.Len()))
		w.WriteHeader(a.status)
		_, _ = w.Write(text.Bytes()) // a browser that left is no fault of ours
	}
}

// explain is the page for an error. What is the server's own affair is for its log.
func (p *Pages) explain(w http.ResponseWriter, r *http.Request, err error) *answer {
	status, title, text := http.StatusInternalServerError, "Something failed", "The server’s log says what."
	switch {
	case errors.Is(err, auth.ErrIssuerUnavailable):
		status, title, text = http.StatusServiceUnavailable, "Not now", "Who issued your token cannot be asked for its keys. Try again later."
	case errors.Is(err, auth.ErrForbidden):
		status, title, text = http.StatusForbidden, "Not permitted", "Your token has no right to pull from this cache."
	case errors.Is(err, auth.ErrUnauthorized):
		status, title, text = http.StatusUnauthorized, "Sign in to see this", "There is no cache of this name for everyone. Give a token that may pull from it as the password; the user name does not matter."
		w.Header().Set("WWW-Authenticate", auth.Challenge)
	case errors.Is(err, index.ErrNotFound), errors.Is(err, errNoPage), errors.Is(err, storepath.ErrInvalid):
		status, title, text = http.StatusNotFound, "Nothing here", "It was never here, or it was collected since."
	case errors.Is(err, index.ErrUnavailable):
		status, title, text = http.StatusServiceUnavailable, "Not now", "The database cannot be reached. What is hot goes on being served to Nix; this page needs it back."
		w.Header().Set("Retry-After", "5")
	case r.Context().Err() != nil:
	default:
		p.config.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "status", status, "error", err)
	}
	return &answer{template: "error", status: status, title: title, body: struct{ Text string }{text}}
}

// signIn makes a browser ask for a token, and then shows what it gives to see.
func (p *Pages) signIn(r *http.Request) (*answer, error) {
	subject := auth.SubjectOf(r.Context())
	if err := subject.Problem(); errors.Is(err, auth.ErrIssuerUnavailable) {
		return nil, err
	}
	if !subject.Can(auth.Pull, anyCache) && (subject.Problem() != nil || r.Header.Get("Authorization") == "") {
		return nil, auth.ErrUnauthorized
	}
	return &answer{redirect: p.root(r) + prefix[1:]}, nil
}

// open returns a cache for someone who may pull from it. Who has no right at all
// on the name does not learn whether there is one.
func (p *Pages) open(r *http.Request, name string) (index.Cache, error) {
	subject := auth.SubjectOf(r.Context())
	c, err := p.index.Cache(r.Context(), name)
	switch {
	case errors.Is(err, index.ErrNotFound) && !subject.Any(name):
		return index.Cache{}, subject.Check(auth.Pull, name)
	case err != nil:
		return index.Cache{}, err
	case c.Public:
		return c, nil
	}
	return c, subject.Check(auth.Pull, name)
}

// visible returns the caches that a reader may pull from, the default one first.
// all is true when those are all that there are.
func (p *Pages) visible(r *http.Request) (caches []index.Cache, all bool, err error) {
	there, err := p.index.Caches(r.Context())
	if err != nil {
		return nil, false, err
	}
	subject := auth.SubjectOf(r.Context())
	for _, c := range there {
		if c.Public || subject.Can(auth.Pull, c.Name) {
			caches = append(caches, c)
		}
	}
	slices.SortStableFunc(caches, func(a, b index.Cache) int {
		switch p.config.DefaultCache {
		case a.Name:
			return -1
		case b.Name:
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return caches, len(caches) == len(there), nil
}

func (p *Pages) root(r *http.Request) string {
	u, err := url.Parse(p.config.URL(r))
	if err != nil {
		return "/"
	}
	return u.EscapedPath()
}

func (p *Pages) host(r *http.Request) string {
	u, err := url.Parse(p.config.URL(r))
	if err != nil {
		return r.Host
	}
	return u.Host
}

func cacheLink(root, name string) string { return root + prefix[1:] + "cache/" + url.PathEscape(name) }

func pathLink(root, cache, base string) string {
	return cacheLink(root, cache) + "/" + url.PathEscape(base)
}
