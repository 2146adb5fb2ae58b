package nar

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Visit is called for every node of an archive, parents before children.
// body holds the contents of a regular file (nil otherwise) and is valid until
// Visit returns; what is left of it is passed over.
type Visit func(n Node, body io.Reader) error

// Read reads one archive from r to its very end and calls visit (which may be
// nil) for each node. It fails with ErrMalformed on anything that Nix itself
// would not write: wrong tokens, names out of order or twice, padding that is
// not zero, bytes behind the end. An error of r or of visit is returned as it
// is, wrapped.
func Read(r io.Reader, visit Visit) error {
	p := parser{r: bufio.NewReaderSize(r, 64<<10), visit: visit}
	if err := p.expect(magic); err != nil {
		return err
	}
	if err := p.node("", 0); err != nil {
		return err
	}
	switch _, err := p.r.ReadByte(); {
	case err == nil:
		return fmt.Errorf("%w: bytes behind its end, at offset %d", ErrMalformed, p.pos)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("reading a NAR: %w", err)
	}
	return nil
}

type parser struct {
	r     *bufio.Reader
	visit Visit
	pos   int64
	buf   [MaxTargetLen + 8]byte
}

func (p *parser) malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s, before offset %d", ErrMalformed, fmt.Sprintf(format, args...), p.pos)
}

func (p *parser) fill(b []byte) error {
	n, err := io.ReadFull(p.r, b)
	p.pos += int64(n)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return p.malformed("it ends early")
	case err != nil:
		return fmt.Errorf("reading a NAR: %w", err)
	}
	return nil
}

func (p *parser) length() (uint64, error) {
	if err := p.fill(p.buf[:8]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(p.buf[:8]), nil
}

// token reads a string of at most limit bytes; the result is valid until the
// next call.
func (p *parser) token(limit uint64) ([]byte, error) {
	n, err := p.length()
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, p.malformed("a string of %d bytes where at most %d can stand", n, limit)
	}
	padded := int64(n) + padding(int64(n))
	b := p.buf[:padded]
	if err := p.fill(b); err != nil {
		return nil, err
	}
	if err := p.zero(b[n:]); err != nil {
		return nil, err
	}
	return b[:n], nil
}

func (p *parser) zero(b []byte) error {
	for _, c := range b {
		if c != 0 {
			return p.malformed("padding is not zero")
		}
	}
	return nil
}

func (p *parser) expect(words ...string) error {
	for _, w := range words {
		got, err := p.token(uint64(max(len(w), 16)))
		if err != nil {
			return err
		}
		if string(got) != w {
			return p.malformed("%.20q where %q must stand", got, w)
		}
	}
	return nil
}

func (p *parser) emit(n Node, body io.Reader) error {
	if p.visit == nil {
		return nil
	}
	return p.visit(n, body)
}

func (p *parser) node(path string, depth int) error {
	if depth > MaxDepth {
		return p.malformed("directories nested deeper than %d", MaxDepth)
	}
	if err := p.expect("(", "type"); err != nil {
		return err
	}
	kind, err := p.token(16)
	if err != nil {
		return err
	}
	switch string(kind) {
	case "regular":
		err = p.regular(path)
	case "symlink":
		err = p.symlink(path)
	case "directory":
		return p.directory(path, depth) // reads its own closing parenthesis
	default:
		return p.malformed("a node of type %.20q", kind)
	}
	if err != nil {
		return err
	}
	return p.expect(")")
}

func (p *parser) symlink(path string) error {
	if err := p.expect("target"); err != nil {
		return err
	}
	target, err := p.token(MaxTargetLen)
	if err != nil {
		return err
	}
	if len(target) == 0 || strings.IndexByte(string(target), 0) >= 0 {
		return p.malformed("a symlink that no file system can hold")
	}
	return p.emit(Node{Path: path, Type: Symlink, Target: string(target)}, nil)
}

func (p *parser) regular(path string) error {
	n := Node{Path: path, Type: Regular}
	word, err := p.token(16)
	if err != nil {
		return err
	}
	if string(word) == "executable" {
		n.Executable = true
		if err := p.expect("", "contents"); err != nil {
			return err
		}
	} else if string(word) != "contents" {
		return p.malformed("%.20q where \"contents\" must stand", word)
	}
	size, err := p.length()
	if err != nil {
		return err
	}
	if size > 1<<62 {
		return p.malformed("a file of %d bytes", size)
	}
	n.Size, n.Offset = int64(size), p.pos
	body := &io.LimitedReader{R: p.r, N: n.Size}
	if err := p.emit(n, body); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return fmt.Errorf("reading a NAR: %w", err)
	}
	p.pos += n.Size - body.N
	if body.N > 0 {
		return p.malformed("it ends early")
	}
	pad := p.buf[:padding(n.Size)]
	if err := p.fill(pad); err != nil {
		return err
	}
	return p.zero(pad)
}

func (p *parser) directory(path string, depth int) error {
	if err := p.emit(Node{Path: path, Type: Directory}, nil); err != nil {
		return err
	}
	last := ""
	for {
		word, err := p.token(16)
		if err != nil {
			return err
		}
		switch string(word) {
		case ")":
			return nil
		case "entry":
		default:
			return p.malformed("%.20q where \"entry\" or \")\" must stand", word)
		}
		if err := p.expect("(", "name"); err != nil {
			return err
		}
		raw, err := p.token(MaxNameLen)
		if err != nil {
			return err
		}
		name := string(raw)
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return p.malformed("an entry named %q", name)
		}
		if name <= last {
			return p.malformed("entry %q behind %q, out of order", name, last)
		}
		last = name
		child := name
		if path != "" {
			child = path + "/" + name
		}
		if err := p.expect("node"); err != nil {
			return err
		}
		if err := p.node(child, depth+1); err != nil {
			return err
		}
		if err := p.expect(")"); err != nil {
			return err
		}
	}
}
