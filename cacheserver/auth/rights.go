package auth

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Grant gives rights on the caches whose names match a pattern.
type Grant struct {
	Pattern string // the name of a cache, in which * stands for any characters or none
	Rights  Right
}

// Rights are what one token grants. A cache's rights are those of its own name
// or else those of the first pattern that it matches: several are not added up.
type Rights []Grant

// On returns the rights on a cache.
func (r Rights) On(cache string) Right {
	if strings.Contains(cache, "*") {
		return 0 // a pattern would have the rights of the pattern
	}
	for _, g := range r {
		if g.Pattern == cache {
			return g.Rights
		}
	}
	for _, g := range r {
		if matches(g.Pattern, cache) {
			return g.Rights
		}
	}
	return 0
}

var validPattern = regexp.MustCompile(`^[A-Za-z0-9*][A-Za-z0-9_+*-]{0,49}$`)

// Several stars match what one does.
var stars = regexp.MustCompile(`\*{2,}`)

func checkPattern(pattern string) error {
	if !validPattern.MatchString(pattern) {
		return fmt.Errorf("cache %.80q: want 1 to 50 characters of A-Z, a-z, 0-9, -, _, + and *, the first a letter, a digit or *", pattern)
	}
	return nil
}

// NewRights puts grants into an order in which a cache gets all that the
// patterns that cover its name's pattern grant: push on main and pull on main*
// are pull and push on main. Only of patterns of which neither covers the other,
// such as a* and *b, a name that matches both gets what the first grants.
func NewRights(grants ...Grant) (Rights, error) {
	byPattern := map[string]Right{}
	for _, g := range grants {
		if err := checkPattern(g.Pattern); err != nil {
			return nil, err
		}
		byPattern[stars.ReplaceAllLiteralString(g.Pattern, "*")] |= g.Rights
	}
	var r Rights
	for pattern := range byPattern {
		var sum Right
		for other, rights := range byPattern {
			// To the other's * the * of this one is a character like any.
			if matches(other, pattern) {
				sum |= rights
			}
		}
		r = append(r, Grant{pattern, sum})
	}
	// A pattern that covers another has no characters more than it, and, having
	// as many, more stars, now that no two stars stand side by side.
	slices.SortFunc(r, func(a, b Grant) int {
		starsA, starsB := strings.Count(a.Pattern, "*"), strings.Count(b.Pattern, "*")
		return cmp.Or(
			cmp.Compare(len(b.Pattern)-starsB, len(a.Pattern)-starsA),
			cmp.Compare(starsA, starsB),
			cmp.Compare(a.Pattern, b.Pattern),
		)
	})
	return r, nil
}

// MarshalJSON writes the object of a token's caches, in order.
func (r Rights) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, g := range r {
		if i > 0 {
			b.WriteByte(',')
		}
		bits := map[string]int{}
		for _, n := range rightNames {
			if g.Rights&n.right != 0 {
				bits[n.claim] = 1
			}
		}
		pattern, err := json.Marshal(g.Pattern)
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(bits)
		if err != nil {
			return nil, err
		}
		b.Write(pattern)
		b.WriteByte(':')
		b.Write(text)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads the object of a token's caches and keeps its order.
func (r *Rights) UnmarshalJSON(text []byte) error {
	*r = Rights{}
	seen := map[string]bool{}
	return eachMember(text, func(pattern string, value json.RawMessage) error {
		if err := checkPattern(pattern); err != nil {
			return err
		}
		if seen[pattern] {
			return fmt.Errorf("cache %q stands there twice", pattern)
		}
		seen[pattern] = true
		g := Grant{Pattern: pattern}
		err := eachMember(value, func(claim string, bit json.RawMessage) error {
			i := slices.IndexFunc(rightNames, func(n rightName) bool { return n.claim == claim })
			switch {
			case i < 0: // a right of a later version, which nothing here asks for
			case string(bit) == "1":
				g.Rights |= rightNames[i].right
			case string(bit) == "0":
				g.Rights &^= rightNames[i].right
			default:
				return fmt.Errorf("right %q on cache %q: want 0 or 1", claim, pattern)
			}
			return nil
		})
		*r = append(*r, g)
		return err
	})
}

// eachMember calls member for the members of a JSON object, in order.
func eachMember(text []byte, member func(key string, value json.RawMessage) error) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("want an object")
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok {
			return errors.New("want a key")
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		if err := member(key, value); err != nil {
			return err
		}
	}
	return nil
}

// matches says whether text is what pattern says, in which * stands for any
// characters or none.
func matches(pattern, text string) bool {
	star, from := -1, 0 // the last *, and where what it stands for ends
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, t
			p++
		case p < len(pattern) && pattern[p] == text[t]:
			p++
			t++
		case star >= 0:
			from++
			p, t = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
