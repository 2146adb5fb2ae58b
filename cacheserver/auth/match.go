package auth

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Patterns are texts of which a claim must match one; * in them stands for any
// characters or none. In TOML they are a list, or one text, truth value or number.
type Patterns []string

// UnmarshalTOML reads them.
func (p *Patterns) UnmarshalTOML(value any) error {
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	*p = nil
	for _, v := range list {
		switch v := v.(type) {
		case string:
			*p = append(*p, v)
		case bool:
			*p = append(*p, strconv.FormatBool(v))
		case int64:
			*p = append(*p, strconv.FormatInt(v, 10))
		default:
			return fmt.Errorf("a claim is matched by text, true or false, a whole number, or a list of those, not %T", v)
		}
	}
	return nil
}

// match says whether one of the values matches one of the patterns.
func (p Patterns) match(values []string) bool {
	for _, v := range values {
		for _, pattern := range p {
			if matches(pattern, v) {
				return true
			}
		}
	}
	return false
}

// valuesOf returns what a claim is matched by: a text, truth value or number as
// text, each of a list, and nothing of what else it may be.
func valuesOf(claim any) []string {
	switch c := claim.(type) {
	case string:
		return []string{c}
	case bool:
		return []string{strconv.FormatBool(c)}
	case json.Number:
		return []string{c.String()}
	case []any:
		var all []string
		for _, element := range c {
			if _, nested := element.([]any); !nested {
				all = append(all, valuesOf(element)...)
			}
		}
		return all
	}
	return nil
}
