package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
)

const (
	authKey  = "auth"
	cacheKey = "cache"
)

// fromFile takes what flags and environment leave open from a document, and
// checks the rest, too.
func (s *Settings) fromFile(d *document) {
	known := []string{cacheKey}
	for _, x := range s.all() {
		known = append(known, x.key())
		if given, ok := d.values[x.key()]; ok && (x.key() != authKey || !d.hasAuth()) {
			x.fromFile(d, given)
		}
	}
	for key := range d.values {
		if !slices.Contains(known, key) {
			d.fault(below("", key), "%s", suggest(strings.ReplaceAll(key, "-", "_"), known))
		}
	}
	if given, ok := d.values[cacheKey]; ok {
		s.Server.Caches = declared(d, given)
	}
}

// hasAuth says whether the table [auth] is in it, rather than the name of a file
// with that, or neither.
func (d *document) hasAuth() bool {
	_, ok := d.values[authKey].(map[string]any)
	return ok
}

func (x *Setting) fromFile(d *document, given any) {
	var text string
	kind := x.Value.Type()
	switch given := given.(type) {
	case string:
		text = given
	case bool:
		text = strconv.FormatBool(given)
	case int64:
		text = strconv.FormatInt(given, 10)
	default:
		d.fault(x.key(), "%s", wantKind(kind))
		return
	}
	_, isText := given.(string)
	_, isBool := given.(bool)
	fits := isText
	switch kind {
	case kindBool:
		fits = isBool
	case kindInt:
		fits = !isText && !isBool
	case kindSize:
		fits = !isBool
	}
	if !fits {
		d.fault(x.key(), "%s, not %v", wantKind(kind), x.masked(given))
		return
	}
	// What a flag or a variable has set stays, but the file is to be right as well.
	before := x.Value.String()
	if err := x.Value.Set(text); err != nil {
		d.fault(x.key(), "%v, not %v", err, x.masked(given))
		return
	}
	if x.origin != "" {
		_ = x.Value.Set(before) // it was this before
		return
	}
	x.origin = d.name
	if line := d.line(x.key()); line > 0 {
		x.origin = fmt.Sprintf("%s:%d", d.name, line)
	}
}

// masked is a value as a fault may quote it.
func (x *Setting) masked(given any) string {
	switch text, isText := given.(string); {
	case x.Secret || x.mask != nil:
		return "what stands there"
	case isText:
		return strconv.Quote(text)
	}
	return fmt.Sprint(given)
}

func wantKind(kind string) string {
	switch kind {
	case kindBool:
		return "want true or false"
	case kindInt:
		return "want a whole number"
	case kindSize:
		return "want a number of bytes such as \"200GB\""
	}
	return "want a text in quotes"
}

// table is one table of a document, of which the keys are read one by one.
type table struct {
	*document
	name   string
	values map[string]any
	known  []string
}

// read returns the value of a key, or notes that it is of another type.
func read[T any](t *table, key, want string) (value T, ok bool) {
	t.known = append(t.known, key)
	given, ok := t.values[key]
	if !ok {
		return value, false
	}
	if value, ok = given.(T); !ok {
		t.fault(below(t.name, key), "want %s", want)
	}
	return value, ok
}

func (t *table) texts(key string) (texts []string, ok bool) {
	const want = "a list of texts in quotes"
	list, ok := read[[]any](t, key, want)
	if !ok {
		return nil, false
	}
	texts = []string{}
	for i, given := range list {
		text, ok := given.(string)
		if !ok {
			t.fault(element(below(t.name, key), i), "want %s", want)
			return nil, false
		}
		texts = append(texts, text)
	}
	return texts, true
}

// finish notes the keys that were not asked for.
func (t *table) finish() {
	for key := range t.values {
		if !slices.Contains(t.known, key) {
			t.fault(below(t.name, key), "%s", suggest(strings.ReplaceAll(key, "-", "_"), t.known))
		}
	}
}

// tables returns the tables of an array of them; want is for a value that is
// none.
func (d *document) tables(name string, given any, want string) []*table {
	var list []map[string]any
	switch given := given.(type) {
	case []map[string]any: // [[name]]
		list = given
	case []any: // name = [{…}]
		for _, g := range given {
			values, ok := g.(map[string]any)
			if !ok {
				d.fault(name, "want %s", want)
				return nil
			}
			list = append(list, values)
		}
	default:
		d.fault(name, "want %s", want)
		return nil
	}
	tables := make([]*table, len(list))
	for i, values := range list {
		tables[i] = &table{document: d, name: element(name, i), values: values}
	}
	return tables
}

// declared reads [[cache]].
func declared(d *document, given any) []cacheserver.DeclaredCache {
	var caches []cacheserver.DeclaredCache
	seen := map[string]bool{}
	for _, t := range d.tables(cacheKey, given, "[[cache]] before each cache") {
		c := declaredCache(t)
		if seen[c.Name] && c.Name != "" {
			t.fault(below(t.name, "name"), "there is another cache %q", c.Name)
		}
		seen[c.Name] = true
		caches = append(caches, c)
	}
	return caches
}

func declaredCache(t *table) cacheserver.DeclaredCache {
	var c cacheserver.DeclaredCache
	var ok bool
	if c.Name, ok = read[string](t, "name", "a text in quotes"); ok {
		if err := nixcache.CheckCacheName(c.Name); err != nil {
			t.fault(below(t.name, "name"), "%v", err)
		}
	} else if t.values["name"] == nil {
		t.fault(t.name, "it has no name")
	}
	if public, ok := read[bool](t, "public", "true or false"); ok {
		c.Public = &public
	}
	if given, ok := read[int64](t, "priority", "a whole number"); ok {
		if err := cacheserver.CheckPriority(given); err != nil {
			t.fault(below(t.name, "priority"), "%v", err)
		}
		priority := int(given)
		c.Priority = &priority
	}
	if given, ok := read[string](t, "retention", `days such as "90d", hours such as "12h", "off" or "global"`); ok {
		kept, err := ParseRetention(given)
		if err != nil {
			t.fault(below(t.name, "retention"), "%v, not %q", err, given)
		}
		c.Retention = &kept
	}
	if keys, ok := t.texts("upstream_keys"); ok {
		if err := nixcache.CheckUpstreamKeys(keys); err != nil {
			t.fault(below(t.name, "upstream_keys"), "%v", err)
		}
		c.UpstreamKeys = keys
	}
	t.known = append(t.known, "upstreams")
	if given, ok := t.values["upstreams"]; ok {
		name := below(t.name, "upstreams")
		for _, u := range t.tables(name, given, "a list of tables {url = …, public_keys = [ … ]}") {
			c.Upstreams = append(c.Upstreams, upstream(u))
		}
	}
	t.finish()
	return c
}

// upstream reads where a cache looks for paths that it lacks. Its URL may have a
// password in it.
func upstream(t *table) nixcache.Upstream {
	var u nixcache.Upstream
	var hasURL, hasKeys bool
	u.URL, hasURL = read[string](t, "url", "a URL in quotes")
	u.PublicKeys, hasKeys = t.texts("public_keys")
	switch {
	case t.values["url"] == nil:
		t.fault(t.name, "it has no url")
	case t.values["public_keys"] == nil:
		t.fault(t.name, "it has no public_keys: what nobody has signed is not taken")
	case hasURL && hasKeys:
		if err := u.Check(); err != nil {
			t.fault(t.name, "%v", err)
		}
	}
	t.finish()
	return u
}
