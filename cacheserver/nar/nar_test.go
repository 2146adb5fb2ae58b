package nar_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
)

// tree makes a directory with everything an archive can hold.
func tree(t testing.TB) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(root, "a", "empty"), 0o755))
	must(os.WriteFile(filepath.Join(root, "a", "eight"), []byte("12345678"), 0o644))
	must(os.WriteFile(filepath.Join(root, "a.d"), []byte("sorts between a and a/…"), 0o644))
	must(os.WriteFile(filepath.Join(root, "run"), []byte("#!/bin/sh\n"), 0o755))
	must(os.WriteFile(filepath.Join(root, "none"), nil, 0o644))
	must(os.WriteFile(filepath.Join(root, "big"), bytes.Repeat([]byte("abcdefg"), 100_000), 0o644))
	must(os.Symlink("../else where", filepath.Join(root, "link")))
	return root
}

func dump(t testing.TB, path string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := nar.Dump(&b, path); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDumpIsWhatNixWrites(t *testing.T) {
	t.Parallel()
	store, err := exec.LookPath("nix-store")
	if err != nil {
		t.Skip("nix-store is not installed: the comparison with Nix's own archive needs it")
	}
	root := tree(t)
	want, err := exec.Command(store, "--dump", root).Output()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dump(t, root), want) {
		t.Error("Dump differs from nix-store --dump")
	}
}

func TestReadSeesEveryNode(t *testing.T) {
	t.Parallel()
	archive := dump(t, tree(t))
	var got []string
	err := nar.Read(bytes.NewReader(archive), func(n nar.Node, body io.Reader) error {
		line := n.Path
		switch n.Type {
		case nar.Directory:
			line += "/"
		case nar.Symlink:
			line += "->" + n.Target
		case nar.Regular:
			if n.Executable {
				line += "*"
			}
			if n.Path == "run" {
				b, err := io.ReadAll(body)
				if err != nil {
					return err
				}
				at := archive[n.Offset : n.Offset+n.Size]
				if !bytes.Equal(b, at) {
					t.Errorf("contents %q, at its offset %q", b, at)
				}
			}
		}
		got = append(got, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "/ a/ a/eight a/empty/ a.d big link->../else where none run*"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("nodes %q, want %q", s, want)
	}
}

// words makes an archive of bare tokens.
func words(tokens ...string) []byte {
	var b bytes.Buffer
	for _, s := range tokens {
		_ = binary.Write(&b, binary.LittleEndian, uint64(len(s)))
		b.WriteString(s)
		b.Write(make([]byte, (8-len(s)%8)%8))
	}
	return b.Bytes()
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	file := []string{"(", "type", "regular", "contents", "x", ")"}
	dir := func(names ...string) []byte {
		tokens := []string{"nix-archive-1", "(", "type", "directory"}
		for _, n := range names {
			tokens = append(append(append(tokens, "entry", "(", "name", n, "node"), file...), ")")
		}
		return words(append(tokens, ")")...)
	}
	deep := words(append([]string{"nix-archive-1"}, strings.Fields(strings.Repeat("( type directory entry ( name d node ", nar.MaxDepth+2))...)...)
	dirtyPad := dir("a")
	dirtyPad[len(dirtyPad)-1] = 1

	for name, archive := range map[string][]byte{
		"nothing":                 nil,
		"another magic":           words("nix-archive-2"),
		"an unknown type":         words("nix-archive-1", "(", "type", "socket", ")"),
		"names out of order":      dir("b", "a"),
		"a name twice":            dir("a", "a"),
		"an empty name":           dir(""),
		"a name that climbs":      dir(".."),
		"a name with a slash":     dir("a/b"),
		"a name with a zero":      dir("a\x00b"),
		"a name too long":         dir(strings.Repeat("n", nar.MaxNameLen+1)),
		"a tree too deep":         deep,
		"padding that is not 0":   dirtyPad,
		"bytes behind the end":    append(dir("a"), 0),
		"an end in the middle":    dir("a")[:60],
		"a string of 2^63 bytes":  append(words("nix-archive-1"), 0, 0, 0, 0, 0, 0, 0, 0x80),
		"contents of 2^63 bytes":  append(words("nix-archive-1", "(", "type", "regular", "contents"), 0, 0, 0, 0, 0, 0, 0, 0x80),
		"contents that end early": append(words("nix-archive-1", "(", "type", "regular", "contents"), 9, 0, 0, 0, 0, 0, 0, 0, 1),
		"a symlink to nothing":    words("nix-archive-1", "(", "type", "symlink", "target", "", ")"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := nar.Read(bytes.NewReader(archive), nil); !errors.Is(err, nar.ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
		})
	}
	if err := nar.Read(bytes.NewReader(dir("a", "a.d", "b")), nil); err != nil {
		t.Errorf("a good archive: %v", err)
	}
}

func TestReadReturnsTheReadersError(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection reset")
	archive := dump(t, tree(t))
	r := io.MultiReader(bytes.NewReader(archive[:len(archive)/2]), errReader{broken})
	if err := nar.Read(r, nil); !errors.Is(err, broken) || errors.Is(err, nar.ErrMalformed) {
		t.Errorf("got %v, want the reader's own error", err)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func TestDumpRefusesASocket(t *testing.T) {
	t.Parallel()
	if err := nar.Dump(io.Discard, "/dev/null"); err == nil || !strings.Contains(err.Error(), "device") {
		t.Errorf("got %v, want an error that names the device", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(dump(f, tree(f)))
	f.Add(words("nix-archive-1", "(", "type", "regular", "executable", "", "contents", "hello", ")"))
	f.Add(words("nix-archive-1", "(", "type", "symlink", "target", "/x", ")"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		var total int64
		err := nar.Read(bytes.NewReader(archive), func(n nar.Node, body io.Reader) error {
			if n.Type == nar.Regular {
				if n.Offset > int64(len(archive)) {
					t.Fatalf("offset %d behind the end %d", n.Offset, len(archive))
				}
				total += n.Size
			}
			return nil
		})
		if err == nil && total > int64(len(archive)) {
			t.Fatalf("%d bytes of files in an archive of %d", total, len(archive))
		}
	})
}

func BenchmarkDump(b *testing.B) {
	root := tree(b)
	b.SetBytes(int64(len(dump(b, root))))
	for b.Loop() {
		if err := nar.Dump(io.Discard, root); err != nil {
			b.Fatal(err)
		}
	}
}
