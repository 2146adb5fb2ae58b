package main

import (
	"fmt"
	"regexp"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
)

// regexps is a repeatable flag of regular expressions (RE2).
type regexps []*regexp.Regexp

func (r *regexps) Set(s string) error {
	e, err := regexp.Compile(s)
	if err == nil {
		*r = append(*r, e)
	}
	return err
}

func (*regexps) Type() string { return "regexp" }

func (r *regexps) String() string {
	texts := make([]string, len(*r))
	for i, e := range *r {
		texts[i] = e.String()
	}
	return strings.Join(texts, " ")
}

// byteSize is a flag of a number of bytes, such as 200MB or 1.5GiB.
type byteSize int64

func (b *byteSize) Set(s string) error {
	n, err := bytesize.Parse(s)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is no size: want a number above 0 with B, kB, MB, GB, KiB, MiB or GiB", s)
	}
	*b = byteSize(n)
	return nil
}

func (*byteSize) Type() string { return "size" }

func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	return bytesize.Text(int64(*b))
}
