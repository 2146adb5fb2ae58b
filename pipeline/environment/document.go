package environment

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// document is a TOML text that is read key by key, so that every fault is told
// at once, with the line and the key that it is in.
type document struct {
	file   string
	lines  map[string]int // of keys, dotted as toml.Key writes them
	faults []*ConfigError
}

// table is a part of a document. Reading from one whose values are nil gives
// zero values and no faults: that it is missing has been told already.
type table struct {
	doc    *document
	path   toml.Key
	values map[string]any
	read   []string // keys that were asked for
}

func parseDocument(file, text string) (*document, *table, error) {
	var primitives map[string]toml.Primitive
	meta, err := toml.Decode(text, &primitives)
	if err != nil {
		fault := &ConfigError{File: file, Reason: err.Error()}
		var p toml.ParseError
		if errors.As(err, &p) {
			fault.Line, fault.Key, fault.Reason = p.Position.Line, p.LastKey, p.Message
		}
		return nil, nil, fault
	}
	values := map[string]any{}
	if _, err := toml.Decode(text, &values); err != nil {
		return nil, nil, &ConfigError{File: file, Reason: err.Error()}
	}
	doc := &document{file: file, lines: map[string]int{}}
	doc.locate(meta, nil, primitives)
	return doc, &table{doc: doc, values: values}, nil
}

// locate notes in which line each key is, and returns the first of them. The
// library tells a position only with an error, and so every key is decoded into
// what refuses it. A table without a line of its own (a.b = 1 has none for a) is
// where the first of its keys is.
func (d *document) locate(meta toml.MetaData, path toml.Key, primitives map[string]toml.Primitive) (first int) {
	for key, value := range primitives {
		path := append(slices.Clone(path), key)
		line := 0
		var p toml.ParseError
		if errors.As(meta.PrimitiveDecode(value, &refusal{}), &p) {
			line = p.Position.Line
		}
		var below map[string]toml.Primitive
		if meta.PrimitiveDecode(value, &below) == nil {
			line = cmp.Or(line, d.locate(meta, path, below))
		}
		d.lines[path.String()] = line
		if first == 0 || line < first {
			first = line
		}
	}
	return first
}

// refusal can be decoded from nothing.
type refusal struct{}

func (*refusal) UnmarshalTOML(any) error { return errors.New("refused") }

// err joins the faults in the order of their lines.
func (d *document) err() error {
	slices.SortStableFunc(d.faults, func(a, b *ConfigError) int { return a.Line - b.Line })
	errs := make([]error, len(d.faults))
	for i, f := range d.faults {
		errs[i] = f
	}
	return errors.Join(errs...)
}

// known says whether there is such a table.
func (t *table) known() bool { return t.values != nil }

// keys returns the table's keys in alphabetical order.
func (t *table) keys() []string { return slices.Sorted(maps.Keys(t.values)) }

func (t *table) has(key string) bool {
	t.read = append(t.read, key)
	_, ok := t.values[key]
	return ok
}

// fault notes what is wrong with a key, or with the table when key is empty.
func (t *table) fault(key, format string, args ...any) {
	path := t.path
	if key != "" {
		path = append(slices.Clone(path), key)
	}
	line, ok := t.doc.lines[path.String()]
	if !ok {
		line = t.doc.lines[t.path.String()]
	}
	t.doc.faults = append(t.doc.faults, &ConfigError{t.doc.file, line, path.String(), fmt.Sprintf(format, args...)})
}

// check notes what a rule has against a key's value.
func (t *table) check(key, value string, rule func(string) string) {
	if reason := rule(value); reason != "" {
		t.fault(key, "%s", reason)
	}
}

// text reads a string that has to be there; rule says what is wrong with a
// value, or nothing.
func (t *table) text(key string, rule func(string) string) string {
	if !t.known() {
		return ""
	}
	if !t.has(key) {
		t.fault(key, "is missing")
		return ""
	}
	value, ok := t.values[key].(string)
	if !ok {
		t.fault(key, "want a text in quotes, not %v", t.values[key])
		return ""
	}
	t.check(key, value, rule)
	return value
}

// flag reads a boolean that may be missing and is false then.
func (t *table) flag(key string) bool {
	if !t.has(key) {
		return false
	}
	value, ok := t.values[key].(bool)
	if !ok {
		t.fault(key, "want true or false, not %v", t.values[key])
	}
	return value
}

// table reads a table that has to be there.
func (t *table) table(key string) *table {
	below := &table{doc: t.doc, path: append(slices.Clone(t.path), key)}
	if !t.known() {
		return below
	}
	if !t.has(key) {
		t.fault(key, "is missing")
		return below
	}
	var ok bool
	if below.values, ok = t.values[key].(map[string]any); !ok {
		t.fault(key, "want a table")
		below.values = nil
	}
	return below
}

// finish notes the keys that nobody asked for.
func (t *table) finish() {
	for _, key := range t.keys() {
		if !slices.Contains(t.read, key) {
			known := slices.Compact(slices.Sorted(slices.Values(t.read)))
			t.fault(key, "is not known here; known are %s", strings.Join(known, ", "))
		}
	}
}
