// Package nixconf edits configuration files of Nix: nix.conf(5) and the netrc
// file that it names. What is written stands in marked blocks, one for each
// cache; every other line stays as it is, byte for byte and in its order.
package nixconf

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The lines around a block, each followed by the block's name. Both files take
// a line that begins with # for a comment.
const (
	beginMark = "# BEGIN flywheel use "
	endMark   = "# END flywheel use "
)

// ErrDamaged is wrapped when the marks of a file do not fit one another, as
// after an edit by hand: what belongs to a block cannot be told then.
var ErrDamaged = errors.New("the marked blocks are damaged")

// Text is a file's content.
type Text []byte

// block is where a block stands in a Text: from its first mark to the end of
// the line of its last.
type block struct {
	name       string
	begin, end int
}

// blocks finds all blocks, in order.
func (t Text) blocks() ([]block, error) {
	var found []block
	var open *block
	number, at := 0, 0
	for line := range bytes.Lines(t) {
		number++
		begin := at
		at += len(line)
		text := strings.TrimRight(string(line), " \t\r\n")
		if name, ok := strings.CutPrefix(text, beginMark); ok {
			if open != nil {
				return nil, fmt.Errorf("%w: a block begins in line %d, within that of %s: remove the lines by hand", ErrDamaged, number, open.name)
			}
			open = &block{name: name, begin: begin}
		} else if name, ok := strings.CutPrefix(text, endMark); ok {
			if open == nil || open.name != name {
				return nil, fmt.Errorf("%w: line %d ends one that has not begun: remove it by hand", ErrDamaged, number)
			}
			open.end = at
			found = append(found, *open)
			open = nil
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%w: that of %s has no end: remove its lines by hand", ErrDamaged, open.name)
	}
	return found, nil
}

// Names returns the names of the blocks, in order.
func (t Text) Names() ([]string, error) {
	blocks, err := t.blocks()
	if err != nil {
		return nil, err
	}
	names := make([]string, len(blocks))
	for i, b := range blocks {
		names[i] = b.name
	}
	return names, nil
}

// With returns the text with one block of this name, which holds the lines: in
// place of the first there is, or at the end.
func (t Text) With(name string, lines []string) (Text, error) {
	return t.with(name, lines, len(t))
}

// Atop is With, but for where a new block stands: before all else.
func (t Text) Atop(name string, lines []string) (Text, error) {
	return t.with(name, lines, 0)
}

func (t Text) with(name string, lines []string, at int) (Text, error) {
	blocks, err := t.blocks()
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(blocks, func(b block) bool { return b.name == name }); i >= 0 {
		at = blocks[i].begin
	}
	fresh := beginMark + name + "\n" + strings.Join(append(slices.Clone(lines), ""), "\n") + endMark + name + "\n"
	if at > 0 && t[at-1] != '\n' {
		fresh = "\n" + fresh
	}
	// Nothing of this name stands before at.
	rest, err := t.Without(name)
	if err != nil {
		return nil, err
	}
	return slices.Concat(rest[:at], Text(fresh), rest[at:]), nil
}

// Without returns the text without the blocks of this name.
func (t Text) Without(name string) (Text, error) {
	return t.without(func(b block) bool { return b.name == name })
}

// Foreign returns the text without any block.
func (t Text) Foreign() (Text, error) {
	return t.without(func(block) bool { return true })
}

func (t Text) without(cut func(block) bool) (Text, error) {
	blocks, err := t.blocks()
	if err != nil {
		return nil, err
	}
	left, from := Text{}, 0
	for _, b := range blocks {
		if cut(b) {
			left = append(left, t[from:b.begin]...)
			from = b.end
		}
	}
	return append(left, t[from:]...), nil
}

// after returns what follows the block of this name, or nothing.
func (t Text) after(name string) (Text, error) {
	blocks, err := t.blocks()
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		if b.name == name {
			return t[b.end:], nil
		}
	}
	return nil, nil
}
