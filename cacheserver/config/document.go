package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxFile is how long a configuration may be, in bytes.
const maxFile = 256 << 10

// document is a TOML text that is read key by key, so that every fault is told at
// once, with its line.
type document struct {
	name, text  string
	values      map[string]any
	lines       map[string]int // of keys, as below writes them
	expressions []expression
	faults      Faults
}

// expression is a key with its value, or the head of a table.
type expression struct {
	line int // its first
	end  int // in bytes of the text
}

func readFile(name string) (*document, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return parse(name, string(text))
}

// parse's errors are a *Fault.
func parse(name, text string) (*document, error) {
	d := &document{name: name, text: text, lines: map[string]int{}}
	if len(text) > maxFile {
		return nil, &Fault{File: name, Reason: fmt.Sprintf("it is longer than %d bytes", maxFile)}
	}
	if _, err := toml.Decode(text, &d.values); err != nil {
		fault := &Fault{File: name, Reason: strings.TrimPrefix(err.Error(), "toml: ")}
		var at toml.ParseError
		if errors.As(err, &at) {
			fault.Line, fault.Key, fault.Reason = at.Position.Line, at.LastKey, at.Message
		}
		return nil, fault
	}
	d.locate()
	return d, nil
}

// below is the name of a key in a table; of a table in an array, that with its
// number.
func below(table, key string) string {
	key = toml.Key{key}.String()
	if table == "" {
		return key
	}
	return table + "." + key
}

func element(array string, n int) string { return fmt.Sprintf("%s[%d]", array, n) }

// locate finds the line of every key. The library tells that only with its
// errors, and of several tables in an array only that of the last one, and so
// each expression is parsed by itself: in a text that is valid as a whole, what
// is not yet valid goes on in the next line.
func (d *document) locate() {
	arrays := map[string]int{} // how many tables they have so far
	table, open, first, end := "", "", 0, 0
	for n, line := range strings.SplitAfter(d.text, "\n") {
		end += len(line)
		trimmed := strings.TrimSpace(line)
		if open == "" {
			if trimmed == "" || trimmed[0] == '#' {
				continue
			}
			first = n + 1
		}
		open += line
		// No other lines than the first and such can be the last.
		if first <= n && !strings.ContainsAny(line, `]}"'`) {
			continue
		}
		var values map[string]any
		meta, err := toml.Decode(open, &values)
		if err != nil {
			continue
		}
		d.expressions = append(d.expressions, expression{first, end})
		if keys := meta.Keys(); strings.HasPrefix(strings.TrimSpace(open), "[") {
			head := keys[len(keys)-1]
			table = d.head(head, meta.Type(head...) == "ArrayHash", arrays, first)
		} else {
			for _, key := range keys {
				for i := range key { // of a.b = 1, a is there, too
					d.note(resolve(table, key[:i+1], arrays), first)
				}
			}
		}
		open = ""
	}
}

func (d *document) note(key string, line int) {
	if d.lines[key] == 0 {
		d.lines[key] = line
	}
}

// head returns the name of the table that a head begins.
func (d *document) head(key toml.Key, isArray bool, arrays map[string]int, line int) string {
	for i := range key[1:] {
		d.note(resolve("", key[:i+1], arrays), line)
	}
	if !isArray {
		name := resolve("", key, arrays)
		d.note(name, line)
		return name
	}
	name := below(resolve("", key[:len(key)-1], arrays), key[len(key)-1])
	d.note(name, line)
	name, arrays[name] = element(name, arrays[name]), arrays[name]+1
	d.note(name, line)
	return name
}

// resolve is the name of a key below a table: of arrays of tables, the last one
// is meant.
func resolve(table string, key toml.Key, arrays map[string]int) string {
	for _, part := range key {
		table = below(table, part)
		if n := arrays[table]; n > 0 {
			table = element(table, n-1)
		}
	}
	return table
}

// line is that of a key, or else of what it is in.
func (d *document) line(key string) int {
	for key != "" {
		if line := d.lines[key]; line > 0 {
			return line
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return 0
}

func (d *document) fault(key, format string, args ...any) {
	d.faults = append(d.faults, &Fault{File: d.name, Line: d.line(key), Key: key, Reason: fmt.Sprintf(format, args...)})
}

// decode is for tables whose types are another package's: it decodes the table
// under key into what into points to, a struct with that table as its field.
func (d *document) decode(key string, into func() any) {
	meta, err := toml.Decode(d.text, into())
	if err == nil {
		for _, unknown := range meta.Undecoded() {
			if unknown[0] == key && !d.isBelowUnknown(unknown, meta.Undecoded()) {
				d.faultEverywhere(unknown, into())
			}
		}
		return
	}
	if len(d.expressions) == 0 {
		d.faults = append(d.faults, reworded(&Fault{File: d.name}, err))
		return
	}
	// Of several tables in an array, the error does not tell which it is: it is
	// in the first expression that has one.
	n := sort.Search(len(d.expressions)-1, func(i int) bool {
		_, prefixErr := toml.Decode(d.text[:d.expressions[i].end], into())
		if prefixErr != nil {
			err = prefixErr
		}
		return prefixErr != nil
	})
	d.faults = append(d.faults, reworded(&Fault{File: d.name, Line: d.expressions[n].line}, err))
}

// isBelowUnknown says whether the table that a key is in is unknown, too.
func (*document) isBelowUnknown(key toml.Key, unknown []toml.Key) bool {
	return slices.ContainsFunc(unknown, func(u toml.Key) bool {
		return len(u) < len(key) && slices.Equal(u, key[:len(u)])
	})
}

var indexes = regexp.MustCompile(`\[\d+\]`)

// faultEverywhere notes an unknown key, which the library names without the
// numbers of the tables that it is in, wherever it stands.
func (d *document) faultEverywhere(key toml.Key, into any) {
	found := false
	reason := suggest(key[len(key)-1], keysBeside(reflect.TypeOf(into), key))
	for name, line := range d.lines {
		if indexes.ReplaceAllString(name, "") == key.String() {
			found = true
			d.faults = append(d.faults, &Fault{File: d.name, Line: line, Key: name, Reason: reason})
		}
	}
	if !found {
		d.fault(key.String(), "%s", reason)
	}
}

// keysBeside returns the keys that a type knows beside one that it does not.
func keysBeside(t reflect.Type, key toml.Key) (known []string) {
	for i := range key {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			return nil
		}
		known = nil
		var next reflect.Type
		for _, field := range reflect.VisibleFields(t) {
			tag := field.Tag.Get("toml")
			if tag == "" || tag == "-" {
				continue
			}
			known = append(known, tag)
			if tag == key[i] {
				next = field.Type
			}
		}
		if next == nil {
			return known
		}
		t = next
	}
	return known
}

var libraryError = regexp.MustCompile(`^toml: (?:line \d+ )?\(last key "(.*?)"\): (.*)$`)

var badType = regexp.MustCompile(`^incompatible types: TOML value has type (.*); destination has type (.*)$`)

// reworded fills in a fault with what the library says.
func reworded(f *Fault, err error) *Fault {
	f.Reason = err.Error()
	var at toml.ParseError
	if errors.As(err, &at) {
		f.Key, f.Reason = at.LastKey, at.Message
	} else if m := libraryError.FindStringSubmatch(f.Reason); m != nil {
		f.Key, f.Reason = m[1], m[2]
	}
	if m := badType.FindStringSubmatch(f.Reason); m != nil {
		f.Reason = fmt.Sprintf("want a value of type %s, not %s", m[2], m[1])
	}
	return f
}
